"""Does a label agree with two reward models and, where they doubt it, with judges? Keep, relabel, flip or drop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair
from guerdon.curation.committee import Case, CommitteeVote, JudgeCommittee

__all__ = ["BAND", "ConsistencyFilter", "Decision", "Judged", "Verb", "pair_probabilities", "recycle"]

BAND = 0.05
Verb = Literal["keep", "relabel", "flip", "drop"]


@dataclass(frozen=True)
class Judged:
    """A committee's vote on a pair (a is chosen, b is rejected) with the attributes that the judges were told."""

    vote: CommitteeVote
    attributes: dict[str, Any] | None = None


Judging = Callable[[Sequence[Pair], NDArray[np.float64]], Sequence[Judged]]
"""Pairs and their p under the best reward model -> one judgement each."""


@dataclass(frozen=True)
class Decision:
    """What becomes of a pair, with its evidence.

    keep: its label stands. relabel: judges gave it a label, the other one. flip: reward models alone say it is wrong.
    drop: nobody can tell. p_best, p_gold: sigmoid(r(chosen) - r(rejected)), None where not measured. judge_votes:
    `CommitteeVote.to_json`, a = chosen. provenance: who decided.
    """

    decision: Verb
    provenance: str
    p_best: float | None = None
    p_gold: float | None = None
    judge_votes: dict[str, Any] | None = None
    attributes: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The evidence as the columns of a row."""
        return asdict(self)

    def apply(self, pair: Pair) -> Pair | None:
        """The pair with its decided label; None where it was dropped."""
        if self.decision == "drop":
            return None
        return pair if self.decision == "keep" else pair.swapped()


def pair_probabilities(model: Any, pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """P(chosen is better) = sigmoid(r(chosen) - r(rejected)) under a reward model, float64 [N] in [0, 1].

    model: anything with ``score(conversations)`` -> [N], called once; where pairs show pictures, with ``images=``.

    Raises GuerdonError naming the pair for a score that is not finite.
    """
    if not pairs:
        return np.zeros(0)
    told = [side for pair in pairs for side in (pair.conversation("chosen"), pair.conversation("rejected"))]
    shown = [pair.images for pair in pairs for _ in range(2)]
    given = {"images": shown} if any(shown) else {}
    scores = np.asarray(model.score(told, **given), dtype=np.float64).reshape(-1, 2)
    wrong = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(wrong):
        where = pairs[wrong[0]].where or f"pair {wrong[0]}"
        raise GuerdonError(f"{where}: the reward model's scores are not finite: {scores[wrong[0]].tolist()}")
    return expit(scores[:, 0] - scores[:, 1])


class ConsistencyFilter:
    """The two filters of stage 2, pair by pair; nothing depends on the other pairs.

    best_rm, gold_rm:  reward models with ``score(conversations)``: the best one so far, and one that was trained on
                       human-verified pairs alone. "Agrees" means p > 1/2, which is no high confidence.
    judge:             a `JudgeCommittee`, or a callable of (pairs, p_best) -> `Judged`; None: reward models only.
    band:              pairs with p_best > 1/2 + band are not put to the judges (filter A). The paper says "close to
                       0.5"; its width is ours.

    keep:     gold agrees, and best or judges agree (filter B).
    relabel:  the judges prefer the rejected answer, and gold does too.
    flip:     both models prefer the rejected answer, and no judge says otherwise.
    drop:     else. The paper drops flips as well, and recycles all that is dropped (`recycle`); telling them apart is
              ours: what both models call wrong mostly is.

    A dropped pair is not proven wrong, and filter and student may share their biases (the paper's appendix A).
    Source: Skywork-Reward-V2 (arXiv 2507.01352), section 3, stage 2.
    """

    def __init__(
        self, best_rm: Any, gold_rm: Any, judge: JudgeCommittee | Judging | None = None, band: float = BAND
    ) -> None:
        if not 0 <= band <= 0.5:
            raise GuerdonError(f"band must lie in [0, 0.5]; got {band}")
        self.best_rm, self.gold_rm, self.band = best_rm, gold_rm, band
        self.judge = _plainly(judge) if isinstance(judge, JudgeCommittee) else judge

    def __call__(self, pairs: Sequence[Pair]) -> list[Decision]:
        """One decision a pair."""
        best, gold = pair_probabilities(self.best_rm, pairs), pair_probabilities(self.gold_rm, pairs)
        judged: dict[int, Judged] = {}
        if self.judge is not None:
            doubted = np.flatnonzero(best <= 0.5 + self.band).tolist()
            found = self.judge([pairs[row] for row in doubted], best[doubted])
            judged = dict(zip(doubted, found, strict=True))
        return [_decided(float(best[row]), float(gold[row]), judged.get(row)) for row in range(len(pairs))]


def _decided(best: float, gold: float, judged: Judged | None) -> Decision:
    vote = None if judged is None else judged.vote
    side = None if vote is None else vote.winner
    failed = vote is not None and vote.failure is not None
    who = "gold" if vote is None else "gold; judges failed" if failed else "gold, judges"
    verb: Verb
    if gold > 0.5 and (best > 0.5 or side == "a"):
        verb, by = "keep", "gold and best models" if best > 0.5 else "gold model and judges"
    elif gold < 0.5 and side == "b":
        verb, by = "relabel", "judges and gold model"
    elif gold < 0.5 and best < 0.5 and side is None:
        verb, by = "flip", "gold and best models"
    else:
        verb, by = "drop", f"no agreement (best, {who})"
    return Decision(
        verb, f"stage 2: {by}", best, gold,
        None if vote is None else vote.to_json(), None if judged is None else judged.attributes,
    )  # fmt: skip


def _plainly(committee: JudgeCommittee) -> Judging:
    return lambda pairs, _: [Judged(vote) for vote in committee.votes(Case(pair) for pair in pairs)]


def recycle(discarded: Sequence[Pair]) -> list[Pair]:
    """The discarded pairs with their labels turned round, and no further check.

    Nobody verified them: the authors keep the model that was trained on theirs for research. Source: Skywork-Reward-V2
    (arXiv 2507.01352), section 3.
    """
    return [pair.swapped() for pair in discarded]
