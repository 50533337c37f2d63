"""A rule where there is one and a reward model elsewhere; and a pairwise judge as a scalar reward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import expit

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import name_of
from guerdon.core.outcome import Failed, Scores
from guerdon.core.reward import Reward
from guerdon.rewards.composite import Combined, Composite, Floats, broken, numbers

Scheme = Literal["all_ordered_pairs", "one_order"]
SCHEMES: tuple[str, ...] = get_args(Scheme)
CEILING = 1 - 1e-6
SATURATED = 0.99


class HybridReward(Composite):
    """R(y) = 1 if the rule says that y is right, else squash(r(y)), which is always below 1.

    rule:     1 (or more) where an answer matches the ground truth, 0 where it does not, None where there is no ground
              truth: the reward model then decides alone.
    rm:       a reward of any scale.
    squash:   from scores [n] to (0, 1), growing; default the sigmoid.
    offset:   None: r as it is. m in [0, 1): a running mean of r, moved by a share 1 - m each batch, is subtracted
              first, since a reward model is only defined up to a constant. A sample's score then depends on what was
              scored before it; ``centre`` holds the mean, to be kept with a checkpoint.

    Use it within groups of one prompt: prompts with ground truth reach 1 more easily than those without. The parts
    "<rule>", "<rm>", "squashed" and "saturated" are logged; the mean of the last is the share of scores that squash
    puts within 0.01 of an end, where all answers look alike. A row that the rule settles needs no score by the model.

    Source: BaseReward (arXiv 2509.16127), section 5.4: the sigmoid, no offset. The offset is ours.
    """

    def __init__(
        self,
        rule: Reward,
        rm: Reward,
        *,
        squash: Callable[[Floats], Floats] = expit,
        offset: float | None = None,
        name: str = "hybrid",
    ) -> None:
        if offset is not None and not 0 <= offset < 1:
            raise GuerdonError(f"reward {name!r}: offset must lie in [0, 1) or be None, got {offset}")
        self._rule, self._rm = name_of(rule), name_of(rm)
        if self._rule == self._rm:
            raise GuerdonError(f"reward {name!r}: rule and reward model are both named {self._rm!r}")
        self.squash, self.offset = squash, offset
        self.centre: float | None = None
        label = getattr(squash, "__name__", type(squash).__name__)
        super().__init__(name, {self._rule: rule, self._rm: rm}, {"squash": label, "offset": offset}, bounds=(0.0, 1.0))

    def _score_parts(self, prompts: Sequence[Any], completions: Any, columns: Mapping[str, Any]) -> dict[str, Scores]:
        scored = super()._score_parts(prompts, completions, columns)
        squashed, valid = self._squashed(scored[self._rm]), scored[self._rm].valid
        ends = (squashed > SATURATED) | (squashed < 1 - SATURATED)
        # Scored here and not in _combine, so that the running mean moves once a batch and is logged with its effect.
        return {**scored, "squashed": Scores(squashed, valid), "saturated": Scores(ends.astype(float), valid)}

    def _squashed(self, rm: Scores) -> Floats:
        values = numbers(rm)
        if self.offset is not None and rm.valid.any():
            mean = float(values[rm.valid].mean())
            self.centre = mean if self.centre is None else self.offset * self.centre + (1 - self.offset) * mean
            values = values - self.centre
        return np.clip(np.asarray(self.squash(values), dtype=np.float64), 0.0, CEILING)

    def _combine(self, scored: Mapping[str, Scores], prompts: Sequence[Any], columns: Mapping[str, Any]) -> Combined:
        rule, rm, squashed = scored[self._rule], scored[self._rm], scored["squashed"]
        right = rule.valid & (numbers(rule) >= 1)
        failed = broken(rule) | (broken(rm) & ~right)
        return Combined(np.where(right, 1.0, numbers(squashed)), (right | rm.valid) & ~failed, failed)


def pairwise_to_scalar(
    judge: Callable[[Any, Any], Any], responses: Sequence[Any], scheme: Scheme = "all_ordered_pairs"
) -> list[float | Failed]:
    """R(y_i) = sum over j != i of S(y_i, y_j): how often, by a pairwise judge, a response beats the others of a group.

    judge:      ``judge(first, second) -> S`` in [0, 1]: 1 the first is better, 0 the second, 0.5 neither; or Failed.
    responses:  the G responses to one prompt.
    scheme:     "all_ordered_pairs": G (G - 1) calls. A judge that favours the first place does so for every response,
                and the favour cancels within the group. "one_order": half of the calls, S(y_j, y_i) = 1 - S(y_i, y_j)
                for i < j; what the judge grants to the first place stays, in favour of the earlier responses.
    Returns:
        G sums in [0, G - 1]; Failed for a response with a comparison that failed.
    Raises:
        GuerdonError: an unknown scheme, or a judge that gives anything else than a number in [0, 1].
    Source: BaseReward (arXiv 2509.16127), section 5.4 (its use of R1-Reward in GRPO; 56 calls for G = 8).
    """
    if scheme not in SCHEMES:
        raise unknown("scheme", scheme, SCHEMES)
    sums: list[float | Failed] = [0.0] * len(responses)

    def credit(place: int, won: float | Failed) -> None:
        have = sums[place]
        if not isinstance(have, Failed):
            sums[place] = won if isinstance(won, Failed) else have + won

    for i, first in enumerate(responses):
        for j, second in enumerate(responses):
            if i == j or (scheme == "one_order" and j < i):
                continue
            won = judge(first, second)
            if not isinstance(won, Failed):
                won = _preference(won)
            credit(i, won)
            if scheme == "one_order":
                credit(j, won if isinstance(won, Failed) else 1.0 - won)
    return sums


def _preference(value: Any) -> float:
    if not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise GuerdonError(f"a pairwise judge must give a number in [0, 1] or Failed, got {value!r}")
    return float(value)
