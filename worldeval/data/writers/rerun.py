"""One rollout as a recording of Rerun (https://rerun.io), to look at beside other robot data.

Enters: an episode, the layout of its store, and curves that others measured. Leaves: an .rrd file
with all of it on the timelines "time" (seconds) and "frame": pictures below ``views/``, numbers
below ``pose/``, ``gripper/``, ``action/``, ``joints/`` and where the curves say, events as a log.
What nobody measured is absent, never zero. rerun-sdk is an extra.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from worldeval.data.atomic import write_atomically
from worldeval.data.store.layout import StoreLayout
from worldeval.data.video import encode_png
from worldeval.errors import ConfigError, StoreError
from worldeval.types import Episode

FRAME, TIME = "frame", "time"


@dataclass(frozen=True)
class Curve:
    """Numbers over the frames of a rollout. at: frames (N,), not always whole; values: (N,)."""

    at: Sequence[float] | np.ndarray
    values: Sequence[float] | np.ndarray


def check_installed() -> None:
    """Raise ConfigError where rerun-sdk is not installed."""
    if find_spec("rerun") is None:
        raise ConfigError(
            "the export to Rerun needs rerun-sdk, which is not installed; run "
            "`pip install 'worldeval[rerun]'`"
        )


def export(
    episode: Episode,
    layout: StoreLayout,
    out: Path,
    *,
    curves: Mapping[str, Curve] | None = None,
    events: Sequence[tuple[float, str]] = (),
    about: str = "",
) -> None:
    """Write ``episode`` into the file ``out``, which must not be there yet.

    curves: path in the recording, such as "judge/probability" -> numbers. events: frame and what
    happened. about: Markdown that stands beside the pictures. Raises ConfigError without rerun-sdk
    or if ``out`` is taken, StoreError if it cannot be written, which leaves nothing.
    """
    check_installed()
    if out.exists():
        raise ConfigError(
            f"{out} is there already; an export never changes one, so choose another file or "
            "delete it"
        )
    shown = {**_own_curves(episode, layout), **(curves or {})}
    try:
        write_atomically(out, _writer(episode, layout.fps, shown, events, about), sync=False)
    except OSError as error:
        raise StoreError(
            f"cannot write {out}: {error.strerror or error}; free some space or choose another "
            "folder, and run the same command again"
        ) from error


def _own_curves(episode: Episode, layout: StoreLayout) -> dict[str, Curve]:
    """What the episode itself knows, frame by frame and control step by control step."""
    frames = range(episode.length)
    curves = {}
    for number, name in enumerate(layout.pose_names):
        group = "gripper" if "gripper" in name else "pose"
        curves[f"{group}/{name}"] = Curve(frames, episode.poses[:, number])
    steps = episode.actions.reshape(-1, episode.actions.shape[-1])
    at = np.arange(len(steps)) / layout.steps_per_frame
    for number, name in enumerate(layout.action_names):
        curves[f"action/{name}"] = Curve(at, steps[:, number])
    if episode.joints is not None:
        for number, name in enumerate(layout.joint_names):
            curves[f"joints/{name}"] = Curve(frames, episode.joints[:, number])
    if episode.success_at is not None:
        curves["truth/success"] = Curve(frames, episode.success_at.astype(float))
    return curves


def _writer(
    episode: Episode,
    fps: float,
    curves: Mapping[str, Curve],
    events: Sequence[tuple[float, str]],
    about: str,
) -> Callable[[Path], None]:
    import rerun as rr
    import rerun.blueprint as rrb

    def clocks(at: Sequence[float] | np.ndarray) -> list[Any]:
        frames = np.asarray(at, float)
        # An action between two frames belongs to the one before it.
        whole = np.floor(frames + 1e-6).astype(np.int64)
        return [
            rr.TimeColumn(TIME, duration=frames / fps),
            rr.TimeColumn(FRAME, sequence=whole),
        ]

    def place(path: str) -> str:
        return str(rr.new_entity_path(path.split("/", 1)))

    groups = dict.fromkeys(path.partition("/")[0] for path in curves)
    blueprint = rrb.Blueprint(
        rrb.Vertical(
            rrb.Horizontal(
                *(rrb.Spatial2DView(origin=place(f"views/{v}"), name=v) for v in episode.views),
                rrb.TextDocumentView(origin="about", name="about"),
            ),
            rrb.Tabs(*(rrb.TimeSeriesView(origin=group, name=group) for group in groups)),
            rrb.TextLogView(origin="events", name="events"),
            row_shares=[3, 2, 1],
        ),
        collapse_panels=True,
    )

    def write(path: Path) -> None:
        with rr.RecordingStream("worldeval", recording_id=episode.key) as stream:
            stream.save(path, default_blueprint=blueprint)
            stream.send_recording_name(episode.key)
            stream.log(
                "about", rr.TextDocument(about, media_type=rr.MediaType.MARKDOWN), static=True
            )
            for number, view in enumerate(episode.views):
                pictures = [encode_png(frame) for frame in episode.frames[:, number]]
                kinds = ["image/png"] * len(pictures)
                columns = rr.EncodedImage.columns(blob=pictures, media_type=kinds)
                stream.send_columns(place(f"views/{view}"), clocks(range(len(pictures))), columns)
            for name, curve in curves.items():
                values = np.asarray(curve.values, float)
                known = np.isfinite(values)
                if known.any():
                    columns = rr.Scalars.columns(scalars=values[known])
                    at = np.asarray(curve.at, float)[known]
                    stream.send_columns(place(name), clocks(at), columns)
            if events:
                frames, said = zip(*sorted(events), strict=True)
                stream.send_columns("events", clocks(frames), rr.TextLog.columns(text=said))
            stream.flush()
            stream.disconnect()

    return write
