"""A committee of judges over pairs of answers: each agrees with itself over samples in both orders, then they vote."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.preferences import Message, Pair
from guerdon.models.text_judge import Answer, Side, TextVerdict, judge_name

__all__ = ["Ballot", "Case", "CommitteeVote", "JudgeCommittee", "tallies"]

SAMPLES = 8
_OTHER: dict[Side | None, Side | None] = {"a": "b", "b": "a", None: None}


@dataclass(frozen=True)
class Ballot:
    """What one judge said of one pair, places undone.

    a, b, tie, failed:  how many of its samples. first: how many preferred the answer that was shown first; half of
    a + b for a judge without a favourite place. winner: None where it abstains. cause: why it failed, if it did.
    """

    judge: str
    a: int
    b: int
    tie: int
    failed: int
    first: int
    winner: Side | None
    cause: str | None = None


@dataclass(frozen=True)
class CommitteeVote:
    """The vote on one pair: ``winner`` "a", "b" or None (abstained), and every judge's ballot. ``failure`` is set where
    not one judge gave a judgement; the winner is None then, and no abstention."""

    winner: Side | None
    ballots: tuple[Ballot, ...]
    failure: Failed | None = None

    @property
    def tally(self) -> dict[str, int]:
        """How many judges voted a, voted b, abstained, failed."""
        count = Counter("failed" if ballot.cause else ballot.winner or "abstained" for ballot in self.ballots)
        return {name: count[name] for name in ("a", "b", "abstained", "failed")}

    def to_json(self) -> dict[str, Any]:
        """winner, tally and ballots as a JSON object."""
        return {"winner": self.winner, **self.tally, "ballots": [asdict(ballot) for ballot in self.ballots]}


@dataclass(frozen=True)
class Case:
    """A pair for judges (chosen is a, rejected is b) with what they are to judge it by."""

    pair: Pair
    guideline: str | None = None
    examples: Sequence[Pair] = ()


class JudgeCommittee:
    """Several judges, each asked ``n_samples`` times in random order, then one vote each.

    judges:     callables as in `guerdon.models.text_judge`; a deterministic one is asked once in each order.
    n_samples:  of each judge, at least 2: both orders are shown, equally often or, for an odd number, nearly so.
    seed:       of orders and samples. They depend on it and on the pair alone, not on what was judged before, so that a
                run which is continued judges as one that was never stopped.
    majority:   the share that a judge's samples, and then the votes of the judges, must exceed, in [1/2, 1).

    A judge's share for a is the mean of its shares in either order, ties counting half, so that a judge who always
    prefers the first place has exactly 1/2 and abstains. Where the vote is tied the committee abstains. Presenting the
    pair the other way round mirrors the vote exactly.

    Source: Skywork-Reward-V2 (arXiv 2507.01352), section 3 (random order, self-consistency, vote across models). Sample
    number, both orders for each judge, and abstention on ties are ours; the paper does not say.
    """

    def __init__(
        self, judges: Sequence[TextVerdict], n_samples: int = SAMPLES, seed: int = 0, *, majority: float = 0.5
    ) -> None:
        if not judges:
            raise GuerdonError("a committee needs at least one judge")
        if n_samples < 2:
            raise GuerdonError(f"n_samples must be at least 2, one in each order; got {n_samples}")
        if not 0.5 <= majority < 1:
            raise GuerdonError(f"majority must lie in [0.5, 1); got {majority}")
        self.judges, self.n_samples, self.seed, self.majority = list(judges), n_samples, seed, Fraction(majority)

    def vote(
        self,
        prompt: Sequence[Message],
        answer_a: Answer,
        answer_b: Answer,
        *,
        guideline: str | None = None,
        examples: Sequence[Pair] = (),
    ) -> CommitteeVote:
        """The committee's vote; equal answers are never shown to anybody, the vote on them is an abstention."""
        one, other = _key(answer_a), _key(answer_b)
        if one == other:
            return CommitteeVote(None, ())
        # One fixed way round, whichever way they came.
        mirrored = one > other
        x, y = (answer_b, answer_a) if mirrored else (answer_a, answer_b)
        pair = f"{_key(prompt)}\0{min(one, other)}\0{max(one, other)}"
        key = int.from_bytes(hashlib.sha256(pair.encode("utf-8", "surrogatepass")).digest()[:8])
        ballots = []
        for place, judge in enumerate(self.judges):
            rng = np.random.default_rng([self.seed, place, key])
            ballot = self._ballot(judge, prompt, x, y, rng, dict(guideline=guideline, examples=examples))
            ballots.append(_mirrored(ballot) if mirrored else ballot)
        return self._counted(ballots)

    def votes(self, cases: Iterable[Case], *, workers: int = 1) -> Iterator[CommitteeVote]:
        """One vote a case, in their order; with ``workers`` > 1 in threads, and every judge must be thread-safe."""

        def one(case: Case) -> CommitteeVote:
            pair = case.pair
            return self.vote(
                pair.prompt, pair.chosen, pair.rejected, guideline=case.guideline, examples=case.examples
            )  # fmt: skip

        if workers <= 1:
            yield from map(one, cases)
            return
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(one, cases)

    def _ballot(
        self,
        judge: TextVerdict,
        prompt: Sequence[Message],
        x: Answer,
        y: Answer,
        rng: np.random.Generator,
        given: dict[str, Any],
    ) -> Ballot:
        samples = 2 if getattr(judge, "deterministic", False) else self.n_samples
        swapped = rng.permutation((np.arange(samples) + rng.integers(2)) % 2).astype(bool)
        counts = {False: Counter[Side | None](), True: Counter[Side | None]()}
        failures = []
        for turned in swapped.tolist():
            said = judge(prompt, *((y, x) if turned else (x, y)), rng=rng, **given)
            if isinstance(said, Failed):
                failures.append(said)
            elif said in ("a", "b", None):
                counts[turned][_OTHER[said] if turned else said] += 1
            else:
                raise GuerdonError(f"judge {judge_name(judge)!r} must say 'a', 'b' or None, not {said!r}")
        both = counts[False] + counts[True]
        first = counts[False]["a"] + counts[True]["b"]
        shares = [
            Fraction(2 * count["a"] + count[None], 2 * count.total()) for count in counts.values() if count.total()
        ]
        cause = None if len(shares) == 2 else f"{failures[0].kind}: {failures[0].cause}"
        share = sum(shares, Fraction(0)) / 2 if cause is None else Fraction(1, 2)
        return Ballot(
            judge_name(judge), both["a"], both["b"], both[None], len(failures), first, self._side(share), cause
        )

    def _side(self, share: Fraction) -> Side | None:
        return "a" if share > self.majority else "b" if 1 - share > self.majority else None

    def _counted(self, ballots: list[Ballot]) -> CommitteeVote:
        causes = [ballot.cause for ballot in ballots if ballot.cause]
        if len(causes) == len(ballots):
            return CommitteeVote(
                None, tuple(ballots), Failed(cause=f"no judge could judge: {causes[0]}", kind="judges")
            )
        votes = Counter(ballot.winner for ballot in ballots if ballot.winner)
        winner = self._side(Fraction(votes["a"], votes.total())) if votes else None
        return CommitteeVote(winner, tuple(ballots))


