"""Episodes in the layout of the Ctrl-World release (arXiv 2510.10125), both variants.

Enters: a folder with ``annotation/{train,val}/{id}.json``, ``videos/{split}/{id}/{0,1,2}.mp4`` and
perhaps ``latent_videos/{split}/{id}/{0,1,2}.pt`` and ``stat.json``. Leaves: ``RawEpisode``.

The first variant (DROID) has arrays at 15 Hz beside ``states`` at frame rate, of which state i must
be row 3i; this is checked. The second (other set-ups) has ``states`` and ``joints`` at frame rate
alone, and no latents. Video and latents are read when asked for; latents by weights-only loading.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldeval.data.cells import EXPECTED
from worldeval.data.files import load_json, regular_file
from worldeval.data.readers.footage import CONTROL_HZ, FRAME_HZ, VideoFile
from worldeval.data.readers.raw import STEPS, RawEpisode, array_of
from worldeval.data.values import success, text
from worldeval.errors import DataError
from worldeval.motion.panda import VIEWS

_CARTESIAN = "observation.state.cartesian_position"
_GRIPPER = "observation.state.gripper_position"
_JOINTS = "observation.state.joint_position"
_ACTION = "action."


@dataclass(frozen=True, kw_only=True)
class PoseBounds:
    """1st and 99th percentiles of poses (7,), by which the published model normalises."""

    low: np.ndarray
    high: np.ndarray


class CtrlWorldDataset:
    """The episodes of one split of a published dataset, by id."""

    def __init__(self, root: str | Path, split: str = "train") -> None:
        """Raises DataError if there is no such layout or split."""
        self.root, self.split = Path(root), split
        folder = self.root / "annotation"
        if not folder.is_dir():
            raise DataError(
                f"{self.root} has no folder 'annotation', so it is no dataset in the layout of "
                "Ctrl-World; give the folder that holds annotation/, videos/ and latent_videos/"
            )
        if not (folder / split).is_dir():
            there = sorted(path.name for path in folder.iterdir() if path.is_dir())
            raise DataError(f"{folder} has no split {split!r}, only {', '.join(there) or 'none'}")
        names = [path.stem for path in (folder / split).glob("*.json")]
        if not names:
            raise DataError(f"{folder / split} holds no .json file, expected one an episode")
        self.ids: tuple[str, ...] = tuple(sorted(names, key=_by_number))
        self.notes: list[str] = []

    def __len__(self) -> int:
        return len(self.ids)

    def bounds(self) -> PoseBounds | None:
        """The percentiles in ``stat.json``, where the dataset has them."""
        path = self.root / "stat.json"
        if not path.is_file():
            return None
        content = _json(path)
        low, high = (array_of(content.get(f"state_{p}"), f"state_{p}", path) for p in ("01", "99"))
        if low.shape != (7,) or high.shape != (7,) or not (high > low).all():
            raise DataError(
                f"{path}: state_01 and state_99 are {low.tolist()} and {high.tolist()}, expected "
                "seven numbers each, the second above the first"
            )
        return PoseBounds(low=low, high=high)

    def episode(self, identity: str) -> RawEpisode:
        """The episode ``identity``. Raises DataError naming the file that is missing or damaged."""
        path = self.root / "annotation" / self.split / f"{identity}.json"
        notes = _json(path)
        states = self._states(notes, path)
        arrays = self._control_arrays(notes, states, path)
        videos = self._files(notes, "videos", "video_path", identity, "mp4", path)
        latents = self._files(notes, "latent_videos", "latent_video_path", identity, "pt", path)
        length = notes.get("video_length", len(states))
        if length != len(states):
            raise DataError(
                f"{path}: video_length is {length!r} and there are {len(states)} states; "
                "fetch it again"
            )
        return RawEpisode(
            id=identity,
            split=self.split,
            described_in=path,
            instructions=_texts(notes, path),
            success=_success(notes, path),
            footage=tuple(VideoFile(path=video) for video in videos),
            latents=tuple(latents) if all(file.is_file() for file in latents) else None,
            frames=len(states),
            **arrays,
        )

    def _states(self, notes: dict[str, Any], path: Path) -> np.ndarray:
        if "states" not in notes:
            raise DataError(
                f"{path} has no 'states', only {', '.join(sorted(notes)) or 'nothing'}; neither "
                "variant of the layout of Ctrl-World lacks them"
            )
        states = array_of(notes["states"], "states", path)
        if states.ndim != 2 or states.shape[1] != 7 or not len(states):
            raise DataError(
                f"{path}: states have shape {states.shape}, expected (frames, 7): x y z roll "
                "pitch yaw gripper"
            )
        return states

    def _control_arrays(
        self, notes: dict[str, Any], states: np.ndarray, path: Path
    ) -> dict[str, Any]:
        """The fields of ``RawEpisode`` that depend on the variant."""
        if _CARTESIAN not in notes:
            joints = None
            if "joints" in notes:
                joints = array_of(notes["joints"], "joints", path)
                if joints.ndim != 2 or joints.shape[1] not in (7, 8):
                    raise DataError(
                        f"{path}: joints have shape {joints.shape}, expected (frames, 7), or 8 "
                        "with the gripper"
                    )
                joints = joints[:, :7]
            return {
                "state_hz": FRAME_HZ,
                "cartesian_position": states[:, :6],
                "gripper": states[:, 6],
                "joint_position": joints,
            }
        lacking = [name for name in (_GRIPPER, _JOINTS) if name not in notes]
        if lacking:
            raise DataError(f"{path} has {_CARTESIAN} but not {', '.join(lacking)}; fetch it again")
        cartesian = array_of(notes[_CARTESIAN], _CARTESIAN, path)
        gripper = array_of(notes[_GRIPPER], _GRIPPER, path).reshape(len(cartesian), -1)
        if cartesian.ndim != 2 or cartesian.shape[1] != 6 or gripper.shape[1] != 1:
            raise DataError(
                f"{path}: {_CARTESIAN} has shape {cartesian.shape} and {_GRIPPER} "
                f"{gripper.shape}, expected (rows, 6) and one number per row"
            )
        rows = np.concatenate([cartesian, gripper], axis=1)
        aligned = rows[::STEPS][: len(states)]
        off = np.abs(aligned - states).max(initial=0.0) if aligned.shape == states.shape else np.inf
        if not off < 1e-4 and np.isfinite(states).all() and np.isfinite(rows).all():
            raise DataError(
                f"{path}: states[i] differs from row {STEPS}i of the arrays at "
                f"{CONTROL_HZ:g} Hz by up to {off:.3g} ({len(states)} states, {len(rows)} rows); "
                "they are not of one recording"
            )
        actions = {
            name.removeprefix(_ACTION): array_of(values, name, path)
            for name, values in notes.items()
            if name.startswith(_ACTION)
        }
        return {
            "state_hz": CONTROL_HZ,
            "cartesian_position": cartesian,
            "gripper": gripper[:, 0],
            "joint_position": array_of(notes[_JOINTS], _JOINTS, path),
            "actions": actions,
        }

    def _files(
        self,
        notes: dict[str, Any],
        folder: str,
        entry: str,
        identity: str,
        ending: str,
        where: Path,
    ) -> list[Path]:
        """One file per view: as the annotation says, else where the layout has them."""
        listed = notes.get(folder)
        if listed is None:
            base = self.root / folder / self.split / identity
            return [base / f"{view}.{ending}" for view in range(len(VIEWS))]
        try:
            files = [self.root / item[entry] for item in listed]
        except (TypeError, KeyError) as error:
            raise DataError(
                f"{where}: {folder!r} is not a list of {{{entry!r}: path}}; fetch it again"
            ) from error
        if len(files) != len(VIEWS):
            raise DataError(
                f"{where} lists {len(files)} {folder}, expected {len(VIEWS)}: {', '.join(VIEWS)}"
            )
        return files


def load_latents(raw: RawEpisode) -> np.ndarray:
    """Published latents of an episode, (T+1, V, C, h, w) float32, scaled as the model wants them.

    Raises DataError if there are none, or if they do not fit the episode.
    """
    import torch

    if raw.latents is None:
        raise DataError(
            f"{raw.described_in}: no published latents (latent_videos/{raw.split}/{raw.id}/*.pt); "
            "encode the frames instead (--encoder)"
        )
    views = []
    for path in raw.latents:
        try:
            regular_file(path, "latents")
            latent = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch has no one error for a damaged file
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise DataError(f"{path} cannot be read as latents: {reason}") from error
        if not isinstance(latent, torch.Tensor) or latent.ndim != 4:
            found = tuple(latent.shape) if isinstance(latent, torch.Tensor) else type(latent)
            raise DataError(f"{path} holds {found}, expected a tensor (frames, channels, h, w)")
        if not latent.is_floating_point() or latent.device.type != "cpu":
            raise DataError(
                f"{path} holds {latent.dtype} on {latent.device}, expected floating-point numbers"
            )
        # Saved as they left the encoder, they may still ask for gradients, or be sparse.
        latent = latent.detach()
        latent = latent if latent.layout == torch.strided else latent.to_dense()
        if len(latent) != raw.frames:
            raise DataError(
                f"{path} has {len(latent)} frames, expected the {raw.frames} of {raw.described_in}"
            )
        if not torch.isfinite(latent).all():
            raise DataError(f"{path} has NaN or infinity; fetch it again")
        views.append(latent.float().numpy())
    if len({view.shape for view in views}) > 1:
        raise DataError(
            f"{raw.latents[0].parent}: latents of different shapes "
            f"{', '.join(str(view.shape) for view in views)}, expected one"
        )
    return np.stack(views, axis=1)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = load_json(path)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; give an id that the dataset has") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}; fetch it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a JSON object; fetch it again")
    return content


def _texts(notes: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Different instructions; none where the annotation is silent."""
    texts = notes.get("texts", [])
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{path}: texts are {texts!r}, expected a list of instructions")
    return tuple(dict.fromkeys(words for entry in texts if (words := text(entry)) is not None))


def _success(notes: dict[str, Any], path: Path) -> bool | None:
    """None where the annotation is silent: unknown is not failure."""
    try:
        return success(notes.get("success"))
    except ValueError:
        raise DataError(f"{path}: success is {notes['success']!r}, expected {EXPECTED}") from None


def _by_number(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
