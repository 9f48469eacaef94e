import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from worldeval.errors import ConfigError
from worldeval.judging.survival import DistanceBins, expected_distance, log_likelihood

BINS = DistanceBins(starts=(0, 1, 2, 4, 9))
LAST = 30  # the brute force lets the last bin end here


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Of every single distance 0 ... LAST, each bin spread evenly, (N, LAST + 1)."""
    p = np.exp(log_softmax(logits, axis=-1))
    ends = [*BINS.starts[1:], LAST + 1]
    parts = [
        np.repeat(p[:, [k]] / (end - start), end - start, axis=1)
        for k, (start, end) in enumerate(zip(BINS.starts, ends, strict=True))
    ]
    return np.concatenate(parts, axis=1)


def test_the_likelihood_is_that_of_all_distances_one_by_one() -> None:
    """Sum over every single distance that agrees with what was seen, for all of them."""
    rng = np.random.default_rng(0)
    for known in (True, False):
        # left < horizon: beyond it the last bin counts wholly by decision, tested below
        distances = np.arange(LAST if known else BINS.horizon)
        logits = rng.normal(0, 2, (len(distances), BINS.count))
        each = probabilities(logits)
        every = np.arange(LAST + 1)
        if known:
            agrees = BINS.bin_of(every)[None] == BINS.bin_of(distances)[:, None]
        else:
            agrees = every[None] > distances[:, None]
        got = log_likelihood(
            torch.from_numpy(logits), distances, np.full(len(distances), known), BINS
        )
        np.testing.assert_allclose(got.numpy(), np.log((each * agrees).sum(1)), atol=1e-6)


def test_seen_for_longer_than_the_horizon_means_the_last_bin() -> None:
    logits = torch.tensor([[1.0, 0.0, 2.0, -1.0, 0.5]]).repeat(3, 1)
    got = log_likelihood(logits, np.array([8, 9, 500]), np.zeros(3, bool), BINS)
    assert torch.allclose(got, logits.log_softmax(-1)[:, -1])


def test_a_certain_answer_is_free_and_a_wrong_one_costs_its_margin() -> None:
    logits = torch.tensor([[20.0, 0, 0, 0, 0]]).repeat(2, 1).requires_grad_()
    got = log_likelihood(logits, np.array([0, 0]), np.array([True, False]), BINS)
    assert got[0].item() == pytest.approx(0, abs=1e-6)
    assert got[1].item() == pytest.approx(np.log(4) - 20, abs=1e-4)  # d > 0: the other four
    got.sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_fitting_censored_distances_is_the_kaplan_meier_estimate() -> None:
    """Bins of single distances: the maximum of the likelihood is known in closed form."""
    bins = DistanceBins(starts=(0, 1, 2, 3))
    # d = 0 twice, d = 1 three times, d = 2 once; seen to be beyond 0 twice and beyond 1 four times
    distances = np.array([0] * 2 + [1] * 3 + [2] + [0] * 2 + [1] * 4)
    known = np.array([True] * 6 + [False] * 6)
    logits = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-10)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = -log_likelihood(logits.expand(12, 4), distances, known, bins).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    after_0 = 1 - 2 / 12  # 12 at risk
    after_1 = after_0 * (1 - 3 / 8)  # 12 - 2 solved - 2 lost from sight
    after_2 = after_1 * (1 - 1 / 1)  # 8 - 3 - 4
    p = logits.softmax(-1).detach().numpy()[0]
    expected = [1 - after_0, after_0 - after_1, after_1 - after_2, after_2]
    np.testing.assert_allclose(p, expected, atol=1e-4)


def test_bins_and_expectations_by_hand() -> None:
    assert BINS.bin_of(np.array([0, 1, 2, 3, 4, 8, 9, 99])).tolist() == [0, 1, 2, 2, 3, 3, 4, 4]
    assert BINS.means().tolist() == [0, 1, 2.5, 6, 9]
    shares = BINS.beyond(np.array([0, 2, 5]))
    np.testing.assert_allclose(shares, [[0, 1, 1, 1, 1], [0, 0, 0.5, 1, 1], [0, 0, 0, 0.6, 1]])
    logits = np.log(np.array([[0.5, 0.1, 0.1, 0.2, 0.1]])) + 300  # no overflow
    np.testing.assert_allclose(expected_distance(logits, BINS), [0.1 + 0.25 + 1.2 + 0.9])
    assert DistanceBins().count == 8 and DistanceBins().horizon == 33


@pytest.mark.parametrize("starts", [(0,), (1, 2), (0, 2, 3), (0, 1, 1), (0, 1, 5, 4)])
def test_bins_begin_with_solved_and_ascend(starts: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="starts is"):
        DistanceBins(starts=starts)
