"""What every reward made of rewards shares: how parts are scored, masked, logged and named.

A *failed* part makes the composed score failed, and a part that "does not apply" (``None``) makes it "does not apply",
unless the operator says otherwise. Neither ever becomes a number.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guerdon.core.errors import GuerdonError
from guerdon.core.identity import config_hash, identity, name_of
from guerdon.core.outcome import Failed, Scores
from guerdon.core.reward import FailurePolicy, Reward, is_groupwise, policy_of, range_of
from guerdon.core.scorer import Scorer, score_all
from guerdon.objectives.advantages import constant_terms

log = logging.getLogger("guerdon.rewards.compose")

Term = tuple[Reward, float]
Bounds = tuple[float, float]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
UNBOUNDED: Bounds = (-math.inf, math.inf)


def group_ids(prompts: Sequence[Any], columns: Mapping[str, Any] | None = None) -> Tensor:
    """int64 [N]: the column ``group_ids`` where there is one, else one id for each different prompt.

    TRL repeats a prompt for every completion of its group; two groups of one prompt in one batch count as one.
    """
    given = (columns or {}).get("group_ids")
    if given is not None:
        return torch.as_tensor(given, dtype=torch.int64).flatten()
    seen: dict[str, int] = {}
    keys = [p if isinstance(p, str) else json.dumps(p, sort_keys=True, default=str) for p in prompts]
    return torch.tensor([seen.setdefault(key, len(seen)) for key in keys], dtype=torch.int64)


def training_step(columns: Mapping[str, Any]) -> int | None:
    """The optimiser step a reward is called at: TRL's ``trainer_state.global_step``; ``None`` outside training."""
    step = getattr(columns.get("trainer_state"), "global_step", None)
    return None if step is None else int(step)


def bounds_of(reward: Reward) -> Bounds:
    """(lowest, highest) score that a reward may give, its declared fallback included; infinite where nothing is
    declared."""
    bounds, policy = range_of(reward), policy_of(reward)
    if bounds is None or isinstance(policy, str):
        return bounds or UNBOUNDED
    return (min(bounds[0], policy), max(bounds[1], policy))


def scaled(bounds: Bounds, factor: float) -> Bounds:
    """The bounds of ``factor * score``."""
    if factor == 0:
        return (0.0, 0.0)
    low, high = bounds[0] * factor, bounds[1] * factor
    return (low, high) if factor > 0 else (high, low)


def numbers(part: Scores) -> Floats:
    """Values with 0 where invalid, so that arithmetic on masked entries stays silent; the mask decides afterwards."""
    return np.where(part.valid, part.values, 0.0)


def broken(part: Scores) -> Mask:
    """bool [n]: rows that failed and were not given a declared fallback score."""
    rows = np.zeros(len(part), dtype=bool)
    rows[list(part.failures)] = True
    return rows & ~part.valid


def named_terms(terms: Mapping[str, Term] | Sequence[Term]) -> dict[str, Term]:
    """Terms by name. Raises GuerdonError for none at all, two of one name, or a weight that is not finite."""
    pairs = (
        list(terms.items()) if isinstance(terms, Mapping) else [(name_of(reward), (reward, w)) for reward, w in terms]
    )
    if not pairs:
        raise GuerdonError("a composed reward needs at least one part")
    named = dict(pairs)
    if len(named) < len(pairs):
        twice = sorted({key for key, _ in pairs if [k for k, _ in pairs].count(key) > 1})
        raise GuerdonError(
            f"two parts are named {twice[0]!r}; pass a mapping {{name: (reward, weight)}} to tell them apart"
        )
    for key, (_, weight) in named.items():
        if not math.isfinite(weight):
            raise GuerdonError(f"the weight of reward {key!r} is {weight}; a weight is a finite number")
    return named


class Combined(NamedTuple):
    """What an operator makes of its parts: numbers [n], where they count, and the rows without one that failed."""

    values: Floats
    valid: Mask
    failed: Mask


