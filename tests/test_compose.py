from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.reward import identity, reward
from guerdon.core.scorer import Scorer
from guerdon.rewards.bank import RewardBank
from guerdon.rewards.compose import anneal, clip, gate, group_ids, penalty, standardised, weighted_sum


def column(name: str, *, on_failure: Any = "drop_sample", range: Any = None) -> Any:  # noqa: A002
    """A reward that reads its score from a column; strings stand for a failure."""

    @reward(name=name, on_failure=on_failure, range=range)
    def read(prompts: list[str], completions: list[str], **columns: Any) -> list[Any]:
        return [Failed(v, "test") if isinstance(v, str) else v for v in columns[name]]

    return read


def score(composed: Any, **columns: list[Any]) -> Any:
    n = len(next(iter(columns.values())))
    prompts = columns.pop("prompts", ["p"] * n)
    return composed.scores(prompts, ["c"] * n, **columns)


def test_weighted_sum_adds_raw_units_and_shows_parts() -> None:
    total = weighted_sum({"fluent": (column("a"), 2.0), "short": (column("b"), -0.5)}, name="total")
    result = score(total, a=[1.0, 2.0], b=[4.0, 0.0])
    assert result.values.tolist() == [0.0, 4.0]
    assert result.parts["fluent"].tolist() == [1.0, 2.0] and result.parts["short"].tolist() == [4.0, 0.0]
    assert total(["p", "p"], ["c", "c"], a=[1.0, 2.0], b=[4.0, 0.0]) == [0.0, 4.0]


def test_missing_scores_never_become_numbers() -> None:
    total = weighted_sum([(column("a"), 1.0), (column("b"), 1.0)])
    result = score(total, a=[1.0, None, 1.0] + [1.0] * 9, b=[1.0, 1.0, "judge is away"] + [1.0] * 9)
    assert result.valid.tolist()[:3] == [True, False, False]
    assert np.isnan(result.values[1:3]).all()
    assert set(result.failures) == {2} and result.failures[2].cause == "b: judge is away"
    assert total(["p"] * 3, ["c"] * 3, a=[1.0, None, 1.0], b=[1.0, 1.0, 1.0]) == [2.0, None, 2.0]


def test_optional_part_may_not_apply_but_may_not_fail() -> None:
    total = weighted_sum([(column("a"), 1.0), (column("b"), 10.0)], optional=["b"])
    result = score(total, a=[1.0, 1.0, None] + [1.0] * 9, b=[None, "gone", 1.0] + [0.0] * 9)
    assert result.values[0] == 1.0  # no renormalisation over the parts that answered
    assert result.valid.tolist()[:3] == [True, False, False] and set(result.failures) == {1}
    both = weighted_sum([(column("a"), 1.0), (column("b"), 1.0)], optional=["a", "b"])
    assert score(both, a=[None, 1.0], b=[None, None]).valid.tolist() == [False, True]


def test_declared_fallback_counts_and_stays_on_record() -> None:
    total = weighted_sum([(column("a", on_failure=-1.0), 1.0), (column("b"), 1.0)])
    result = score(total, a=["gone"] + [0.5] * 11, b=[2.0] * 12)
    assert result.values[0] == 1.0 and result.valid.all() and set(result.failures) == {0}


def test_a_part_that_raises_stops_the_composite() -> None:
    total = weighted_sum([(column("a", on_failure="raise"), 1.0)])
    with pytest.raises(GuerdonError, match="'a' failed at row 1"):
        score(total, a=[1.0, "gone"])
    with pytest.raises(GuerdonError, match="'weighted_sum' failed at row 1.*'a' failed"):
        Scorer(total).score(["p"] * 2, ["c"] * 2, a=[1.0, "gone"])


