"""Learned rewards side by side, by their scores of several completions a prompt."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guerdon.comparisons.learned_sheet import learned_sheet
from guerdon.core.errors import GuerdonError
from guerdon.core.scorer import Scorer, score_all
from guerdon.core.sheet import Sheet
from guerdon.metrics.intervals import Interval
from guerdon.metrics.order_agreement import Agreement, agreement
from guerdon.metrics.sampled_distance import group_distance_interval, group_moments

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Disagreement:
    """Two completions of one prompt that two rewards order the other way round.

    strength: the smaller of both rewards' gaps, each in units of its usual spread within a prompt.
    """

    rewards: tuple[str, str]
    prompt: str
    first_prefers: str
    second_prefers: str
    first_scores: tuple[float, float]
    second_scores: tuple[float, float]
    strength: float


@dataclass(frozen=True)
class OneReward:
    """What one reward did with the rows.

    scored:    rows with a score; ``absent`` the others by kind ("does not apply", "failed").
    spread:    its usual deviation within a prompt, in its own units.
    within:    share of the scores' variance that lies within prompts, in [0, 1]; nan for a constant reward.
    floor:     distance between two scorings of the same rows by this reward, 0 for one that repeats itself: the
               deviation within prompts of their difference, over ``spread``; nan where it was scored once only.
    """

    scored: int
    absent: Mapping[str, int]
    spread: float
    within: float
    floor: float = math.nan
    identity: str = ""


@dataclass(frozen=True)
class PairOfRewards:
    """Two rewards: the distance of their canonical forms in [0, 2], and the agreement of their orders."""

    names: tuple[str, str]
    distance: Interval
    agreement: Agreement

    @property
    def proportional(self) -> bool:
        """Equal but for scale and an offset a prompt, on every completion seen."""
        return self.distance.value == 0


@dataclass(frozen=True)
class LearnedComparison:
    """K rewards on the same rows; ``pairs`` holds every two of them in order, ``rows`` and ``prompts`` are counts."""

    rewards: dict[str, OneReward]
    pairs: list[PairOfRewards]
    examples: list[Disagreement]
    rows: int
    prompts: int
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return list(self.rewards)

    def matrix(self, of: str) -> list[list[float]]:
        """ "distance" or "order" (agreement) of every two rewards, [K][K], with 0 or 1 on the diagonal."""
        names = self.names
        values = np.full((len(names), len(names)), 1.0 if of == "order" else 0.0)
        for pair in self.pairs:
            i, j = (names.index(name) for name in pair.names)
            values[i, j] = values[j, i] = pair.agreement.order.value if of == "order" else pair.distance.value
        return values.tolist()

    def sheet(self) -> Sheet:
        """Tables, the distances with their intervals, examples to read, and what all this guarantees."""
        return learned_sheet(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "kind": "learned",
            "rows": self.rows,
            "prompts": self.prompts,
            "facts": dict(self.facts),
            "rewards": {name: asdict(one) for name, one in self.rewards.items()},
            "pairs": [
                {"rewards": list(p.names), "distance": asdict(p.distance), **asdict(p.agreement)} for p in self.pairs
            ],
            "examples": [asdict(one) for one in self.examples],
        }


def prompt_groups(prompts: Sequence[Any]) -> list[int]:
    """The number of each row's prompt, [N]; equal prompts (texts or messages) share one, wherever they stand."""
    numbers: dict[str, int] = {}
    keys = (one if isinstance(one, str) else json.dumps(one, sort_keys=True, default=str) for one in prompts)
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def compare_scores(
    scores: Mapping[str, ArrayLike],
    prompts: Sequence[Any],
    completions: Sequence[str],
    *,
    again: Mapping[str, ArrayLike] | None = None,
    absent: Mapping[str, Mapping[str, int]] | None = None,
    identities: Mapping[str, str] | None = None,
    facts: Mapping[str, str] | None = None,
    examples: int = 10,
    resamples: int = 2000,
    seed: int = 0,
) -> LearnedComparison:
    """Compare rewards by their scores [N] of the same rows, nan where a row has none.

    prompts:      one a row, texts or messages; rows of equal prompts are compared with each other.
    completions:  what to show of each row in an example.
    again:        a second scoring, nan for rows not scored again: the floor of each reward (`OneReward.floor`).
    absent:       how many rows have no score, by kind; identities: of the rewards; facts: for the reader.

    Two rewards are compared on the rows that both score. Raises GuerdonError for fewer than two rewards, shapes, or no
    prompt with two completions that two rewards score.
    """
    if len(scores) < 2:
        raise GuerdonError(f"a comparison needs at least two rewards; got {', '.join(scores) or 'none'}")
    columns = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
    for name, values in columns.items():
        if values.shape != (len(prompts),) or len(completions) != len(prompts):
            raise GuerdonError(f"{name!r} has scores {list(values.shape)} for {len(prompts)} rows")
    groups = np.array(prompt_groups(prompts), dtype=np.int64)
    rewards = {}
    for name, values in columns.items():
        own = (absent or {}).get(name, {})
        rewards[name] = _one(values, (again or {}).get(name), groups, own, (identities or {}).get(name, ""))
    pairs, told = [], []
    for first, second in combinations(columns, 2):
        both = (columns[first], columns[second], groups)
        try:
            distance = group_distance_interval(*both, resamples=resamples, seed=seed)
            agreed = agreement(*both, resamples=resamples, seed=seed)
        except GuerdonError as error:
            raise GuerdonError(f"{first} and {second}: {error}") from None
        pairs.append(PairOfRewards((first, second), distance, agreed))
        told += _disagreements((first, second), *both, prompts, completions)
    # One example a prompt: of many rewards, several disagree over the same two completions.
    strongest: dict[str, Disagreement] = {}
    for one in sorted(told, key=lambda each: -each.strength):
        strongest.setdefault(one.prompt, one)
    told = list(strongest.values())
    return LearnedComparison(rewards, pairs, told[:examples], len(groups), len(set(groups.tolist())), facts or {})