def tallies(votes: Iterable[CommitteeVote]) -> list[dict[str, Any]]:
    """Over many votes, a row a judge and one for the committee: how often each voted, abstained and failed.

    agrees: share of its votes that were the committee's, None without any. first: share of its decided samples that
    preferred the first place, 1/2 without a favourite place, None without any.
    """
    listed = list(votes)
    rows: dict[str, Counter[str]] = {}
    for vote in listed:
        for ballot in vote.ballots:
            row = rows.setdefault(ballot.judge, Counter())
            row["failed" if ballot.cause else "voted" if ballot.winner else "abstained"] += 1
            row["agrees"] += ballot.winner is not None and ballot.winner == vote.winner
            row["compared"] += ballot.winner is not None and vote.winner is not None
            row["first"] += ballot.first
            row["samples"] += ballot.a + ballot.b
    made = [
        {
            "judge": name, **{key: row[key] for key in ("voted", "abstained", "failed")},
            "agrees": row["agrees"] / row["compared"] if row["compared"] else None,
            "first": row["first"] / row["samples"] if row["samples"] else None,
        }
        for name, row in rows.items()
    ]  # fmt: skip
    failed = sum(vote.failure is not None for vote in listed)
    voted = sum(vote.winner is not None for vote in listed)
    whole = {"judge": "committee", "voted": voted, "abstained": len(listed) - voted - failed, "failed": failed}
    return [*made, {**whole, "agrees": None, "first": None}]


def _mirrored(ballot: Ballot) -> Ballot:
    return Ballot(
        ballot.judge, ballot.b, ballot.a, ballot.tie, ballot.failed, ballot.first, _OTHER[ballot.winner], ballot.cause
    )


def _key(messages: Answer) -> str:
    return messages if isinstance(messages, str) else json.dumps(messages, sort_keys=True, default=str)