def test_dropped_groups_travel_through() -> None:
    total = weighted_sum([(column("a", on_failure="drop_group"), 1.0), (column("b"), 1.0)])
    groups = ["p"] * 2 + ["q"] * 10
    result = score(total, prompts=groups, a=["gone"] + [1.0] * 11, b=[1.0] * 12)
    assert result.valid.tolist() == [False] * 2 + [True] * 10
    assert result.dropped.tolist() == [False, True] + [False] * 10 and set(result.failures) == {0}


def test_nested_composites_are_rewards_and_show_inner_parts() -> None:
    inner = weighted_sum([(column("a"), 1.0), (column("b"), 1.0)], name="inner")
    outer = clip(penalty(inner, column("c"), 2.0), high=3.0, name="outer")
    result = score(outer, a=[1.0, 4.0], b=[1.0, 4.0], c=[1.0, 0.5])
    assert result.values.tolist() == [0.0, 3.0]
    assert result.parts["penalised_inner/inner/a"].tolist() == [1.0, 4.0]
    through_scorer = Scorer(outer).score(["p", "p"], ["c", "c"], a=[1.0, 4.0], b=[1.0, 4.0], c=[1.0, 0.5])
    assert through_scorer.values.tolist() == [0.0, 3.0] and through_scorer.identity == outer.identity()


