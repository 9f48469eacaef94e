"""Tokens of Ctrl-World: one per frame, from its pose and the instruction.

In: normalised poses (B, T, P) and texts. Out: tokens (B, T, D): an MLP of the pose plus CLIP's
embedding of the text, repeated to fill the width (arXiv 2510.10125, section 3.1; D is 1024 and
the embedding 512). The text encoder is frozen: each instruction is encoded once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worldeval.data.atomic import write_atomically
from worldeval.errors import CheckpointError, ConfigError

CACHED_TEXTS = 4096
TOKENIZER_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


class ActionEncoder(nn.Module):
    """MLP from a pose to a token; its only attribute is named as in the release."""

    def __init__(self, poses: int, width: int = 1024) -> None:
        super().__init__()
        self.action_encode = nn.Sequential(
            nn.Linear(poses, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
        )

    def forward(self, poses: Tensor, text: Tensor | None = None) -> Tensor:
        """poses (B, T, P) in [-1, 1]; text (B, E) with D a multiple of E -> (B, T, D)."""
        tokens: Tensor = self.action_encode(poses.to(next(self.parameters()).dtype))
        if text is None:
            return tokens
        if tokens.shape[-1] % text.shape[-1]:
            raise ConfigError(
                f"text embeddings have {text.shape[-1]} numbers, which do not divide the "
                f"{tokens.shape[-1]} of a token; give the CLIP folder of the release"
            )
        repeats = tokens.shape[-1] // text.shape[-1]
        return tokens + text.to(tokens.dtype).repeat(1, repeats)[:, None]


class TextEncoder(nn.Module):
    """CLIP's text tower with its tokenizer; ``embed`` remembers what it has seen."""

    def __init__(self, config: Mapping[str, Any], tokenizer: str | Path) -> None:
        """config: of transformers' CLIPTextModelWithProjection. tokenizer: folder of its files."""
        from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

        super().__init__()
        self.clip = CLIPTextModelWithProjection(CLIPTextConfig(**config)).requires_grad_(False)
        self.files = tokenizer_files(tokenizer)
        try:
            self.tokenizer = CLIPTokenizer.from_pretrained(str(tokenizer))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"the CLIP tokenizer in {tokenizer} cannot be read "
                f"({' '.join(str(error).split())[:160]}); give the release's CLIP folder again"
            ) from error
        self._known: dict[str, Tensor] = {}

    def forget(self) -> None:
        """Forget what was embedded; needed after changing CLIP's weights by hand."""
        self._known.clear()

    def _apply(self, fn: Any, recurse: bool = True) -> TextEncoder:
        self.forget()  # another device or type
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """(B, E) embeddings; a text that was seen before costs nothing."""
        if len(self._known) + len(texts) > CACHED_TEXTS:
            self._known.clear()
        for text in dict.fromkeys(texts):
            if text not in self._known:
                self._known[text] = self._embed(text)
        return torch.stack([self._known[text] for text in texts])

    def _embed(self, text: str) -> Tensor:
        """(E,), the same in its last digit whatever else is in the batch and whoever asks.

        So each text is encoded alone and without autocast. Outside of inference mode, since what is
        remembered may serve a backward pass later.
        """
        device = self.clip.device
        inputs = self.tokenizer([text], padding="max_length", truncation=True, return_tensors="pt")
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
        ):
            plain = {name: tensor.clone().to(device) for name, tensor in inputs.items()}
            embedded: Tensor = self.clip(**plain).text_embeds[0]
        return embedded


def tokenizer_files(folder: str | Path) -> dict[str, bytes]:
    """Name -> content of the tokenizer's files in ``folder``."""
    folder = Path(folder)
    files = {n: (folder / n).read_bytes() for n in TOKENIZER_FILES if (folder / n).is_file()}
    if "tokenizer.json" not in files and not {"vocab.json", "merges.txt"} <= set(files):
        raise CheckpointError(
            f"{folder} holds no CLIP tokenizer (vocab.json and merges.txt, or tokenizer.json); "
            "give a complete CLIP folder"
        )
    return files


def write_tokenizer(folder: Path, files: Mapping[str, bytes]) -> dict[str, str]:
    """Write the files into ``folder`` and return the sha256 of each."""
    for name, content in files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            write_atomically(path, partial(_write, content))
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def check_tokenizer(folder: Path, expected: Mapping[str, str]) -> None:
    """Raise CheckpointError naming a file that is missing or was changed."""
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise CheckpointError(f"{path} is missing or damaged; import the checkpoint again")


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)
