from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.core.identity import identity
from guerdon.core.outcome import Failed
from guerdon.core.reward import reward
from guerdon.core.segments import SpanScore
from guerdon.rewards.dense import CompositeAspects, Dense, dense_scores, is_dense, total
from guerdon.rewards.process import ProcessReward
from guerdon.rewards.text.segment import MomentScaled, PrefixDifference, SegmentReward

TEXT = "It is warm. The moon is cheese. It is dry."


def knows(prompts, segments, **columns):
    """A judge who doubts cheese, cannot say about "?", and fails on "!"."""
    found = []
    for row in segments:
        if any("!" in one for one in row):
            found.append(Failed("shouted at", "loud"))
        elif any("?" in one for one in row):
            found.append(None)
        else:
            found.append([0.2 if "cheese" in one else 0.9 for one in row])
    return found


@reward(name="clean", range=(0.0, 1.0))
def clean(prompts, completions, **columns):
    return [1.0 - min(1.0, 0.3 * text.count("damn")) for text in completions]


@reward(name="brief", range=(0.0, 1.0))
def brief(prompts, completions, **columns):
    return [1.0 / (1 + len(text)) for text in completions]


def test_each_segment_is_paid_by_its_verdict_at_its_own_place():
    pays = SegmentReward(knows, right=0.5, wrong=-0.5, aspect="factuality")
    (spans,) = pays.dense(["q"], [TEXT])
    assert [(TEXT[s.start : s.end], s.value) for s in spans] == [
        ("It is warm.", 0.5), ("The moon is cheese.", -0.5), ("It is dry.", 0.5),
    ]  # fmt: skip
    assert pays(["q"], [TEXT]) == [0.5] and {s.aspect for s in spans} == {"factuality"}
    near = SegmentReward(knows, pays="probability", right=1.0, wrong=0.0).dense(["q"], [TEXT])[0]
    assert [s.value for s in near] == [0.9, 0.2, 0.9]
    assert isinstance(pays, Dense) and is_dense(pays) and not is_dense(clean)


def test_only_errors_cost_where_right_pays_nothing_so_length_earns_nothing():
    pays = SegmentReward(knows, right=0.0, wrong=-0.3)
    assert pays(["q"] * 2, ["It is warm. " * 20, "It is warm."]) == [0.0, 0.0]
    assert SegmentReward(knows)(["q"], ["It is warm. " * 20]) == [pytest.approx(6.0)]


def test_outcomes_of_a_judge_stay_what_they_are():
    pays = SegmentReward(knows)
    failed, absent, empty = pays.dense(["q"] * 3, ["No!", "Eh?", "  "])
    assert isinstance(failed, Failed) and failed.kind == "loud" and absent is None and empty == []
    assert isinstance(SegmentReward(lambda p, s, **c: [[0.5]])(["q"], [TEXT])[0], Failed)
    assert isinstance(SegmentReward(lambda p, s, **c: [[0.5, 3, 0.5]])(["q"], [TEXT])[0], Failed)
    with pytest.raises(GuerdonError, match="2 completions"):
        SegmentReward(lambda p, s, **c: [])(["q"] * 2, [TEXT] * 2)
    with pytest.raises(GuerdonError, match="did you mean"):
        SegmentReward(knows, "sentnce")
    with pytest.raises(GuerdonError, match="paid more"):
        SegmentReward(knows, right=0.0, wrong=0.0)


def test_messages_are_read_like_strings():
    chat = [[{"role": "assistant", "content": TEXT}]]
    assert SegmentReward(knows)(["q"], chat) == SegmentReward(knows)(["q"], [TEXT])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["Good.", "Oh damn.", "Fine, damn it!", "Well?"]), max_size=6))
def test_what_segments_add_sums_to_the_whole_less_nothing(parts):
    text = " ".join(parts)
    added = PrefixDifference(clean)
    (spans,) = added.dense(["q"], [text])
    assert sum(s.value for s in spans) == pytest.approx(clean(["q"], [text])[0] - clean(["q"], [""])[0])
    assert len(spans) == len(parts)


def test_what_segments_add_is_asked_of_each_rows_own_columns_and_may_fail():
    @reward(name="wanted", on_failure="drop_sample")
    def wanted(prompts, completions, *, word, **columns):
        return [Failed("no") if "bad" in t else float(t.count(w)) for t, w in zip(completions, word)]

    added = PrefixDifference(wanted, empty=0.0)
    found = added.dense(["p", "q", "r"], ["A b. A a.", "B b b.", "Ok. bad."], word=["A", "b", "x"])
    assert [[s.value for s in row] for row in found[:2]] == [[1.0, 1.0], [2.0]]
    assert isinstance(found[2], Failed)


def test_a_whole_text_reward_is_scaled_by_its_moments():
    fixed = reward(name="four", range=(0.0, 6.0))(lambda prompts, completions, **columns: [4.0] * len(completions))
    scaled = MomentScaled(fixed, mean=2.0, std=4.0, scale=0.3)
    assert scaled(["q"], ["a"]) == [pytest.approx(0.15)]
    assert scaled.range == pytest.approx((-0.15, 0.3))
    assert dense_scores(scaled, ["q"], ["abc"], {})[0] == [SpanScore(0, 3, pytest.approx(0.15))]
    with pytest.raises(GuerdonError, match="above 0"):
        MomentScaled(fixed, 0.0, 0.0)


