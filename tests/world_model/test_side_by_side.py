"""Parts of a batch in threads of their own: equal answers, one thread of torch in each."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from worldeval.world_model.side_by_side import side_by_side


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Work:
    """Squares, and who was asked for what."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers
        self.parts: list[tuple[int, int]] = []
        self.threads: set[int] = set()
        self.cores: set[int] = set()

    def __call__(self, part: slice) -> Tensor:
        self.parts.append((part.start, part.stop))
        self.threads.add(threading.get_ident())
        self.cores.add(torch.get_num_threads())
        assert torch.is_inference_mode_enabled()
        return self.numbers[part] ** 2


@pytest.mark.parametrize(("rows", "parts"), [(5, {(0, 2), (2, 5)}), (2, {(0, 1), (1, 2)})])
def test_each_thread_of_torch_takes_a_part_alone(
    two_threads: None, rows: int, parts: set[tuple[int, int]]
) -> None:
    numbers = torch.arange(float(rows))
    work = Work(numbers)
    for _ in range(3):
        assert torch.equal(side_by_side(work, rows), numbers**2)
    assert set(work.parts) == parts and work.cores == {1}
    assert threading.get_ident() not in work.threads and torch.get_num_threads() == 2


def test_a_single_row_stays_whole_and_has_all_threads(two_threads: None) -> None:
    work = Work(torch.ones(1))
    side_by_side(work, 1)
    assert work.parts == [(0, 1)] and work.cores == {2}
    assert work.threads == {threading.get_ident()}


def test_nothing_is_no_part(two_threads: None) -> None:
    assert side_by_side(Work(torch.ones(0)), 0).shape == (0,)


def test_what_a_part_raises_is_raised(two_threads: None) -> None:
    def fail(part: slice) -> Tensor:
        raise ZeroDivisionError(f"{part.start}")

    with pytest.raises(ZeroDivisionError, match="0"):
        side_by_side(fail, 4)
    assert torch.equal(side_by_side(Work(torch.ones(4)), 4), torch.ones(4))
