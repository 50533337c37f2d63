"""The two filters: which evidence leads to which decision, and what a decision does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.preferences import Pair
from guerdon.curation.committee import CommitteeVote, JudgeCommittee
from guerdon.curation.consistency import ConsistencyFilter, Decision, Judged, pair_probabilities, recycle


def pair(best: float, gold: float, number: int = 0) -> Pair:
    """A pair whose chosen answer says by how much either model prefers it."""
    prompt = [{"role": "user", "content": str(number)}]
    return Pair(prompt, [{"role": "assistant", "content": f"{best} {gold}"}], [{"role": "assistant", "content": "0 0"}])


class Model:
    def __init__(self, column: int) -> None:
        self.column, self.calls = column, 0

    def score(self, conversations: Sequence[Any]) -> list[float]:
        self.calls += 1
        return [float(conversation[-1]["content"].split()[self.column]) for conversation in conversations]


def decide(best: float, gold: float, said: str | None = None, **options: Any) -> Decision:
    """``said``: None without judges, "a", "b", "tie" or "failed"."""

    def judge(pairs: Sequence[Pair], p: np.ndarray) -> list[Judged]:
        winner: Any = said if said in ("a", "b") else None
        failure = Failed("down") if said == "failed" else None
        return [Judged(CommitteeVote(winner, (), failure), {"category": "x"}) for _ in pairs]

    return ConsistencyFilter(Model(0), Model(1), None if said is None else judge, **options)([pair(best, gold)])[0]


@pytest.mark.parametrize(
    ("best", "gold", "said", "decision"),
    [
        (2, 1, None, "keep"), (2, -1, None, "drop"), (-2, 1, None, "drop"), (-2, -1, None, "flip"),
        (-2, 1, "a", "keep"), (-2, 1, "b", "drop"), (-2, 1, "tie", "drop"), (-2, 1, "failed", "drop"),
        (-2, -1, "a", "drop"), (-2, -1, "b", "relabel"), (-2, -1, "tie", "flip"), (-2, -1, "failed", "flip"),
        (0.1, 1, "b", "keep"), (0.1, -1, "b", "relabel"),  # near 1/2 judges are asked, best still agrees
        (2, -1, "b", "drop"),  # best is sure: nobody is asked
        (0, 0, None, "drop"), (0, 1, None, "drop"), (1, 0, None, "drop"), (0, 0, "a", "drop"),
    ],
)  # fmt: skip
def test_what_is_decided(best: float, gold: float, said: str | None, decision: str) -> None:
    found = decide(best, gold, said)
    assert found.decision == decision and found.provenance.startswith("stage 2: ")
    assert found.p_best == pytest.approx(1 / (1 + np.exp(-best))) and found.p_gold == pytest.approx(
        1 / (1 + np.exp(-gold))
    )
    asked = said is not None and found.p_best <= 0.55
    assert (found.judge_votes is not None) == asked and (found.attributes is not None) == asked
    json.dumps(found.to_json())


def test_only_what_the_best_model_doubts_is_judged() -> None:
    gaps = {0.6: 1, 0.3: 2, 0.1: 3, -0.1: 4, -3.0: 5}  # p: .646 .574 .525 .475 .047
    for band, expected in ((0.0, {4, 5}), (0.05, {3, 4, 5}), (0.1, {2, 3, 4, 5}), (0.5, {1, 2, 3, 4, 5})):
        seen: list[int] = []

        def judge(pairs: Sequence[Pair], p: np.ndarray, seen: list[int] = seen) -> list[Judged]:
            seen += [int(one.prompt[0]["content"]) for one in pairs]
            assert np.all(p <= 0.5 + 0.5) and len(p) == len(pairs)
            return [Judged(CommitteeVote("a", ())) for _ in pairs]

        ConsistencyFilter(Model(0), Model(1), judge, band)([pair(gap, 1, number) for gap, number in gaps.items()])
        assert set(seen) == expected


def test_a_committee_can_be_the_judge() -> None:
    def other(prompt: Any, a: Any, b: Any, **given: Any) -> str:
        return "a" if a[0]["content"] == "0 0" else "b"

    found = ConsistencyFilter(Model(0), Model(1), JudgeCommittee([other], 2))([pair(-1, -1), pair(3, 1)])
    assert [one.decision for one in found] == ["relabel", "keep"]
    assert found[0].judge_votes is not None and found[0].judge_votes["b"] == 1


def test_a_decision_does_not_depend_on_the_other_pairs() -> None:
    pairs = [pair(a, b) for a in (-1.0, 0.0, 2.0) for b in (-1.0, 0.0, 2.0)]
    decide_all = ConsistencyFilter(Model(0), Model(1))
    assert decide_all(pairs) == [decide_all([one])[0] for one in pairs] and decide_all([]) == []


def test_decisions_turn_labels() -> None:
    one = pair(1, 1)
    kept, turned = Decision("keep", "x").apply(one), one.swapped()
    assert kept == one and Decision("drop", "x").apply(one) is None
    assert Decision("flip", "x").apply(one) == Decision("relabel", "x").apply(one) == turned
    assert recycle([one]) == [turned] and recycle([]) == []


def test_probabilities() -> None:
    model = Model(0)
    found = pair_probabilities(model, [pair(0, 0), pair(np.log(3), 0)])
    assert np.allclose(found, [0.5, 0.75]) and found.dtype == np.float64 and model.calls == 1
    assert pair_probabilities(model, []).shape == (0,) and model.calls == 1
    with pytest.raises(GuerdonError, match="pair 1: .*not finite"):
        pair_probabilities(model, [pair(0, 0), pair(float("inf"), 0)])


def test_pictures_reach_the_model() -> None:
    seen: list[Any] = []

    class Looking:
        def score(self, conversations: Sequence[Any], images: Any) -> list[float]:
            seen.extend(images)
            return [0.0] * len(conversations)

    shown = Image.new("RGB", (2, 2))
    one = pair(0, 0)
    pair_probabilities(Looking(), [Pair(one.prompt, one.chosen, one.rejected, (shown,)), one])
    assert seen == [(shown,), (shown,), (), ()]


def test_band_is_checked() -> None:
    with pytest.raises(GuerdonError, match="band"):
        ConsistencyFilter(Model(0), Model(1), band=0.6)
