"""Labels by a committee that is shown how people labelled similar pairs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.preferences import Pair
from guerdon.curation.attributes import AttributeGenerator, Attributes, attributes_of
from guerdon.curation.cleaning import pair_key
from guerdon.curation.committee import Ballot, Case, CommitteeVote, JudgeCommittee
from guerdon.curation.consistency import Judged
from guerdon.curation.decisions import JsonLines
from guerdon.curation.retrieval import PairRetriever, adaptive_k
from guerdon.models.text_judge import Side, TextVerdict, judge_name

__all__ = ["AttributeBook", "Ceiling", "Labeller", "Person"]


class Ceiling:
    """Stops a run in which failures are the rule: more than ``rate`` of the last 200 attempts, of 20 at least."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._recent: deque[Failed | None] = deque(maxlen=200)

    def count(self, what: str, outcomes: Sequence[Failed | None]) -> None:
        """One entry an attempt, None where it went well. Raises GuerdonError above the ceiling."""
        self._recent.extend(outcomes)
        causes = [failure.cause for failure in self._recent if failure is not None]
        if len(self._recent) >= 20 and len(causes) > self.rate * len(self._recent):
            told = f"{len(causes)} of the last {len(self._recent)} attempts failed; the last: {causes[-1]}"
            raise GuerdonError(f"{what}: {told}; what was decided before is kept, and the run can be resumed")


class AttributeBook:
    """The attributes of pairs, generated once each and kept in a file; a pair's own column ``attributes`` goes first.

    generator: None: only what the pairs bring along. A pair whose attributes could not be made has None.
    """

    def __init__(self, generator: AttributeGenerator | None, path: Path | None, ceiling: Ceiling) -> None:
        self.generator, self._ceiling, self._lines = generator, ceiling, JsonLines(path)
        self._known = {
            row["pair"]: None if row["attributes"] is None else attributes_of(row["attributes"])
            for row in self._lines.rows
        }

    def __call__(self, pairs: Sequence[Pair], each: Callable[[], Any] = lambda: None) -> list[Attributes | None]:
        """One entry a pair; ``each`` is called for every pair."""
        made = []
        for pair in pairs:
            made.append(self._of(pair))
            each()
        return made

    def _of(self, pair: Pair) -> Attributes | None:
        if pair.row.get("attributes"):
            return attributes_of(pair.row["attributes"])
        if self.generator is None:
            return None
        key = pair_key(pair)
        if key not in self._known:
            made = self.generator(pair)
            self._ceiling.count("attributes", [made if isinstance(made, Failed) else None])
            self._known[key] = None if isinstance(made, Failed) else made
            told = {"cause": made.cause} if isinstance(made, Failed) else {}
            known = self._known[key]
            self._lines.add([{"pair": key, "attributes": None if known is None else known.to_json(), **told}])
        return self._known[key]


class Labeller:
    """A committee that is told each pair's attributes and shown the most similar human-labelled pairs.

    How many of these follows from how well the reward model does on the pair (`adaptive_k`, at most ``k_max``).
    Source: Skywork-Reward-V2 (arXiv 2507.01352), section 3, preference-aware labelling.
    """

    def __init__(
        self,
        committee: JudgeCommittee,
        retriever: PairRetriever,
        book: AttributeBook,
        ceiling: Ceiling,
        *,
        k_max: int = 8,
        workers: int = 1,
    ) -> None:
        self.committee, self.retriever, self.book, self.ceiling = committee, retriever, book, ceiling
        self.k_max, self.workers = k_max, workers
        self._gold: list[Pair] = []

    def learn(self, gold: Sequence[Pair]) -> None:
        """Take these human-labelled pairs for examples from now on."""
        known = self.book(gold)
        self._gold = [
            pair if a is None else replace(pair, row={**pair.row, "attributes": a.to_json()})
            for pair, a in zip(gold, known, strict=True)
        ]
        self.retriever.fit(gold, known)

    def __call__(self, pairs: Sequence[Pair], p: NDArray[np.float64]) -> list[Judged]:
        """One judgement a pair; p in [0, 1] is each pair's probability under the reward model."""
        known = self.book(pairs)
        near = self.retriever.nearest(pairs, [adaptive_k(float(value), self.k_max) for value in p], known)
        cases = [
            Case(pair, None if a is None else a.instruction, [self._gold[place] for place in places])
            for pair, a, places in zip(pairs, known, near, strict=True)
        ]
        votes = list(self.committee.votes(cases, workers=self.workers))
        self.ceiling.count("judging", [vote.failure for vote in votes])
        return [Judged(v, None if a is None else a.to_json()) for v, a in zip(votes, known, strict=True)]


class Person:
    """Somebody who is asked once a pair, in random order, with its attributes; a judge in all else."""

    def __init__(self, judge: TextVerdict, book: AttributeBook, seed: int) -> None:
        self.judge, self.book, self.seed = judge, book, seed

    def __call__(self, pair: Pair) -> Judged:
        """The person's vote: a is chosen, b is rejected; places undone."""
        known = self.book([pair])[0]
        rng = np.random.default_rng([self.seed, int(pair_key(pair), 16)])
        turned = bool(rng.random() < 0.5)
        shown = (pair.rejected, pair.chosen) if turned else (pair.chosen, pair.rejected)
        said = self.judge(pair.prompt, *shown, guideline=None if known is None else known.instruction, rng=rng)
        told = None if known is None else known.to_json()
        name = judge_name(self.judge)
        if isinstance(said, Failed):
            ballot = Ballot(name, 0, 0, 0, 1, 0, None, f"{said.kind}: {said.cause}")
            return Judged(CommitteeVote(None, (ballot,), said), told)
        winner: Side | None = said if not turned or said is None else "b" if said == "a" else "a"
        ballot = Ballot(name, int(winner == "a"), int(winner == "b"), int(winner is None), 0, int(said == "a"), winner)
        return Judged(CommitteeVote(winner, (ballot,)), told)
