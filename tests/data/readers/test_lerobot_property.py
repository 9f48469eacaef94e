"""LeRobot datasets as they come: exactly the right values, or a sentence, never other values.

``WORLDEVAL_EXAMPLES=2000`` tries as many datasets, instead of some that take a few seconds.
"""

from __future__ import annotations

import os
import random
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.readers import lerobot_made as made
from tests.data.readers import lerobot_plain as plain
from tests.data.readers.lerobot_spoilt import DOUBTFUL, HARMLESS, Change
from worldeval.data.readers.droid import LeRobotDroid
from worldeval.errors import DataError

EXAMPLES = int(os.environ.get("WORLDEVAL_EXAMPLES", "40"))
quick = settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None)
lengths = st.lists(st.integers(4, 14), min_size=1, max_size=3)
versions = st.sampled_from(("v2.1", "v3.0"))


def compare(root: Path, must_read: bool) -> None:
    """Read every episode in both ways."""
    try:
        dataset = LeRobotDroid(root)
    except DataError as error:
        assert not must_read, error
        return
    for identity in dataset.ids:
        try:
            raw = dataset.episode(identity)
            frames = raw.images(made.SIZE)
        except DataError as error:
            assert not must_read, error
            continue
        expected = plain.read(root, int(identity))
        assert expected is not None, f"read, though there is no right answer: {raw}"
        states = [round(1000 * float(x)) for x in raw.poses()[:, 6]]
        assert states == [round(1000 * x) for x in expected.states[::3]]
        for view in range(3):
            shown = [made.seen(frame) for frame in frames[:, view]]
            assert shown == [(number, view) for number in expected.pictures[view][::3]]
            # The number of a state is that of the picture that was taken with it.
            assert [number for number, _ in shown] == states
        assert list(raw.instructions) == expected.texts
        assert raw.success is expected.success
        assert np.allclose(1000 * (raw.joints() - 1), np.asarray(states)[:, None], atol=0.01)


def check(
    version: str, sizes: list[int], spread: int, changes: list[Change], seed: int, must: bool
) -> None:
    rng = random.Random(seed)
    dataset = made.make(version, sizes, spread)
    with tempfile.TemporaryDirectory() as folder:
        for change in changes:
            with suppress(KeyError, TypeError):  # what is gone or strange is spoilt no further
                change(dataset, rng.randrange(len(sizes)), rng)
        made.write(dataset, Path(folder) / "d")
        compare(Path(folder) / "d", must_read=must)


@quick
@given(versions, lengths, st.integers(1, 2), st.sampled_from(HARMLESS), st.integers(0, 2**16))
def test_what_leaves_a_right_answer_is_read(version, sizes, spread, change, seed):
    check(version, sizes, spread, [change], seed, must=True)


@quick
@given(
    versions,
    lengths,
    st.integers(1, 2),
    st.lists(st.sampled_from(DOUBTFUL + HARMLESS), min_size=1, max_size=3),
    st.integers(0, 2**16),
)
def test_never_other_values(version, sizes, spread, changes, seed):
    check(version, sizes, spread, changes, seed, must=False)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_sound_dataset_is_read(version):
    check(version, [4, 7, 12], 2, [], 0, must=True)
