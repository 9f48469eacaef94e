"""Is a device there? Asked before anything is moved to it."""

from __future__ import annotations

from worldeval.errors import ConfigError


def check_device(name: str | None) -> None:
    """Raise ConfigError for a device on which torch cannot compute here."""
    import torch

    try:
        torch.zeros(1, device=name).item()  # a tensor on "meta" has no value
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        raise ConfigError(
            f"device is {name!r}, which torch does not have here; use cpu, or cuda on a machine "
            "with a GPU and torch for it (`worldeval doctor` shows what there is)"
        ) from error