class Composite:
    """A reward made of rewards; subclasses say in ``_combine`` how part scores become one.

    Args:
        name: the reward's name in logs.
        parts: the rewards it is made of, by the name their scores are logged under.
        settings: everything else that decides the score; part of the identity.
        bounds: (lowest, highest) score.
        groupwise: sees whole groups only; true if any part does.
    """

    version = "1"

    def __init__(
        self,
        name: str,
        parts: Mapping[str, Reward],
        settings: Mapping[str, Any],
        *,
        bounds: Bounds = UNBOUNDED,
        groupwise: bool = False,
    ) -> None:
        self.__name__ = name
        self.parts = dict(parts)
        self.settings = dict(settings)
        self._bounds = bounds
        self.range: Bounds | None = bounds if bounds != UNBOUNDED and bounds[0] < bounds[1] else None
        self.groupwise = groupwise or any(is_groupwise(r) for r in parts.values())
        # A part that is declared to raise has raised already; what is still failed here was declared to be dropped.
        drops = {policy_of(r) for r in parts.values()} & {"drop_group", "drop_sample"}
        self.on_failure: FailurePolicy = max(drops, default="raise") if len(drops) < 2 else "drop_group"
        self._scorers = PartScorers(self.parts)

    def identity(self) -> str:
        """name@version#hash over the operator, its settings and the identities of its parts."""
        config = {
            "operator": type(self).__name__,
            "settings": self.settings,
            "parts": {key: identity(r) for key, r in self.parts.items()},
        }
        return f"{self.__name__}@{self.version}#{config_hash(config)}"

    def scores(self, prompts: Sequence[Any], completions: Any, **columns: Any) -> Scores:
        """Score N samples; ``parts`` of the result holds every part (and its parts as "part/inner"), NaN where
        invalid."""  # The outermost reward logs every part under its full path; a part that logged too would be counted
        # twice.
        columns.pop("log_metric", None)
        scored = self._score_parts(prompts, completions, columns)
        values, valid, failed = self._combine(scored, prompts, columns)
        # Sums of rounded numbers leave exact bounds by an ulp, which a check of the range would take for a mistake.
        snapped = np.clip(values, *self._bounds)
        values = np.where(np.isclose(values, snapped, rtol=1e-9, atol=1e-9), snapped, values)
        failures: dict[int, Failed] = {}
        for key, part in scored.items():
            for row, failure in part.failures.items():
                # A failure that a declared fallback made a score stays on record; one behind a closed gate does not.
                if failed[row] or (valid[row] and part.valid[row]):
                    failures.setdefault(row, Failed(f"{key}: {failure.cause}", failure.kind))
        parts: dict[str, Floats] = {}
        for key, part in scored.items():
            parts[key] = part.values
            parts |= {f"{key}/{inner}": row for inner, row in part.parts.items()}
        dropped = np.logical_or.reduce([part.dropped for part in scored.values()]) & ~valid & ~failed
        return Scores(np.where(valid, values, np.nan), valid, failures, parts, self.identity(), dropped)

    def __call__(self, prompts: Sequence[Any], completions: Any, **columns: Any) -> list[float | None]:
        """N scores, ``None`` where there is none; the mean of each part goes to ``log_metric`` if TRL passes it."""
        result = self.scores(prompts, completions, **columns)
        log_metric = columns.get("log_metric")
        if callable(log_metric):
            for key, row in result.parts.items():
                if np.isfinite(row).any():
                    log_metric(f"{self.__name__}/{key}", float(np.nanmean(row)))
        return result.as_list()

    def _score_parts(self, prompts: Sequence[Any], completions: Any, columns: Mapping[str, Any]) -> dict[str, Scores]:
        return self._scorers.score(prompts, completions, columns)

    def _combine(self, scored: Mapping[str, Scores], prompts: Sequence[Any], columns: Mapping[str, Any]) -> Combined:
        raise NotImplementedError