def test_async_parts_are_awaited() -> None:
    async def later(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        return [float(len(c)) for c in completions]

    assert weighted_sum([(later, 2.0)])(["p"], ["abc"]) == [6.0]


def test_parts_go_to_log_metric_once() -> None:
    logged: dict[str, list[float]] = {}
    inner = weighted_sum([(column("a"), 1.0)], name="inner")
    outer = weighted_sum([(inner, 1.0), (column("b"), 1.0)], optional=["b"], name="outer")
    columns = {"a": [1.0, 3.0], "b": [None, None], "log_metric": lambda k, v: logged.setdefault(k, []).append(v)}
    outer(["p"] * 2, ["c"] * 2, **columns)
    assert logged == {"outer/inner": [2.0], "outer/inner/a": [2.0]}


def test_standardised_is_the_group_z_score() -> None:
    z = standardised(column("a"))
    result = score(z, prompts=["p"] * 4 + ["q"] * 2, a=[0.1, 0.2, 0.3, 0.4, 5.0, 5.0])
    spread = np.std([0.1, 0.2, 0.3, 0.4]) + 1e-4
    np.testing.assert_allclose(result.values[:4], (np.array([0.1, 0.2, 0.3, 0.4]) - 0.25) / spread, rtol=1e-6)
    assert result.values[4:].tolist() == [0.0, 0.0] and z.groupwise
    batch = score(standardised(column("a"), std="batch"), prompts=["p", "p", "q", "q"], a=[0.0, 1.0, 0.0, 3.0])
    np.testing.assert_allclose(
        batch.values, np.array([-0.5, 0.5, -1.5, 1.5]) / (np.std([0, 1, 0, 3]) + 1e-4), rtol=1e-6
    )


def test_standardised_leaves_invalid_samples_out_of_the_statistics() -> None:
    with_hole = score(standardised(column("a")), a=[1.0, None, 3.0, 100.0], prompts=["p", "p", "p", "q"])
    without = score(standardised(column("a")), a=[1.0, 3.0])
    np.testing.assert_allclose(with_hole.values[[0, 2]], without.values)
    assert with_hole.valid.tolist() == [True, False, True, True]


def test_batch_deviation_inside_a_sum_sees_the_whole_batch() -> None:
    total = weighted_sum([(standardised(column("a"), std="batch"), 1.0)])
    assert total.groupwise
    columns = {"prompts": ["p", "p", "q", "q"], "a": [0.0, 1.0, 0.0, 3.0]}
    np.testing.assert_allclose(
        score(total, **columns).values, score(standardised(column("a"), std="batch"), **columns).values
    )


def test_gate_pays_the_declared_score_behind_it_and_spares_the_judge() -> None:
    seen: list[str] = []

    @reward(name="judge", on_failure="drop_sample")
    def judge(prompts: list[str], completions: list[str], **columns: Any) -> list[Any]:
        seen.extend(completions)
        return [
            Failed("no", "test") if c == "bad" else float(v) for c, v in zip(completions, columns["b"], strict=True)
        ]

    gated = gate(column("a"), judge, threshold=0.5, closed=-1.0)
    n = 12
    completions = ["x", "y", "bad", "z"] + ["w"] * (n - 4)
    a = [1.0, 0.4, 0.5, None] + [1.0] * (n - 4)
    result = gated.scores(["p"] * n, completions, a=a, b=[float(i) for i in range(n)])
    assert result.values[:2].tolist() == [0.0, -1.0] and result.values[4:].tolist() == [float(i) for i in range(4, n)]
    assert result.valid.tolist()[:4] == [True, True, False, False]
    assert set(result.failures) == {2} and "y" not in seen and "z" not in seen
    not_applicable = gate(column("a"), column("b"), closed=None)
    assert score(not_applicable, a=[0.0, 1.0], b=[7.0, 7.0]).valid.tolist() == [False, True]
    assert score(gated, a=[0.0, 0.0], b=[1.0, 1.0]).values.tolist() == [-1.0, -1.0]


def test_gate_gives_a_groupwise_reward_whole_groups() -> None:
    gated = gate(column("a"), standardised(column("b")), closed=-9.0)
    result = score(gated, a=[1.0, 0.0, 1.0], b=[1.0, 2.0, 3.0])
    whole = score(standardised(column("b")), b=[1.0, 2.0, 3.0]).values
    assert result.values.tolist() == [whole[0], -9.0, whole[2]]


def test_clip_and_its_range() -> None:
    clipped = clip(column("a", range=(0.0, 10.0)), low=2.0, high=5.0)
    assert score(clipped, a=[0.0, 3.0, 9.0]).values.tolist() == [2.0, 3.0, 5.0]
    assert clipped.range == (2.0, 5.0)
    for low, high in ((1.0, 0.0), (None, None)):
        with pytest.raises(GuerdonError, match="clip needs"):
            clip(column("a"), low, high)


def test_anneal_follows_the_training_step() -> None:
    fading = anneal(column("a"), [(10, 1.0), (20, 0.0)])
    for step, factor in ((0, 1.0), (10, 1.0), (15, 0.5), (20, 0.0), (99, 0.0)):
        result = fading.scores(["p"], ["c"], a=[4.0], trainer_state=SimpleNamespace(global_step=step))
        assert result.values.tolist() == [4.0 * factor]
    with pytest.raises(GuerdonError, match="no trainer_state"):
        score(fading, a=[4.0])
    with pytest.raises(GuerdonError, match="increasing"):
        anneal(column("a"), [(5, 1.0), (5, 0.0)])


def test_composed_ranges() -> None:
    unit, cost = column("a", range=(0.0, 1.0)), column("b", range=(0.0, 2.0))
    assert weighted_sum([(unit, 2.0), (cost, -1.0)]).range == (-2.0, 2.0)
    assert weighted_sum([(unit, 1.0), (cost, 1.0)], optional=["b"]).range == (0.0, 3.0)
    assert penalty(unit, cost, 0.5).range == (-1.0, 1.0)
    assert weighted_sum([(unit, 1.0), (column("c"), 1.0)]).range is None
    thirds = weighted_sum({str(i): (column("a", range=(0.0, 1.0)), 0.1) for i in range(3)})
    assert score(thirds, a=[1.0]).values[0] <= thirds.range[1]


def test_mistakes_are_named() -> None:
    with pytest.raises(GuerdonError, match="at least one part"):
        weighted_sum([])
    with pytest.raises(GuerdonError, match="two parts are named 'a'"):
        weighted_sum([(column("a"), 1.0), (column("a"), 1.0)])
    with pytest.raises(GuerdonError, match="did you mean 'fluent'"):
        weighted_sum({"fluent": (column("a"), 1.0)}, optional=["fluen"])
    with pytest.raises(GuerdonError, match="finite"):
        weighted_sum([(column("a"), float("nan"))])
    with pytest.raises(GuerdonError, match="penalty"):
        penalty(column("a"), column("b"), -1.0)


def test_identity_follows_settings_and_parts() -> None:
    first = weighted_sum([(column("a"), 1.0), (column("b"), 1.0)])
    assert identity(first) == weighted_sum([(column("a"), 1.0), (column("b"), 1.0)]).identity()
    others = [
        weighted_sum([(column("a"), 2.0), (column("b"), 1.0)]),
        weighted_sum([(column("a"), 1.0), (column("c"), 1.0)]),
        weighted_sum([(column("a"), 1.0), (column("b"), 1.0)], optional=["b"]),
    ]
    assert len({identity(r).split("#")[1] for r in [first, *others]}) == 4
    assert clip(column("a"), low=0.0).identity() != clip(column("a"), low=0.5).identity()


def test_a_constant_term_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    total = weighted_sum({"prompt_length": (column("a"), 1.0), "answer": (column("b"), 1.0)}, name="total")
    batch = {"prompts": ["p", "p", "q", "q"], "a": [1.0, 1.0, 9.0, 9.0], "b": [0.0, 1.0, 0.5, 0.5]}
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            score(total, **batch)
    assert [r.getMessage().count("prompt_length") for r in caplog.records] == [1]
    assert "answer" not in caplog.text


def test_no_warning_without_groups_to_compare(caplog: pytest.LogCaptureFixture) -> None:
    total = weighted_sum([(column("a"), 1.0)])
    with caplog.at_level(logging.WARNING):
        score(total, prompts=["p", "q", "r"], a=[1.0, 1.0, 1.0])  # groups of one
        score(total, prompts=["p", "p"], a=[1.0, 1.0])  # one tied group may be chance
        score(total, prompts=["p", "p"], a=[1.0, 2.0])
        score(total, prompts=["p", "p", "q", "q"], a=[1.0, 1.0, 2.0, 2.0])  # it can vary
    assert not caplog.records


def test_group_ids_from_prompts_messages_or_column() -> None:
    messages = [[{"role": "user", "content": t}] for t in "aba"]
    assert group_ids(messages).tolist() == [0, 1, 0]
    assert group_ids(["x", "x"], {"group_ids": [3, 4]}).tolist() == [3, 4]


R1, R2 = [0.1, 0.2, 0.3, 0.4], [0.9, 0.1, 0.1, 0.1]


def bank(**options: Any) -> RewardBank:
    return RewardBank({"one": (column("a"), 1.0), "two": (column("b"), 1.0)}, **options)


def test_bank_reproduces_the_two_normalisations() -> None:
    ids = torch.zeros(4, dtype=torch.long)
    for combine, expected in (
        ("per_reward_z", [0.1956, -0.5120, -0.0652, 0.3816]),
        ("sum_then_z", [1.6706, -0.9281, -0.5569, -0.1856]),
    ):
        scores = bank(combine=combine).score(["p"] * 4, ["c"] * 4, a=R1, b=R2)
        torch.testing.assert_close(scores.advantages(ids), torch.tensor(expected), atol=5e-4, rtol=0)
    assert scores.parts["one"].tolist() == R1 and scores.mean == pytest.approx({"one": 0.25, "two": 0.3})
    np.testing.assert_allclose(scores.weighted(), np.array(R1) + R2)
    assert scores.identities["one"].startswith("a@1#") and scores.valid.all()


def test_bank_clips_and_standardises_over_the_batch() -> None:
    ids = torch.tensor([0] * 40)
    values = [0.0] * 39 + [1.0]
    scores = RewardBank({"r": (column("a"), 1.0)}, clip=5.0).score(["p"] * 40, ["c"] * 40, a=values)
    assert scores.advantages(ids)[-1] == 5.0
    scores = RewardBank({"r": (column("a"), 1.0)}, std="batch").score(
        ["p", "p", "q", "q"], ["c"] * 4, a=[0.0, 1.0, 0.0, 3.0]
    )
    expected = torch.tensor([-0.5, 0.5, -1.5, 1.5]) / (np.std([0, 1, 0, 3]) + 1e-4)
    torch.testing.assert_close(scores.advantages(torch.tensor([0, 0, 1, 1])), expected.float())


def test_bank_drops_failed_samples_and_keeps_those_a_part_does_not_apply_to() -> None:
    n = 12
    a, b = [float(i) for i in range(n)], [float(i % 3) for i in range(n)]
    holes_a: list[Any] = list(a)
    holes_a[0] = "gone"
    holes_b: list[Any] = list(b)
    holes_b[1] = None
    scores = bank().score(["p"] * n, ["c"] * n, a=holes_a, b=holes_b)
    advantages = scores.advantages(torch.zeros(n, dtype=torch.long))
    assert advantages[0] == 0 and scores.failed.tolist() == [True] + [False] * (n - 1)
    assert scores.valid.tolist() == [False, False] + [True] * (n - 2) and np.isnan(scores.weighted()[:2]).all()
    rest = (
        bank()
        .score(["p"] * (n - 1), ["c"] * (n - 1), a=a[1:], b=holes_b[1:])
        .advantages(torch.zeros(n - 1, dtype=torch.long))
    )
    torch.testing.assert_close(advantages[1:], rest)  # the failed sample entered no statistic
    assert scores.failures["one"][0].cause == "gone"


def test_bank_refuses_what_cannot_be_combined() -> None:
    for options, match in (({"combine": "mean"}, "per_reward_z"), ({"std": "all"}, "batch")):
        with pytest.raises(GuerdonError, match=match):
            bank(**options)
    for weights in ((0.0, 0.0), (1.0, -1.0)):
        with pytest.raises(GuerdonError, match="more than 0"):
            RewardBank({"one": (column("a"), weights[0]), "two": (column("b"), weights[1])})


def test_bank_names_a_constant_reward_once_and_ignores_weightless_ones(caplog: pytest.LogCaptureFixture) -> None:
    held_out = RewardBank({"dead": (column("a"), 1.0), "held_out": (column("b"), 0.0), "live": (column("c"), 1.0)})
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            scores = held_out.score(["p", "p", "q", "q"], ["c"] * 4, a=[1.0] * 4, b=[1.0] * 4, c=[1.0, 2.0, 3.0, 4.0])
            scores.advantages(torch.tensor([0, 0, 1, 1]))
    assert len(caplog.records) == 1 and "'dead'" in caplog.text
    assert scores.mean["held_out"] == 1.0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.floats(-5, 5)), st.one_of(st.none(), st.floats(-5, 5))),
        min_size=1,
        max_size=12,
    ),
    st.floats(-3, 3),
)
def test_a_sum_is_valid_exactly_where_its_parts_are(rows: list[tuple[Any, Any]], weight: float) -> None:
    total = weighted_sum([(column("a"), 1.0), (column("b"), weight)])
    result = score(total, a=[a for a, _ in rows], b=[b for _, b in rows])
    for (a, b), value, valid in zip(rows, result.values, result.valid, strict=True):
        assert valid == (a is not None and b is not None)
        assert not valid or value == pytest.approx(a + weight * b)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=10), st.randoms(use_true_random=False))
def test_a_score_does_not_depend_on_the_batch(values: list[float], shuffler: Any) -> None:
    composed = clip(weighted_sum([(column("a"), 2.0), (gate(column("a"), column("a"), closed=-1.0), 1.0)]), low=-3.0)
    alone = [composed(["p"], ["c"], a=[v])[0] for v in values]
    order = list(range(len(values)))
    shuffler.shuffle(order)
    together = composed(["p"] * len(values), ["c"] * len(values), a=[values[i] for i in order])
    assert together == [alone[i] for i in order]
