"""Windows: keyed by (seed, step), covering their range, sliding as MixGRPO says."""

from __future__ import annotations

import pytest
import torch

from guerdon.core.errors import GuerdonError
from guerdon.trainers.windows import FullWindow, RandomWindow, SlidingWindow


def test_random_window_is_uniform_over_all_starts() -> None:
    window = RandomWindow(0, 21, 7, seed=3)
    starts = [window.at(step)[0] for step in range(3000)]
    assert {stop - start for start, stop in map(window.at, range(50))} == {7}
    counts = torch.bincount(torch.tensor(starts), minlength=15)
    assert len(counts) == 15 and counts.min() > 140 and counts.max() < 260  # 200 expected, standard deviation 14


def test_random_window_is_keyed_and_leaves_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, second = RandomWindow(0, 21, 7, seed=3), RandomWindow(0, 21, 7, seed=3)
    backwards = [second.at(step) for step in reversed(range(40))][::-1]
    assert [first.at(step) for step in range(40)] == backwards
    assert backwards != [RandomWindow(0, 21, 7, seed=4).at(step) for step in range(40)]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_sliding_window_moves_and_rolls_back() -> None:
    window = SlidingWindow(0, 8, 4, interval=25)
    starts = [window.at(step)[0] for step in range(0, 25 * 7, 25)]
    assert starts == [0, 1, 2, 3, 4, 0, 1]  # from high noise (step 0) to low, then back
    assert window.at(24) == (0, 4) and window.at(25) == (1, 5) and window.at(124) == (4, 8) and window.at(125) == (0, 4)


def test_sliding_window_stride() -> None:
    window = SlidingWindow(1, 9, 4, interval=1, stride=2)
    assert [window.at(step)[0] for step in range(4)] == [1, 3, 5, 1]


def test_decaying_pace_holds_late_positions_for_less_time() -> None:
    window = SlidingWindow(0, 25, 4, interval=25, pace="decay", decay_rate=0.1, decay_from=13)
    held = torch.bincount(torch.tensor([window.at(step)[0] for step in range(sum(window.held))]))
    assert held[:14].tolist() == [25] * 14
    assert held[21] == round(25 * 2.718281828 ** (-0.8))
    assert (held[13:].diff() < 0).all()
    assert window.at(sum(window.held)) == (0, 4)


def test_random_pace_draws_anew_every_interval() -> None:
    window = SlidingWindow(0, 24, 4, interval=5, pace="random", seed=1)
    starts = [window.at(step)[0] for step in range(200)]
    assert all(len(set(starts[at : at + 5])) == 1 for at in range(0, 200, 5))
    assert len(set(starts)) > 8


def test_full_window_is_none() -> None:
    assert FullWindow().at(3) is None


@pytest.mark.parametrize("bad", [(0, 3, 4), (-1, 9, 4), (5, 5, 1), (0, 4, 0)])
def test_windows_that_do_not_fit_are_refused(bad: tuple[int, int, int]) -> None:
    with pytest.raises(GuerdonError, match="does not fit"):
        RandomWindow(*bad)
    with pytest.raises(GuerdonError, match="does not fit"):
        SlidingWindow(*bad)