class PartScorers:
    """Scores a batch under several named rewards; plain ones through a Scorer each, async ones awaited together."""

    def __init__(self, parts: Mapping[str, Reward]) -> None:
        self.parts = dict(parts)
        # A composite checks its own parts and sees the batch whole; its groupwise parts are handed their groups.
        self._scorers = {key: Scorer(r) for key, r in parts.items() if not isinstance(r, Composite)}

    def score(
        self, prompts: Sequence[Any], completions: Any, columns: Mapping[str, Any], keys: Sequence[str] | None = None
    ) -> dict[str, Scores]:
        """name -> Scores, in the order of the parts, of all of them or of ``keys``."""
        keys = list(self.parts) if keys is None else keys
        plain = [key for key in keys if key in self._scorers]
        found = score_all([self._scorers[key] for key in plain], prompts, completions, **columns)
        scored = dict(zip(plain, found, strict=True))
        for key in keys:
            part = self.parts[key]
            if isinstance(part, Composite):
                scored[key] = part.scores(prompts, completions, **columns)
        return {key: scored[key] for key in keys}

    def score_some(
        self, key: str, prompts: Sequence[Any], completions: Any, columns: Mapping[str, Any], rows: NDArray[np.int64]
    ) -> Scores:
        """Scores [N] of one reward that sees ``rows`` alone; the others have none."""
        n = len(prompts)
        values, valid, dropped = np.full(n, np.nan), np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        if not len(rows):
            return Scores(values, valid, identity=identity(self.parts[key]))
        kept = {name: _rows(value, rows, n) for name, value in columns.items()}
        some = self.score(_rows(prompts, rows, n), _rows(completions, rows, n), kept, [key])[key]
        values[rows], valid[rows], dropped[rows] = some.values, some.valid, some.dropped
        parts = {}
        for name, row in some.parts.items():
            parts[name] = np.full(n, np.nan)
            parts[name][rows] = row
        failures = {int(rows[index]): failure for index, failure in some.failures.items()}
        return Scores(values, valid, failures, parts, some.identity, dropped)


def _rows(values: Any, rows: NDArray[np.int64], n: int) -> Any:
    """The rows of a per-sample column; anything that is not per-sample (a state, a function) is passed on as it is."""
    if isinstance(values, list | tuple) and len(values) == n:
        return [values[row] for row in rows]
    if isinstance(values, np.ndarray | Tensor) and values.ndim and len(values) == n:
        return values[rows] if isinstance(values, np.ndarray) else values[torch.from_numpy(rows)]
    return values


class ConstantTerms:
    """Warns once for each term of a reward that has been constant within every group so far."""

    def __init__(self, owner: str, groups: int = 2) -> None:
        """``groups``: how many tied groups are more than chance; one never is."""
        self.owner, self.groups = owner, groups
        self.warned, self._varied, self._tied = set[str](), set[str](), dict[str, int]()

    def check(self, scored: Mapping[str, tuple[Floats, Mask]], groups: Tensor) -> list[str]:
        """Look at (values [N], valid [N]) of each term; log and return the names warned about for the first time."""
        found = []
        for key, (values, valid) in scored.items():
            usable = torch.from_numpy(valid)
            comparable = int((torch.unique(groups[usable], return_counts=True)[1] > 1).sum()) if valid.any() else 0
            if key in self.warned or key in self._varied or not comparable:
                continue
            if not constant_terms(torch.from_numpy(values), groups, usable):
                self._varied.add(key)
                continue
            self._tied[key] = self._tied.get(key, 0) + comparable
            if self._tied[key] >= self.groups:
                self.warned.add(key)
                found.append(key)
                log.warning(
                    "%s: term '%s' was constant within each of the first %d groups, so it cancels in the "
                    "group-relative advantage and teaches nothing",
                    self.owner,
                    key,
                    self._tied[key],
                )
        return found
