"""Relabelling by strength: which pairs a strategy picks, what it sets on them, and what it leaves alone."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.dialogues import embedded_pairs
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair, load_pairs
from guerdon.curation.relabel import FLIPPED, STRATEGIES, relabel
from guerdon.curation.strength import CHOSEN, JUDGE, MEAN, REJECTED, Strength, preference_strength
from guerdon.objectives.preference import bradley_terry

MU = np.array([2.0, -3.0, 0.5, -0.25, 0.0, 1.0, 4.0, -1.0, 3.0, 0.75])
PAIRS = [
    Pair([{"role": "user", "content": "q"}], *([{"role": "assistant", "content": f"{s}{n}"}] for s in "cr"))
    for n in range(len(MU))
]


def flipped(pairs: list[Pair]) -> list[int]:
    return [number for number, pair in enumerate(pairs) if pair.chosen[0]["content"].startswith("r")]


def test_none_changes_nothing_but_says_so():
    found = relabel(PAIRS, MU, strategy="none")
    assert all(pair.row == {FLIPPED: False} for pair in found) and not flipped(found)
    assert all(pair.margin is None and pair.smoothing is None for pair in found)
    assert PAIRS[0].row == {}  # the input is left alone


def test_flip_turns_the_weakest_tenth():
    found = relabel(PAIRS, MU, strategy="flip")
    assert flipped(found) == [1] and found[1].row[FLIPPED] and not found[0].row[FLIPPED]
    assert (found[1].chosen, found[1].rejected) == (PAIRS[1].rejected, PAIRS[1].chosen)
    assert all(pair.margin is None for pair in found)
    assert flipped(relabel(PAIRS, MU, strategy="flip", quantile=0.3)) == [1, 3, 7]
    assert flipped(relabel(PAIRS, MU, strategy="flip", quantile=0.39)) == [1, 3, 7]
    assert flipped(relabel(PAIRS, MU, strategy="flip", threshold=-0.5)) == [1, 7]
    assert flipped(relabel(PAIRS, MU, strategy="flip", threshold=-5)) == []


def test_margin_is_mu_on_every_pair():
    found = relabel(PAIRS, MU, strategy="margin")
    assert [pair.margin for pair in found] == MU.tolist() and not flipped(found)


def test_after_a_flip_the_margin_is_that_of_the_swapped_pair():
    found = relabel(PAIRS, MU, strategy="flip+margin", threshold=0.0)
    assert flipped(found) == [1, 3, 7]
    assert [pair.margin for pair in found] == np.abs(MU).tolist()
    scores = np.array([[1.0, -0.5], [2.0, 0.25]]), np.array([[2.0, 0.0], [4.0, 1.0]])
    mean, _ = preference_strength(*scores)
    turned, _ = preference_strength(scores[1], scores[0])
    found = relabel(PAIRS[:2], mean, strategy="flip+margin", quantile=1.0)
    assert [pair.margin for pair in found] == turned.tolist() and (turned > 0).all()


def test_soft_labels_everywhere_or_where_mu_is_negative():
    assert [pair.smoothing for pair in relabel(PAIRS, MU, strategy="soft")] == [0.2] * 10
    found = relabel(PAIRS, MU, strategy="soft", quantile=0.2, alpha=0.4)
    assert [number for number, pair in enumerate(found) if pair.smoothing == 0.4] == [1, 7]
    mixed = relabel(PAIRS, MU, strategy="soft+margin")
    assert [number for number, pair in enumerate(mixed) if pair.smoothing is not None] == [1, 3, 7]
    assert [pair.margin for pair in mixed] == MU.tolist() and not flipped(mixed)


def test_best_gap_of_a_softened_pair():
    """Entropy and optimum of the card: ln 4 = 1.386 beyond the margin, and H(0.2) = 0.50040 there."""
    (pair,) = relabel(PAIRS[1:2], MU[1:2], strategy="soft+margin")
    gap = torch.linspace(-8, 8, 16001, dtype=torch.float64)
    loss = bradley_terry(gap, torch.zeros_like(gap), margin=pair.margin, label_smoothing=pair.smoothing, reduce="none")
    assert float(gap[loss.argmin()]) == pytest.approx(MU[1] + math.log(4), abs=2e-3)
    assert float(loss.min()) == pytest.approx(0.50040, abs=1e-5)


def test_margins_and_smoothing_of_the_data_stay_where_nothing_replaces_them():
    given_ = [Pair(**{**vars(pair), "margin": 7.0, "smoothing": 0.1}) for pair in PAIRS]
    found = relabel(given_, MU, strategy="flip")
    assert [pair.margin for pair in found] == [7.0, -7.0, *[7.0] * 8]
    assert {pair.smoothing for pair in found} == {0.1}
    assert [pair.margin for pair in relabel(given_, MU, strategy="soft+margin")] == MU.tolist()


def test_columns_turn_with_the_pair():
    scores = Strength(np.array([[1.0, 5.0], [2.0, 6.0]]), np.array([[3.0, 4.0], [5.0, 2.0]]))
    pairs = scores.annotate(PAIRS[:2])
    extra = {JUDGE: 0, "truth": -1, "score_chosen": 1, "score_rejected": 9, "other": "x"}
    pairs = [Pair(**{**vars(pair), "row": {**pair.row, **extra}}) for pair in pairs]
    first, second = relabel(pairs, scores.mean, strategy="flip+margin", threshold=0.0)
    assert first.row[CHOSEN] == [3.0, 5.0] and first.row[REJECTED] == [1.0, 2.0]
    assert first.row[MEAN] == first.margin == 2.5 and first.row[JUDGE] == 1 and first.row["truth"] == 1
    assert (first.row["score_chosen"], first.row["score_rejected"], first.row["other"]) == (9, 1, "x")
    assert second.row == {**pairs[1].row, FLIPPED: False}
    # The columns agree with the labels again, so that the strength read back is that of the new labels.
    assert Strength.of_pairs([first, second]).mean == pytest.approx([2.5, 2.5])
    judged = relabel([Pair(**{**vars(pairs[0]), "row": {JUDGE: -1}})], [-1.0], strategy="flip", quantile=1.0)
    assert judged[0].row[JUDGE] == -1


def test_flipping_back_is_noticed():
    once = relabel(PAIRS, MU, strategy="flip")
    twice = relabel(once, -np.arange(10.0) * (np.arange(10) == 1), strategy="flip")
    assert not flipped(twice) and twice[1].row[FLIPPED] is False


def test_relabelled_pairs_survive_a_file(tmp_path):
    pairs = embedded_pairs(40, 1, noise=0.3)
    mean = np.array([pair.row["truth"] * 1.5 for pair in pairs])
    found = relabel(pairs, mean, strategy="flip+margin", threshold=0.0)
    assert all(pair.row["truth"] == 1 for pair in found)
    path = tmp_path / "relabelled.jsonl"
    path.write_text("".join(json.dumps(pair.to_row()) + "\n" for pair in found))
    back = load_pairs(path)
    assert [pair.margin for pair in back] == [1.5] * 40
    assert [pair.row[FLIPPED] for pair in back] == [value < 0 for value in mean]


@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=30),
    st.sampled_from([name for name in STRATEGIES if name not in ("none", "margin")]),
    st.floats(0.01, 1.0),
)
def test_the_share_that_is_asked_for_is_picked_from_below(mean, strategy, quantile):
    pairs = [PAIRS[number % 10] for number in range(len(mean))]
    found = relabel(pairs, mean, strategy=strategy, quantile=quantile)
    picked = [pair.row[FLIPPED] or pair.smoothing is not None for pair in found]
    assert sum(picked) == math.floor(quantile * len(mean) + 1e-9)
    left = [value for value, chosen in zip(mean, picked) if not chosen]
    assert not any(picked) or not left or max(v for v, chosen in zip(mean, picked) if chosen) <= min(left)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"strategy": "flipp"}, "did you mean 'flip'"),
        ({"strategy": "flip", "quantile": 0.1, "threshold": 0.0}, "not both"),
        ({"strategy": "flip", "quantile": 0.0}, r"in \(0, 1\]"),
        ({"strategy": "flip", "quantile": 1.5}, r"in \(0, 1\]"),
        ({"strategy": "margin", "quantile": 0.1}, "would do nothing"),
        ({"strategy": "none", "threshold": 0.1}, "would do nothing"),
        ({"strategy": "soft", "alpha": 0.6}, "more than 0.5 is a flip"),
    ],
)
def test_what_makes_no_sense_is_refused(options, said):
    with pytest.raises(GuerdonError, match=said):
        relabel(PAIRS, MU, **options)


@pytest.mark.parametrize("mean", [MU[:9], np.append(MU[:9], np.nan), MU[:, None]])
def test_a_strength_for_each_pair(mean):
    with pytest.raises(ValueError, match="10 pairs"):
        relabel(PAIRS, mean, strategy="flip")
