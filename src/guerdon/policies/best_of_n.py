"""Best-of-n: a policy made of a policy and a reward, by sampling n answers and keeping the one that scores highest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError
from guerdon.core.scorer import Scorer
from guerdon.policies.continuation import Sampler


@dataclass(frozen=True)
class Pick:
    """The answer kept for a prompt, the ``place``-th of its n, and the ``scores`` of all n, nan where there is none."""

    completion: Any
    place: int
    scores: NDArray[np.float64]

    @property
    def score(self) -> float:
        return float(self.scores[self.place])


class BestOfN:
    """A `Sampler` that keeps, of n samples of another, the one with the highest reward; of equal ones the first.

    sampler:  ``sampler(prompts, seed)``, given each prompt n times in a row.
    reward:   any reward of TRL's contract; a groupwise one sees the n answers together.
    n:        at least 1; 1 is the sampler itself.
    on_failure: overrides the reward's policy. An answer without a score is not kept while another has one; a prompt
                of which no answer has a score is an error, since nothing says which to keep.

    KL of the result to the sampler is at most log n - (n - 1) / n nats.
    Source: IXC-2.5-Reward (arXiv 2501.12368), section 4.3, with n = 4. Raises GuerdonError for n < 1.
    """

    def __init__(self, sampler: Sampler, reward: Callable[..., Any], n: int, *, on_failure: Any = None) -> None:
        if n < 1:
            raise GuerdonError(f"best-of-n needs n >= 1, got {n}")
        self.sampler, self.n = sampler, n
        self._scorer = Scorer(reward, group_size=n, on_failure=on_failure)

    def __call__(self, prompts: Sequence[Any], seed: int = 0, **columns: Sequence[Any]) -> list[Any]:
        """The answers kept, one a prompt; ``columns`` are the data's own, one entry a prompt, for the reward."""
        return [pick.completion for pick in self.picks(prompts, seed, **columns)]

    def picks(self, prompts: Sequence[Any], seed: int = 0, **columns: Sequence[Any]) -> list[Pick]:
        """`Pick` of each prompt, with all scores."""
        asked = [prompt for prompt in prompts for _ in range(self.n)]
        completions = list(self.sampler(asked, seed))
        if len(completions) != len(asked):
            raise GuerdonError(f"the sampler gave {len(completions)} completions to {len(asked)} prompts")
        return self.choose(prompts, completions, **columns)

    def choose(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]) -> list[Pick]:
        """`Pick` of each prompt from n completions that are there already, those of one prompt next to each other."""
        if not prompts:
            return []
        asked = [prompt for prompt in prompts for _ in range(self.n)]
        if len(completions) != len(asked):
            raise GuerdonError(
                f"{len(prompts)} prompts need {len(asked)} completions, {self.n} each: {len(completions)}"
            )
        spread = {name: [value for value in values for _ in range(self.n)] for name, values in columns.items()}
        found = self._scorer.score(asked, list(completions), **spread)
        table = found.values.reshape(len(prompts), self.n)
        picked = []
        for row, scores in enumerate(table):
            if np.isnan(scores).all():
                raise GuerdonError(f"prompt {row}: none of its {self.n} completions has a score by {self._scorer.name}")
            place = int(np.nanargmax(scores))
            picked.append(Pick(completions[row * self.n + place], place, scores))
        return picked


def best_of_n(sampler: Sampler, reward: Callable[..., Any], n: int, **options: Any) -> BestOfN:
    """`BestOfN`, as a function of a policy that gives a better one; ``options`` as in the class."""
    return BestOfN(sampler, reward, n, **options)
