"""Which part of which video belongs to which episode, where no index says so.

Enters: the videos of a store, and where the data of each episode lies. Leaves: the columns of the
index that name the episodes' videos. Videos hold whole episodes in their order; those of episodes
that were never merged have the number of their data file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldeval.data.store import contents
from worldeval.data.store.layout import StoreLayout, chunk_and_file
from worldeval.data.video import mp4_times
from worldeval.errors import DataError, StoreError


def places(
    root: Path, layout: StoreLayout, lengths: Mapping[int, tuple[int, int]]
) -> dict[int, dict[str, Any]]:
    """Columns of each episode. lengths: slot of the data file and frames of every episode.

    Raises StoreError where the videos do not add up, so that a picture could go to another episode.
    """
    found: dict[int, dict[str, Any]] = {number: {} for number in lengths}
    alone = {number: slot for number, (slot, _) in lengths.items()}
    episodes_in = Counter(slot for slot, _ in lengths.values())
    names = contents.recordings(root)
    for key in layout.video_keys:
        frames = {}
        for name in names:
            if name.startswith(f"videos/{key}/") and (slot := contents.slot_of(name)) is not None:
                try:
                    frames[slot] = len(mp4_times(root / name)[0])
                except (DataError, OSError):
                    frames[slot] = 0
        waiting = sorted(frames)
        position = 0
        for number in sorted(lengths):
            length = lengths[number][1]
            own = alone[number]
            none = episodes_in[own] == 1 and position == 0 and not frames.get(own)
            if none and (not waiting or waiting[0] >= own):
                slot, start = own, 0  # its own video, which is lost or damaged
                waiting = [other for other in waiting if other > own]
            else:
                if not waiting or position + length > frames[waiting[0]]:
                    raise StoreError(
                        f"{root}: the videos of {key} do not have the {length} frames of episode "
                        f"{number} where they should be; restore them or meta/ from a copy"
                    )
                slot, start = waiting[0], position
                position += length
                if position == frames[slot]:
                    waiting, position = waiting[1:], 0
            chunk, file = chunk_and_file(slot)
            found[number] |= {
                f"videos/{key}/chunk_index": chunk,
                f"videos/{key}/file_index": file,
                f"videos/{key}/from_timestamp": start / layout.fps,
                f"videos/{key}/to_timestamp": (start + length) / layout.fps,
            }
    return found