def compare_rewards(
    rewards: Mapping[str, Any],
    prompts: Sequence[Any],
    completions: Sequence[Any],
    *,
    columns: Mapping[str, Sequence[Any]] | None = None,
    floor_rows: int = 64,
    seed: int = 0,
    **options: Any,
) -> LearnedComparison:
    """Score rows with rewards of the contract (`guerdon.core.scorer`) and compare them as `compare_scores`.

    columns: the data's other columns. floor_rows: about so many rows, drawn by ``seed``, are scored twice (0: none).
    options: examples, resamples, facts.
    """
    scorers = {name: Scorer(reward, on_failure="drop_sample") for name, reward in rewards.items()}
    try:
        found = dict(zip(scorers, score_all(list(scorers.values()), prompts, completions, **(columns or {}))))
        rows = floor_sample(prompt_groups(prompts), floor_rows, seed=seed)
        part = {key: [column[row] for row in rows] for key, column in (columns or {}).items()}
        chosen = [prompts[row] for row in rows], [completions[row] for row in rows]
        again = rescored(scorers, *chosen, part, rows, len(prompts))
    finally:
        for scorer in scorers.values():
            scorer.close()
    absent = {
        name: {"does not apply": one.counts()["not_applicable"], "failed": len(one.failures)}
        for name, one in found.items()
    }
    return compare_scores(
        {name: one.values for name, one in found.items()}, prompts, [shown(one) for one in completions], again=again,
        absent=absent, identities={name: one.identity for name, one in found.items()}, seed=seed, **options,
    )  # fmt: skip


def floor_sample(groups: Sequence[int], rows: int, *, seed: int = 0) -> list[int]:
    """Rows to score a second time: prompts with several completions in random order, whole, until there are ``rows``.

    In another order than the first time, so that a score that depends on its batch shows too; the completions of a
    prompt stand together.
    """
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    several = [own for own in members.values() if len(own) > 1]
    chosen: list[int] = []
    for place in np.random.default_rng(seed).permutation(len(several)):
        if len(chosen) >= rows:
            break
        chosen += several[place]
    return chosen


def rescored(
    scorers: Mapping[str, Scorer],
    prompts: Sequence[Any],
    completions: Sequence[Any],
    columns: Mapping[str, Sequence[Any]],
    rows: Sequence[int],
    count: int,
) -> dict[str, Scores]:
    """Scores of ``rows`` once more, [count] with nan elsewhere; the other arguments are of these rows alone."""
    again = {name: np.full(count, np.nan) for name in scorers}
    if rows:
        found = score_all(list(scorers.values()), prompts, completions, **columns)
        for name, one in zip(scorers, found, strict=True):
            again[name][list(rows)] = one.values
    return again


def shown(value: Any) -> str:
    """A prompt or completion as text: messages with their roles, a picture by its file's name."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(one, Mapping) for one in value):
        return "\n".join(f"{one.get('role', '')}: {one.get('content', '')}" for one in value)
    path = value.get("path") if isinstance(value, Mapping) else getattr(value, "filename", None)
    return f"[{path or type(value).__name__}]" if value is not None else ""


def _one(
    values: Scores, again: ArrayLike | None, groups: NDArray[np.int64], absent: Mapping[str, int], who: str
) -> OneReward:
    kept = ~np.isnan(values)
    inside = _within(values, groups)
    whole = float(np.var(values[kept], ddof=1)) if kept.sum() > 1 else 0.0
    # Both variances are estimates: the one within may come out a little above the whole.
    within = min(inside / whole, 1.0) if whole else math.nan
    moved = math.nan if again is None else _within(np.asarray(again, dtype=np.float64) - values, groups)
    # The correlation of two scorings is 1 - noise / spread^2, and their difference holds the noise twice.
    floor = min(math.sqrt(moved / inside), 2.0) if inside > 0 else math.nan
    return OneReward(int(kept.sum()), absent, math.sqrt(inside), within, floor, who)


def _within(values: Scores, groups: NDArray[np.int64]) -> float:
    """Mean variance within prompts; nan where no prompt has two scores."""
    try:
        return float(group_moments(values, values, groups).first.mean())
    except GuerdonError:
        return math.nan


def _disagreements(
    names: tuple[str, str],
    first: Scores,
    second: Scores,
    groups: NDArray[np.int64],
    prompts: Sequence[Any],
    completions: Sequence[str],
) -> list[Disagreement]:
    """The two completions of each prompt over which the rewards differ most, where they do."""
    moments = group_moments(first, second, groups)
    spreads = [math.sqrt(float(one.mean())) for one in (moments.first, moments.second)]
    if not all(spreads):
        return []
    found = []
    scored = np.flatnonzero(~(np.isnan(first) | np.isnan(second)))
    order = scored[np.argsort(groups[scored], kind="stable")]
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        one, two = (
            (side[rows][:, None] - side[rows][None, :]) / spread for side, spread in zip((first, second), spreads)
        )
        strength = np.minimum(one, -two)
        i, j = np.unravel_index(int(np.argmax(strength)), strength.shape)
        if strength[i, j] > 0:
            own, other = int(rows[i]), int(rows[j])
            found.append(
                Disagreement(
                    names, shown(prompts[own]), completions[own], completions[other],
                    (float(first[own]), float(first[other])), (float(second[own]), float(second[other])),
                    float(strength[i, j]),
                )
            )  # fmt: skip
    return found
