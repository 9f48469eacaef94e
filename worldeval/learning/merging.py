"""Merging of a fine-tuned policy with the one that it came from (RETAIN; model soups before it).

Enters: two policies of equal shapes, ``base`` and ``tuned``, and how much of ``tuned`` to take:
``w = (1 - alpha) base + alpha tuned``, tensor by tensor, in float32 or wider. Leaves: a folder like
that of ``base`` with the merged weights. alpha 0 is ``base`` and alpha 1 is ``tuned``, to the bit.

Both are safetensors of any policy (``data/weight_files.py``); one tensor of each is in memory.
Numbers that are no weights (whole numbers, statistics by which inputs are normalised) must be equal
in both, for there is nothing between two of them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldeval.data import checkpoint, digests
from worldeval.data.atomic import write_atomically
from worldeval.data.provenance import MANIFEST, write_manifest
from worldeval.data.weight_files import WeightFiles, header_of
from worldeval.errors import CheckpointError, ConfigError, MismatchError, StoreError

if TYPE_CHECKING:
    from torch import Tensor

_OTHER_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx"}
"""Files that may hold weights of the base, which must not lie beside merged ones."""
_NORMALISERS = re.compile(r"(^|\.)(un)?normalize\w*\..*buffer|(^|\.)(norm_stats|stats)\.")
_FACTORS = re.compile(r"(^|[._])lora_(A|B|embedding)")


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """How much of the tuned policy each tensor takes.

    alpha: for all that no group names. groups: (pattern, alpha); a tensor takes that of the first
    pattern that is found in its name (``re.search``).
    """

    alpha: float = 0.5
    groups: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), *((f"group {p!r}", a) for p, a in self.groups)):
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value}, expected 0 (base) to 1 (tuned)")
        for pattern, _ in self.groups:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(
                    f"group {pattern!r} is no regular expression ({error}); give one such as "
                    "'^views\\.'"
                ) from None

    def of(self, name: str) -> float:
        """The share of the tuned policy in the tensor ``name``."""
        return next((a for pattern, a in self.groups if re.search(pattern, name)), self.alpha)

    def check(self, names: Sequence[str], place: Path) -> None:
        """ConfigError for a group that names no tensor."""
        for pattern, _ in self.groups:
            if not any(re.search(pattern, name) for name in names):
                raise ConfigError(
                    f"group {pattern!r} is found in no tensor of {place}, whose names are such as "
                    f"{sorted(names)[:4]}; correct it"
                )


def merge(
    base: str | Path,
    tuned: str | Path,
    out: str | Path,
    mixture: Mixture,
    *,
    name: str | None = None,
) -> Path:
    """Write the merged policy to the folder ``out``, which appears once it is whole.

    name: of a policy of ours, by default the folder's. A folder in which this very merge lies is
    kept. Raises MismatchError naming the tensor in which the two differ by shape or kind, and
    ConfigError for a folder that holds something else.
    """
    base, tuned, out = Path(base), Path(tuned), Path(out)
    manifest = partial(
        write_manifest,
        command="merge",
        config={"base": base, "tuned": tuned, "mixture": mixture, "name": name},
        seed=None,
        content=digests.of_inputs(base, tuned),
    )
    if (out / MANIFEST).is_file():
        manifest(out)
        return out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already; choose another --out, or delete it")
    first, second = WeightFiles.open(base), WeightFiles.open(tuned)
    check_alike(first, second)
    mixture.check(list(first), base)
    staging = out.with_name(f".{out.name}.merging-{os.getpid()}")
    try:
        staging.mkdir(parents=True)
        if first.ours:
            _write_ours(first, second, staging, mixture, name or out.name)
        else:
            _copy_others(first, second, staging)
            for path in first.files:
                write = partial(_write_shard, path, first, second, mixture)
                write_atomically(staging / path.name, write)
        manifest(staging)
        if out.is_dir():
            out.rmdir()  # empty; no system but POSIX renames over one
        os.replace(staging, out)
    except OSError as error:
        raise StoreError(
            f"cannot write {out}: {error.strerror or error}; free some space or choose another "
            "folder, and run the same command again"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return out


def sweep(
    base: str | Path,
    tuned: str | Path,
    out: str | Path,
    alphas: Sequence[float],
    groups: Sequence[tuple[str, float]] = (),
) -> list[Path]:
    """One merged policy for each alpha, in ``out/<tuned>-alpha-<alpha>``; those there are kept."""
    if len(set(alphas)) < len(alphas):
        raise ConfigError(f"sweep is {list(alphas)}, expected each alpha once")
    mixtures = [Mixture(alpha=alpha, groups=tuple(groups)) for alpha in alphas]  # all are checked
    stem = Path(tuned).resolve().name.removesuffix(".safetensors")
    return [merge(base, tuned, Path(out) / f"{stem}-alpha-{m.alpha:g}", m) for m in mixtures]


def check_alike(base: WeightFiles, tuned: WeightFiles) -> None:
    """Raise MismatchError naming the first tensor of which only one has, or another shape or kind.

    Policies of ours must also be of one kind and one network.
    """
    if base.ours != tuned.ours:
        ours, other = (base, tuned) if base.ours else (tuned, base)
        raise MismatchError(
            f"{ours.place} is a checkpoint of worldeval, {other.place} is not; merge two of one "
            "sort"
        )
    if base.ours:
        headers = [checkpoint.read_header(weights.place) for weights in (base, tuned)]
        kinds = [header["kind"] for header in headers]
        if kinds[0] != kinds[1]:
            raise MismatchError(
                f"{base.place} is of kind {kinds[0]!r}, {tuned.place} of {kinds[1]!r}; merge two "
                "policies of one kind"
            )
        first, second = (_meaning(header["config"]) for header in headers)
        for key in sorted({*first, *second}):
            if first.get(key) != second.get(key):
                raise MismatchError(
                    f"{base.place} has {key} = {first.get(key)!r:.80}, {tuned.place} has "
                    f"{second.get(key)!r:.80}; merge a policy with one fine-tuned from it"
                )
    for name in (*base, *tuned):
        if name not in base or name not in tuned:
            has, lacks = (base, tuned) if name in base else (tuned, base)
            raise MismatchError(
                f"{has.place} has a tensor {name!r} that {lacks.place} lacks; merge a policy with "
                "one fine-tuned from it"
            )
        for what, mine, theirs in (
            ("shape", str(base.shapes[name]), str(tuned.shapes[name])),
            ("type", base.kinds[name], tuned.kinds[name]),
        ):
            if mine != theirs:
                raise MismatchError(
                    f"tensor {name!r} has {what} {mine} in {base.place} and {theirs} in "
                    f"{tuned.place}; "
                    + (
                        "merge a policy with one fine-tuned from it"
                        if what == "shape"
                        else "save both in one type"
                    )
                )
        if _FACTORS.search(name):
            raise MismatchError(
                f"{base.place} has the low-rank factor {name!r}: what lies between two products is "
                "not the product of what lies between; merge the adapters into their weights first "
                "(PEFT's merge_and_unload)"
            )


def merged(name: str, base: Tensor, tuned: Tensor, alpha: float, place: Path) -> Tensor:
    """``base`` and ``tuned`` interpolated, in their type. MismatchError where nothing lies between.

    alpha 0 and 1 return one of them untouched.
    """
    import torch

    if not base.is_floating_point() or _NORMALISERS.search(name):
        if not torch.equal(base, tuned):
            raise MismatchError(
                f"tensor {name!r} differs between the two policies, and nothing lies between: "
                + (
                    "it holds whole numbers"
                    if not base.is_floating_point()
                    else "inputs are normalised by it, so fine-tune with the statistics of the base"
                )
            )
        return base
    if alpha in (0.0, 1.0):
        return base if alpha == 0.0 else tuned
    wide = torch.float64 if base.dtype == torch.float64 else torch.float32
    between = torch.lerp(base.to(wide), tuned.to(wide), alpha)
    if not torch.isfinite(between).all():
        raise CheckpointError(
            f"tensor {name!r} is not finite in {place} or in the other policy; its training "
            "diverged or the file was changed, take an earlier checkpoint"
        )
    return between.to(base.dtype)


def _meaning(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint's settings say of its weights: not its name, nor how a robot is called."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if key in ("name", "robot"):
            continue
        inner = value.items() if isinstance(value, Mapping) else [("", value)]
        flat |= {f"{key}.{part}".rstrip("."): found for part, found in inner}
    # absent in checkpoints of earlier versions, which knew one family only
    if "network.chunk" in flat:
        flat = {"network.family": "film", "network.remembered": 0, **flat}
    return flat


def _write_ours(
    base: WeightFiles, tuned: WeightFiles, folder: Path, mixture: Mixture, name: str
) -> None:
    header = checkpoint.read_header(base.place)
    config = dict(header["config"])
    if "name" in config:
        config["name"] = name

    def pairs() -> Iterator[tuple[str, Any]]:
        for key in base:
            yield key, merged(key, base[key], tuned[key], mixture.of(key), base.place)

    checkpoint.save(
        folder,
        kind=header["kind"],
        config=config,
        tensors=pairs(),
        robot=header.get("robot"),
        card={
            "merged": {
                "base": checkpoint.digest(base.place),
                "tuned": checkpoint.digest(tuned.place),
                "alpha": mixture.alpha,
                "groups": [list(group) for group in mixture.groups],
            }
        },
        shard_bytes=max(checkpoint.SHARD_BYTES, *(p.stat().st_size for p in base.files)),
    )


def _write_shard(
    path: Path, base: WeightFiles, tuned: WeightFiles, mixture: Mixture, target: Path
) -> None:
    """A file with the header of ``path``, byte for byte, and merged tensors behind it."""
    import torch

    head, places = header_of(path)
    with target.open("wb") as file:
        file.write(head)
        for name, (begin, end) in sorted(places.items(), key=lambda entry: entry[1]):
            tensor = merged(name, base[name], tuned[name], mixture.of(name), base.place)
            flat = tensor.contiguous().reshape(-1)
            file.seek(len(head) + begin)
            file.write(flat.view(torch.uint8).numpy().data if end > begin else b"")


def _copy_others(base: WeightFiles, tuned: WeightFiles, folder: Path) -> None:
    """Configuration, tokenizer and whatever else lies beside the weights, but other weights.

    Other safetensors (a processor's statistics) must be equal in both.
    """
    if not base.place.is_dir():
        return
    for path in sorted(base.place.rglob("*")):
        inside = path.relative_to(base.place)
        hidden = any(part.startswith(".") for part in inside.parts)
        if not path.is_file() or path in base.files or hidden or inside.name == MANIFEST:
            continue
        if path.suffix == ".safetensors":
            other = tuned.place / inside
            if not other.is_file() or digests.of_file(other) != digests.of_file(path):
                raise MismatchError(
                    f"{path} differs from {other}, and it is no part of the weights (statistics by "
                    "which inputs are normalised, most likely): fine-tune with those of the base, "
                    "or give the weights' files themselves"
                )
        elif path.suffix in _OTHER_WEIGHTS:
            continue
        (folder / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / inside)
