"""Preference strength: the card's figure, members that differ by order only, resuming, and the published columns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier

from guerdon.core.dialogues import embedded_pairs
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair, text_of
from guerdon.core.runs import RunFolder
from guerdon.curation.strength import (
    CHOSEN,
    JUDGE,
    MEAN,
    REJECTED,
    STD,
    Strength,
    by_strength,
    ensemble_strength,
    load_strength_pairs,
    preference_strength,
)


def a_pair(number: int) -> Pair:
    prompt = [{"role": "user", "content": f"question {number}"}]
    good, bad = ([{"role": "assistant", "content": f"{word} {number}"}] for word in ("good", "bad"))
    return Pair(prompt, good, bad)


PAIRS = [a_pair(number) for number in range(8)]


class Ordered:
    """Scores depend on the order of the pairs that it was trained on: what it saw first scores highest."""

    def __init__(self, pairs: list[Pair]) -> None:
        self.places = {text_of(pair.prompt): place for place, pair in enumerate(pairs)}

    def score(self, conversations, **options):
        assert not options
        good = [text_of(messages[-1:]).startswith("good") for messages in conversations]
        return [
            (len(self.places) - self.places[text_of(messages[:-1])]) * (1.0 if right else -1.0)
            for messages, right in zip(conversations, good)
        ]


# The formula


def test_figure_of_the_card():
    differences = np.array([[1.0], [-0.5], [2.0], [0.5]])
    mean, std = preference_strength(differences, np.zeros((4, 1)))
    assert mean == pytest.approx([0.75]) and std == pytest.approx([0.90139], abs=1e-5)
    assert std[0] != pytest.approx(differences.std(ddof=1))


@given(st.lists(st.lists(st.floats(-10, 10), min_size=6, max_size=6), min_size=1, max_size=5), st.floats(-5, 5))
def test_strength_turns_with_the_label_and_ignores_each_models_level(rows, shift):
    chosen, rejected = np.array(rows)[:, :3], np.array(rows)[:, 3:]
    mean, std = preference_strength(chosen, rejected)
    turned, same = preference_strength(rejected, chosen)
    np.testing.assert_allclose(turned, -mean, atol=1e-12)
    np.testing.assert_allclose(same, std, atol=1e-12)
    level = shift * np.arange(len(rows))[:, None]
    moved = preference_strength(chosen + level, rejected + level)
    np.testing.assert_allclose(moved, (mean, std), atol=1e-9)


@pytest.mark.parametrize(
    "chosen, rejected", [([1.0], [2.0]), ([[1.0]], [[1.0, 2.0]]), ([[]], [[]]), ([[np.nan]], [[0.0]])]
)
def test_bad_scores_are_refused(chosen, rejected):
    with pytest.raises(ValueError):
        preference_strength(chosen, rejected)


# The ensemble


def test_members_differ_by_the_order_only():
    calls = []

    def train(pairs, seed):
        calls.append((tuple(text_of(pair.prompt) for pair in pairs), seed))
        return Ordered(pairs)

    found = ensemble_strength(PAIRS, train, members=4, seed=5)
    assert {seed for _, seed in calls} == {5}
    orders = [order for order, _ in calls]
    assert len(set(orders)) == 4 and len({tuple(sorted(order)) for order in orders}) == 1
    # Rows are in the caller's order whatever the member's was.
    expected = [[8 - order.index(text_of(pair.prompt)) for pair in PAIRS] for order in orders]
    np.testing.assert_array_equal(found.chosen, expected)
    np.testing.assert_array_equal(found.rejected, -found.chosen)
    np.testing.assert_allclose(found.mean, 2 * np.mean(expected, axis=0))
    again = ensemble_strength(PAIRS, train, members=4, seed=5)
    np.testing.assert_array_equal(again.chosen, found.chosen)
    assert not np.array_equal(ensemble_strength(PAIRS, train, members=4, seed=6).chosen, found.chosen)


def test_interrupted_ensemble_continues_where_it_was(tmp_path: Path):
    trained = []

    def train(pairs, seed):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(seed)
        return Ordered(pairs)

    folder = RunFolder.open(tmp_path / "run", {"a": 1})
    with pytest.raises(KeyboardInterrupt):
        ensemble_strength(PAIRS, train, members=4, seed=3, folder=folder)
    trained[:] = [0, 0, 0]  # past the interruption
    folder = RunFolder.open(tmp_path / "run", {"a": 1}, resume=True)
    resumed = ensemble_strength(PAIRS, train, members=4, seed=3, folder=folder)
    assert len(trained) == 5  # two more, not four
    whole = ensemble_strength(PAIRS, lambda pairs, seed: Ordered(pairs), members=4, seed=3)
    np.testing.assert_array_equal(resumed.chosen, whole.chosen)
    more = ensemble_strength(PAIRS, train, members=5, seed=3, folder=folder)
    assert len(trained) == 6 and len(more.chosen) == 5
    np.testing.assert_array_equal(more.chosen[:4], whole.chosen)
    for pairs, seed in ((PAIRS[::-1], 3), (PAIRS, 4)):
        with pytest.raises(GuerdonError, match="other pairs or of another seed"):
            ensemble_strength(pairs, train, members=4, seed=seed, folder=folder)


class Broken:
    def __init__(self, scores):
        self.scores = scores

    def score(self, conversations, **options):
        return self.scores


@pytest.mark.parametrize("scores", [[0.0] * 15, [0.0] * 15 + [float("nan")], [[0.0]] * 16])
def test_a_member_without_a_score_for_each_answer_is_named(scores):
    with pytest.raises(GuerdonError, match="member 0"):
        ensemble_strength(PAIRS, lambda pairs, seed: Broken(scores), members=1)


def test_an_ensemble_needs_members_and_pairs():
    for pairs, members in (([], 3), (PAIRS, 0)):
        with pytest.raises(GuerdonError, match="at least one"):
            ensemble_strength(pairs, lambda pairs, seed: Ordered(pairs), members=members)


def test_progress_counts_members():
    from guerdon.core.progress import progress

    bars = []

    def make(total, description):
        bars.append(progress(total, description, file=open("/dev/null", "w")))
        return bars[-1]

    ensemble_strength(PAIRS, lambda pairs, seed: Ordered(pairs), members=3, progress=make)
    assert bars[0].done == 3 and bars[0].total == 3


class WordReward:
    """One pass of logistic regression over the words of the answers."""

    words = HashingVectorizer(n_features=512, alternate_sign=False, norm=None)

    def __init__(self, pairs: list[Pair]) -> None:
        sides = [
            self.words.transform([text_of(getattr(pair, side)) for pair in pairs]) for side in ("chosen", "rejected")
        ]
        gap = sides[0] - sides[1]
        self.model = SGDClassifier(loss="log_loss", alpha=1e-4, shuffle=False, fit_intercept=False)
        for rows in np.array_split(np.arange(len(pairs)), 20):
            half = len(rows) // 2
            signed = gap[rows].toarray() * np.where(np.arange(len(rows)) < half, 1, -1)[:, None]
            self.model.partial_fit(signed, np.arange(len(rows)) < half, classes=[False, True])

    def score(self, conversations, **options):
        return self.model.decision_function(self.words.transform([text_of(one[-1:]) for one in conversations]))


def test_an_ensemble_finds_wrong_labels():
    pairs = embedded_pairs(1200, 4, noise=0.25)
    wrong = np.array([pair.row["truth"] < 0 for pair in pairs])
    found = ensemble_strength(pairs, lambda rows, seed: WordReward(rows), members=5, seed=1)
    assert (found.std > 0).any()
    order = np.argsort(found.mean)
    # Words give away manner but not whether the answer is right, so not every wrong label can be found.
    assert wrong[order[:120]].mean() > wrong.mean() + 0.15
    assert wrong[order[-600:]].mean() < wrong.mean() - 0.05


# Columns


def test_columns_come_back(tmp_path: Path):
    found = ensemble_strength(PAIRS, lambda pairs, seed: Ordered(pairs), members=3)
    annotated = found.annotate([*PAIRS[:7], Pair(**{**vars(PAIRS[7]), "row": {"kept": 1}})])
    assert annotated[7].row["kept"] == 1 and annotated[0].row[MEAN] == found.mean[0]
    assert annotated[0].row[STD] == found.std[0] and len(annotated[0].row[CHOSEN]) == 3
    path = tmp_path / "pairs.jsonl"
    rows = [pair.to_row() for pair in annotated]
    for row in rows:
        row["chosen"], row["rejected"] = (row["prompt"] + row[side] for side in ("chosen", "rejected"))
        row.pop("kept", None)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load_strength_pairs(path)
    assert [pair.chosen for pair in loaded] == [pair.chosen for pair in PAIRS] and loaded[2].where.endswith(":3")
    back = Strength.of_pairs(loaded)
    np.testing.assert_array_equal(back.chosen, found.chosen)
    np.testing.assert_array_equal(back.mean, found.mean)
    with pytest.raises(ValueError, match="7 pairs"):
        found.annotate(PAIRS[:7])


def test_columns_that_are_missing_or_differ_in_length():
    with pytest.raises(GuerdonError, match="must list one score a model"):
        Strength.of_pairs(PAIRS)
    rows = [{CHOSEN: [1.0, 2.0], REJECTED: [0.0, 0.0]}, {CHOSEN: [1.0], REJECTED: [0.0]}]
    pairs = [Pair(**{**vars(pair), "row": row, "where": f"f:{n}"}) for n, (pair, row) in enumerate(zip(PAIRS, rows))]
    with pytest.raises(GuerdonError, match="f:1.*has 1 scores, not 2"):
        Strength.of_pairs(pairs)
    with pytest.raises(GuerdonError, match="no pairs"):
        Strength.of_pairs([])


def published(**changes) -> dict:
    row = {
        "chosen": ["Hello", "Hi there", "What is tea?", "A drink."],
        "rejected": ["Hello", "Hi there", "What is tea?", "No idea."],
        MEAN: 0.75, STD: 0.9014, CHOSEN: [1.0, -0.5, 2.0, 0.5], REJECTED: [0.0, 0.0, 0.0, 0.0], JUDGE: -1,
    }  # fmt: skip
    return {**row, **changes}


def written(tmp_path: Path, *rows: dict) -> Path:
    path = tmp_path / "published.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_published_layout(tmp_path: Path):
    marked = published(
        chosen=["Human: Why? Human: is a word", "Assistant: Because."], rejected=["Human: Why? Human: is a word", "No."]
    )
    first, second = load_strength_pairs(written(tmp_path, published(), marked))
    assert [message["role"] for message in first.prompt] == ["user", "assistant", "user"]
    assert first.chosen == [{"role": "assistant", "content": "A drink."}] and first.row[JUDGE] == -1
    assert "chosen" not in first.row
    assert second.prompt == [{"role": "user", "content": "Why? Human: is a word"}]
    assert text_of(second.chosen) == "Because."
    # A history that was cut begins with the assistant.
    short = published(chosen=["Hi there", "What is tea?", "A drink."], rejected=["Hi there", "What is tea?", "No."])
    assert load_strength_pairs(written(tmp_path, short))[0].prompt[0]["role"] == "assistant"


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"chosen": ["A drink."]}, "a history and an answer"),
        ({"chosen": "A drink."}, "a history and an answer"),
        ({"chosen": ["Hello", "Hi there", "What is coffee?", "A drink."]}, "do not share their history"),
        ({"rejected": ["Hello", "Hi there", "What is tea?", "A drink."]}, "are equal"),
        ({"rejected": ["Hello", "Hi there", "What is tea?", " "]}, "does not end with an answer"),
        ({CHOSEN: [1.0]}, "1 chosen scores and 4 rejected ones"),
        ({CHOSEN: []}, "missing or empty"),
        ({CHOSEN: 1.0}, "must list one score a model"),
        ({CHOSEN: [1.0, None, 2.0, 0.5]}, "must list one score a model"),
        ({MEAN: -0.75}, "is -0.75, its score lists differ by 0.75"),
        ({JUDGE: 2}, "must be 1, 0 or -1"),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path: Path, changes: dict, said: str):
    with pytest.raises(GuerdonError, match=f"published.jsonl:2.*{said}"):
        load_strength_pairs(written(tmp_path, published(), published(**changes)))
    kept = load_strength_pairs(written(tmp_path, published(), published(**changes)), skip_bad_rows=True)
    assert len(kept) == 1


def test_a_missing_column_is_named(tmp_path: Path):
    row = published()
    del row[STD]
    with pytest.raises(GuerdonError, match=STD):
        load_strength_pairs(written(tmp_path, row))


def test_bins_by_strength():
    mean, std = np.array([3.0, -1.0, 0.0, 2.0, -2.0, 1.0]), np.arange(6.0)
    agreed = np.array([1.0, 0.0, np.nan, 1.0, 0.0, 1.0])
    low, middle, high = by_strength(mean, std, agreed, bins=3)
    assert (low.mean, middle.mean, high.mean) == (-1.5, 0.5, 2.5) and low.count == 2
    assert (low.outcome, middle.outcome, high.outcome) == (0.0, 1.0, 1.0) and high.std == 1.5
    assert np.isnan(by_strength(mean, std, np.full(6, np.nan), bins=2)[0].outcome)
    for bins in (0, 7):
        with pytest.raises(ValueError, match="bins"):
            by_strength(mean, std, agreed, bins=bins)
