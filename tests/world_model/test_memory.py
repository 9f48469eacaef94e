"""Which frames each strategy looks at, on motions whose answer is known."""

import numpy as np
import pytest

from worldeval.errors import ConfigError
from worldeval.world_model.memory import PoseRetrieval, StridedOffsets, nothing, retrieve, strategy


def out_and_back(n=40):
    """The hand leaves along x and comes back: frame i and n - i share a pose."""
    x = np.concatenate([np.linspace(-1, 1, n // 2), np.linspace(1, -1, n // 2)])
    return np.stack([x, np.zeros(n), np.zeros(n), np.zeros(n)], axis=1).astype(np.float32)


def test_pose_retrieval_finds_the_place_left_long_ago():
    poses = out_and_back()
    past, future = poses[:34], poses[34:38]
    chosen = PoseRetrieval()(past, future, 3)
    assert chosen[0] == 0, "the first frame is always kept"
    nearest = min(chosen[1:], key=lambda i: abs(past[i, 0] - future[:, 0]).min())
    assert abs(past[nearest, 0] - future[:, 0]).min() < 0.06
    strided = StridedOffsets()(past, future, 3)
    assert abs(past[strided[1:], 0][:, None] - future[:, 0]).min() > 0.3


@pytest.mark.parametrize("length", [1, 2, 5, 9, 30])
@pytest.mark.parametrize("name", ["pose", "strided", "none"])
def test_choices_are_past_distinct_and_ordered(name, length):
    past, future = out_and_back()[:length], out_and_back()[:4]
    chosen = strategy(name)(past, future, 3)
    assert chosen == sorted(set(chosen)) and len(chosen) <= 3
    assert all(0 <= i < length - 1 for i in chosen)


def test_empty_slots_are_marked_and_the_newest_memory_is_last():
    indices, valid = retrieve(strategy("pose"), out_and_back()[:3], out_and_back()[3:7], 3)
    assert valid.tolist() == [False, False, True] and indices[-1] == 0
    assert not retrieve(nothing, out_and_back(), out_and_back()[:4], 3)[1].any()


def test_unknown_strategy_is_named():
    with pytest.raises(ConfigError, match="'poze'"):
        strategy("poze")