def test_aspects_keep_their_places_weights_and_log():
    logged = {}
    both = CompositeAspects({"fact": (SegmentReward(knows, right=0.5, wrong=-0.5), 2.0), "brief": (brief, -1.0)})
    (spans,) = both.dense(["q"], [TEXT], log_metric=logged.__setitem__)
    assert [(s.aspect, s.value) for s in spans[:3]] == [("fact", 1.0), ("fact", -1.0), ("fact", 1.0)]
    assert spans[3] == SpanScore(0, len(TEXT), -1 / (1 + len(TEXT)), "brief")
    assert logged["aspects/fact"] == 1.0 and logged["aspects/fact/segments"] == 3
    assert both(["q"], [TEXT])[0] == pytest.approx(total(spans))
    failed, absent = both(["q"] * 2, ["No!", "Eh?"])
    assert isinstance(failed, Failed) and absent is None
    assert identity(both) != identity(CompositeAspects({"fact": (SegmentReward(knows), 2.0), "brief": (brief, -1.0)}))
    with pytest.raises(GuerdonError, match="at least one"):
        CompositeAspects({})
    with pytest.raises(GuerdonError, match="finite"):
        CompositeAspects({"a": (brief, float("nan"))})


def test_spans_outside_of_the_text_and_infinite_ones_are_refused():
    class Odd(SegmentReward):
        def dense(self, prompts, completions, **columns):
            return [[SpanScore(0, 99, 1.0)], [SpanScore(0, 1, float("inf"))]][: len(completions)]

    with pytest.raises(GuerdonError, match="is not in 3 characters"):
        dense_scores(Odd(knows), ["q"], ["abc"], {})
    with pytest.raises(GuerdonError, match="rows for 3"):
        dense_scores(Odd(knows), ["q"] * 3, ["a" * 99] * 3, {})
    assert isinstance(dense_scores(Odd(knows), ["q"] * 2, ["a" * 99] * 2, {})[1], Failed)


SCORES = [0.9, 0.7, 0.95, 0.4]
LINES = "one\ntwo\nthree\nfour"


def listed(prompts, segments, **columns):
    return [SCORES[: len(row)] for row in segments]


def filler(times: int) -> tuple[str, list[float]]:
    """The steps with ``times`` plausible ones of score 0.9 before the last."""
    return "\n".join(["one", "two", "three", *["filler"] * times, "four"]), [*SCORES[:3], *[0.9] * times, SCORES[3]]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("none", SCORES), ("clip", [0, -0.1, 0, -0.4]), ("delta", [0.2, -0.25, 0.95, 0]),
        ("clip_delta", [0.1, -0.1, 0, 0]),
    ],
)  # fmt: skip
def test_steps_are_shaped_as_published_and_placed_at_their_lines(mode, expected):
    found = ProcessReward(listed, mode=mode, eta=0.8, alpha=1.0).dense(["q"], [LINES])[0]
    assert [s.value for s in found] == pytest.approx(expected)
    assert [LINES[s.start : s.end] for s in found] == ["one", "two", "three", "four"]


@pytest.mark.parametrize(("mode", "growth"), [("none", 0.9), ("clip", 0.0), ("delta", 0.0), ("clip_delta", 0.0)])
def test_plausible_filler_pays_only_where_the_scores_are_raw(mode, growth):
    totals = []
    for times in (0, 5):
        text, scores = filler(times)
        judge = lambda prompts, segments, scores=scores, **columns: [scores]  # noqa: E731
        totals.append(total(ProcessReward(judge, mode=mode, eta=0.8, alpha=1.0).dense(["q"], [text])[0]))
    assert totals[1] - totals[0] == pytest.approx(5 * growth)


def test_the_threshold_of_a_group_is_the_mean_of_its_own_question():
    judge = lambda prompts, segments, **columns: [[float(one) for one in row] for row in segments]  # noqa: E731
    pays = ProcessReward(judge, mode="clip", alpha=1.0)
    found = pays.dense(["p", "p", "q"], ["0.9\n0.5", "0.4", "0.2\n0.1"])
    assert [s.value for s in found[0]] == pytest.approx([0, -0.1])  # mean 0.6
    assert [s.value for s in found[1]] == pytest.approx([-0.2])
    assert [s.value for s in found[2]] == pytest.approx([0, -0.05])
    assert pays.groupwise and not ProcessReward(judge, eta=0.5).groupwise


def test_process_outcomes_and_log_and_the_warning_of_a_sum():
    logged = {}
    pays = ProcessReward(knows, mode="delta", alpha=0.2)
    found = pays.dense(["q"] * 4, ["No!", "Eh?", "", "It is warm."], log_metric=logged.__setitem__)
    assert isinstance(found[0], Failed) and found[1:3] == [None, []] and found[3][0].value == 0.0
    assert logged["process_delta/steps"] == 1 and logged["process_delta/nonzero_share"] == 0
    with pytest.warns(UserWarning, match="DenseGRPO"):
        pays(["q"], ["It is warm."])
    wild = ProcessReward(lambda p, s, **c: [[3.0]])
    assert wild.dense(["q"], ["x"])[0].kind == "out_of_range"
    with pytest.raises(GuerdonError, match="mode"):
        ProcessReward(knows, mode="clop")
    with pytest.raises(GuerdonError, match="alpha"):
        ProcessReward(knows, alpha=0.0)
    assert identity(pays) != identity(ProcessReward(knows, mode="clip"))
