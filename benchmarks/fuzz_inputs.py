"""Ways to break what is valid: one file of a folder changed, one option given an odd value.

Enters: a copy of what ``fuzz_valid.py`` made, and a seeded generator. Leaves: the broken copy, or
the words of a command line.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import typing
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

Words = list[str]
LOOP = "--loop.steps 2 --loop.batch 2 --loop.threads 1"
BACKBONE = "--backbone.widths 8 16 --backbone.blocks 1 --backbone.token-width 16 --backbone.heads 2"
TRAINED = f"--store training --out out {LOOP}"
BASES = {
    "demo": "--threads 1 --out out",
    "doctor": "",
    "record": "--out out --tasks reach --episodes-per-task 1 --workers 1 --chunks 1",
    "prepare": "--source lerobot --out out --workers 1 --image-size 24 32",
    "import ctrl-world": "--svd world --clip world --checkpoint trials.csv --out out",
    "import svd": "--svd world --clip world --out out",
    "train autoencoder": f"{TRAINED} --model.widths 8 8 8",
    "train world-model": f"{TRAINED} --autoencoder world/autoencoder {BACKBONE}",
    "train ctrl-world": f"{TRAINED} --start-from world/world-model",
    "train adapter": "--source lerobot --out out --steps 2 --batch 2 --threads 1 --hidden 8",
    "train population": "--store training --out out --steps-factor 0.0001",
    "train policy": f"{TRAINED} --channels 8 8 8 --hidden 8",
    "train judge": f"{TRAINED} --validation held-out",
    "train progress": f"{TRAINED} --validation held-out",
    "train margin": f"{TRAINED} --validation held-out",
    "train trust": f"{TRAINED} --validation held-out --autoencoder world/autoencoder",
    "rollout": "--policy random --out out --threads 1 --chunks 1 --per-task 1",
    "replay": "--store store --out out --threads 1 --chunks 1",
    "judge": "store --threads 1",
    "calibrate": "verdicts.parquet --truth labels.csv --out out --draws 20",
    "trust": "store --checkpoint world/trust --threads 1",
    "rank": "verdicts.parquet --out out",
    "bench step": "--size full --out out",
    "store verify": "store",
    "store repair": "store",
    "store compact": "store",
}
"""A command line of every verb that can be carried out in seconds, or is refused for its files."""


# ------------------------------------------------------------------------------- breaking files
KINDS = (
    "flip", "cut", "empty", "garbage", "missing", "pipe", "loop", "folder", "device", "sparse",
    "swap", "deep", "encoding", "number", "type",
)  # fmt: skip
NUMBERS = ("NaN", "Infinity", "-1", "0", "1e12", "9" * 30, "-1e308", "1e-320", "2147483648")


def mutate(path: Path, others: list[Path], kind: str, rng: np.random.Generator) -> None:
    """Break one file in the way ``kind``; what fits no file of its form is garbage instead."""
    content = path.read_bytes()
    if kind in ("pipe", "loop", "folder", "device", "missing"):
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "loop":
            path.symlink_to(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "device":
            path.symlink_to(str(rng.choice(["/dev/zero", "/dev/null", "/dev/full"])))
    elif kind == "flip":
        changed = bytearray(content)
        for place in rng.integers(0, max(1, len(content)), int(rng.integers(1, 9))):
            if changed:
                changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(changed))
    elif kind == "cut":
        path.write_bytes(content[: int(rng.integers(0, max(1, len(content))))])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "sparse":
        os.truncate(path, 2**38)
    elif kind == "swap":
        path.write_bytes(others[int(rng.integers(len(others)))].read_bytes())
    elif kind == "deep":
        path.write_bytes((b"[", b'{"a":')[int(rng.integers(2))] * 100_000)
    elif kind == "encoding" and _is_text(path):
        how = str(rng.choice(["utf-16", "utf-32", "utf-8-sig", "latin-1"]))
        path.write_bytes((content.decode() + "é" * (how == "latin-1")).encode(how))
    elif kind in ("number", "type") and path.suffix == ".json":
        path.write_text(_other_json(json.loads(content), kind, rng))
    elif kind in ("number", "type") and path.suffix == ".parquet":
        _other_parquet(path, rng)
    elif kind in ("number", "type") and _is_text(path):
        words = content.decode().split(",")
        words[int(rng.integers(len(words)))] = str(rng.choice([*NUMBERS, "", "x", "\x1b[31m"]))
        path.write_text(",".join(words))
    else:
        path.write_bytes(rng.bytes(int(rng.integers(1, 4096))))


def _is_text(path: Path) -> bool:
    return path.suffix in (".json", ".csv", ".jsonl")


def _other_json(value: Any, kind: str, rng: np.random.Generator) -> str:
    """A value somewhere inside replaced: by an odd number, or by something of another type."""
    places: list[tuple[Any, Any]] = [({"": value}, "")]
    for holder, key in places:
        inner = holder[key]
        keys = (
            inner
            if isinstance(inner, dict)
            else range(len(inner))
            if isinstance(inner, list)
            else ()
        )
        places += [(inner, k) for k in keys]
    holder, key = places[int(rng.integers(len(places)))]
    mark = "<here>"
    holder[key] = mark
    whole = mark if holder == {"": mark} else value
    odd = NUMBERS if kind == "number" else ("null", "[]", "{}", '"\\u001b[31m"', "true", "[[1]]")
    return json.dumps(whole).replace(json.dumps(mark), str(rng.choice(odd)))


def _other_parquet(path: Path, rng: np.random.Generator) -> None:
    """A column lost, of another type, or with an odd value in one row."""
    import pandas as pd

    table = pd.read_parquet(path)
    name = str(rng.choice(list(table.columns)))
    way = int(rng.integers(5))
    if way == 0:
        table = table.drop(columns=name)
    elif way == 1:
        table[name] = "x"
    elif way == 2:
        table[name] = table[name].astype(object).where(np.arange(len(table)) != 0, None)
    elif way == 3 and table[name].dtype.kind in "if":
        table[name] = table[name].astype(float)
        table.loc[0, name] = float(rng.choice(["nan", "inf", "-1", "1e12"]))
    else:
        table = pd.concat([table, table])
    table.to_parquet(path, index=False)


# ------------------------------------------------------------------------------- breaking options
FLAT = ("config", "stage", "imagination", "rollouts")  # parts without a prefix of their own
ODD: dict[type, tuple[str, ...]] = {
    int: ("0", "-1", "-7", "9" * 12, "9" * 30, "9" * 5000, "nan", "1e3", "", "abc", "1_0", "٣"),
    float: ("nan", "inf", "-inf", "-1", "0", "1e308", "-1e308", "1e-320", "", "abc", "0x1"),
    str: ("", "x" * 10_000, "\x1b[31mred", "a\udcff", "n\0l", "../..", "0", "None", "?", "a?b=c",
          "python:", "python::", "bc:", "pipe", "vlm:", "human:", "{}", "[" * 5000),
    Path: ("missing/file", "pipe", "/dev/zero", "/dev/full", "trials.csv", "garbage", "a" * 300,
           "loop", "", ".", "/proc/self/mem", "a\udcff", "n\0l", "/", "store", "weights.json"),
}  # fmt: skip


@cache
def options_of(verb: str) -> list[tuple[str, type]]:
    """Name and type of every option of a verb, as the command line spells them."""
    from worldeval import cli

    module, name = cli.VERBS[verb][0].split(":")
    return list(_walk(getattr(import_module(f"worldeval.commands.{module}"), name), ""))


def _walk(kind: type, prefix: str) -> Iterator[tuple[str, type]]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            inner = "" if field.name in FLAT else f"{prefix}{field.name}."
            yield from _walk(typing.cast(type, hint), inner)
            continue
        named = str(hint)
        for found in (Path, float, int, str):  # of a tuple or an optional, what it holds
            if found.__name__ in named and hint is not bool:
                yield f"{prefix}{field.name}".replace("_", "-"), found
                break
        else:
            if "Literal" in named:
                yield f"{prefix}{field.name}".replace("_", "-"), str


def odd_command(rng: np.random.Generator) -> tuple[str, Words]:
    """The option that is odd, and the words of a command line of some verb."""
    verbs = [verb for verb in BASES if options_of(verb)]
    verb = str(rng.choice(verbs))
    known = options_of(verb)
    name, kind = known[int(rng.integers(len(known)))]
    values = ODD[kind]
    value = values[int(rng.integers(len(values)))]
    base = BASES[verb].split()
    if name == "folder":  # it stands first, without a name
        return f"{verb} FOLDER", [*verb.split(), value, *base[1:]]
    given = [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]
    return f"{verb} --{name}", [*verb.split(), *base, *given]


def copy_valid(valid: Path, case: Path) -> None:
    """A case's own copy of the valid things (links would let one case spoil the next)."""
    shutil.copytree(valid, case, symlinks=True)
    os.mkfifo(case / "pipe")
    (case / "loop").symlink_to("loop")
    (case / "garbage").write_bytes(np.random.default_rng(0).bytes(999))
