"""Preference strength: how strongly an ensemble of reward models holds each pair's chosen answer for the better one.

The columns are those of fnlp/hh-rlhf-strength-cleaned. Source: Secrets of RLHF II (arXiv 2401.06080), section 2.2.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guerdon.core.data import find_source, read_rows
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Message, Pair, as_messages
from guerdon.core.progress import Progress
from guerdon.core.runs import RunFolder

MEAN, STD = "mean preference difference", "std preference difference"
CHOSEN, REJECTED = "chosen score list", "rejected score list"
JUDGE = "GPT4 label"
"""1 = GPT-4 prefers the chosen answer, 0 = the rejected, -1 = not asked; in the validation split only."""

Floats = NDArray[np.float64]


class Scorer(Protocol):
    """Anything with ``score(conversations) -> [N]``; pairs with pictures also pass ``images=``, one tuple each."""

    def score(self, conversations: Sequence[list[Message]], **options: Any) -> Any: ...


Train = Callable[[list[Pair], int], Scorer]
"""``train(pairs, seed) -> reward model``, every random choice from the seed and each pair seen at most once."""


def preference_strength(chosen: ArrayLike, rejected: ArrayLike) -> tuple[Floats, Floats]:
    """mu_i = mean over models of d = r(chosen) - r(rejected), and its population deviation (divided by M, not M - 1).

    Args:
        chosen, rejected: scores [M, N] of N pairs by M >= 1 models, in reward units.
    Returns:
        (mean [N], deviation [N] >= 0), float64. Below 0 the ensemble holds the label for wrong.
    Raises:
        ValueError: not two equal [M, N], no model or pair, or a score that is not finite.
    Source: Secrets of RLHF II (arXiv 2401.06080), eqs. 3-4.
    """
    first, second = np.asarray(chosen, dtype=np.float64), np.asarray(rejected, dtype=np.float64)
    if first.ndim != 2 or first.shape != second.shape or not first.size:
        raise ValueError(f"scores must be two equal [M, N], got {list(first.shape)} and {list(second.shape)}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("scores must be finite")
    gaps = first - second
    return gaps.mean(axis=0), gaps.std(axis=0)


@dataclass(frozen=True, eq=False)
class Strength:
    """Scores [M, N] of M models on N pairs, float64."""

    chosen: Floats
    rejected: Floats

    @cached_property
    def mean(self) -> Floats:
        """mu [N], see `preference_strength`."""
        return preference_strength(self.chosen, self.rejected)[0]

    @cached_property
    def std(self) -> Floats:
        """Deviation over the models [N], see `preference_strength`."""
        return preference_strength(self.chosen, self.rejected)[1]

    def annotate(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The pairs with the four columns in their ``row``, ready for ``to_row``. Raises ValueError for another N."""
        if len(pairs) != self.chosen.shape[1]:
            raise ValueError(f"{len(pairs)} pairs do not go with the strength of {self.chosen.shape[1]}")
        columns = zip(self.mean.tolist(), self.std.tolist(), self.chosen.T.tolist(), self.rejected.T.tolist())
        names = (MEAN, STD, CHOSEN, REJECTED)
        return [replace(pair, row={**pair.row, **dict(zip(names, values))}) for pair, values in zip(pairs, columns)]

    @classmethod
    def of_pairs(cls, pairs: Sequence[Pair]) -> Strength:
        """The scores that the pairs' columns hold. Raises GuerdonError naming a pair without them, or with others."""
        if not pairs:
            raise GuerdonError("there are no pairs to read a strength from")
        lists: dict[str, list[list[float]]] = {CHOSEN: [], REJECTED: []}
        for number, pair in enumerate(pairs):
            for name, rows in lists.items():
                scores = pair.row.get(name)
                if not isinstance(scores, list | tuple) or not scores or not all(map(_is_finite, scores)):
                    raise GuerdonError(f"{pair.where or number}: column {name!r} must list one score a model")
                rows.append([float(score) for score in scores])
                if len(scores) != len(lists[CHOSEN][0]):
                    expected = len(lists[CHOSEN][0])
                    raise GuerdonError(
                        f"{pair.where or number}: column {name!r} has {len(scores)} scores, not {expected}"
                    )
        return cls(np.array(lists[CHOSEN]).T, np.array(lists[REJECTED]).T)


def ensemble_strength(
    pairs: Sequence[Pair],
    train: Train,
    *,
    members: int = 10,
    seed: int = 0,
    folder: RunFolder | None = None,
    progress: Callable[[int, str], Progress[Any]] | None = None,
) -> Strength:
    """Train reward models on the same pairs in different orders only, and score those pairs with each.

    Args:
        pairs: to train on and to score.
        train: called as ``train(pairs in the member's order, seed)``, with the same seed for each member, so that
            models differ by nothing but the order. It must make AT MOST ONE pass: in a second one a model learns wrong
            labels by heart and no longer disagrees with them (figures 7 and 19 of the paper). This cannot be seen from
            here, so it is the caller's to keep.
        members: M, 10 in the paper.
        seed: of orders and of ``train``.
        folder: each member's scores are kept in it when it is done; a later call with the same pairs and seed takes
            them from there, also when more members are asked for.
        progress: makes a bar, as `guerdon.core.progress.progress` does.
    Returns:
        `Strength` [members, N], rows of pairs in the order given.
    Raises:
        GuerdonError: fewer than 1 member, no pairs, scores of a wrong number or not finite, or a folder that holds the
            scores of other pairs or of another seed.
    Source: Secrets of RLHF II (arXiv 2401.06080), section 2.2 (M = 10, one epoch).
    """
    if members < 1 or not pairs:
        raise GuerdonError(f"an ensemble needs at least one member and one pair, got {members} and {len(pairs)}")
    scores: list[Floats] = []
    key = {"pairs": _fingerprint(pairs), "seed": seed}
    bar = progress(members, "preference strength") if progress is not None else None
    with bar or nullcontext():
        for member in range(members):
            stage = f"strength-{member:02d}"
            if folder is not None and folder.stage_done(stage):
                kept = folder.stage_result(stage)
                if kept["key"] != key:
                    raise GuerdonError(f"{folder.path} holds the strength of other pairs or of another seed")
                scores.append(np.array(kept["scores"]))
            else:
                order = np.random.default_rng([seed, member]).permutation(len(pairs))
                model = train([pairs[place] for place in order], seed)
                scores.append(_scored(model, pairs, member))
                if folder is not None:
                    folder.mark_done(stage, {"key": key, "scores": scores[-1]})
            if bar is not None:
                bar.advance(member=member)
    both = np.stack(scores)
    return Strength(both[:, 0], both[:, 1])


def load_strength_pairs(
    path: str | Path, *, split: str = "train", skip_bad_rows: bool = False, limit: int | None = None
) -> list[Pair]:
    """Pairs in the layout of fnlp/hh-rlhf-strength-cleaned; `Strength.of_pairs` then gives their strength.

    ``chosen`` and ``rejected`` are lists of turns, strings whose speakers alternate and of which the last is the
    assistant's answer (a leading "Human:" or "Assistant:" is taken off), or messages. The strength's columns are
    checked and stay in ``row``, with `JUDGE` where there is one.

    path, split, skip_bad_rows, limit: as for `guerdon.core.preferences.load_pairs`. Raises GuerdonError naming together
    all rows that cannot be used: empty or equal answers, different histories, score lists that differ in length, a mean
    that is not the mean of its list's differences, a judge's label other than 1, 0 and -1.
    """
    found: dict[int, Pair] = {}

    def check(row: dict[str, Any]) -> str | None:
        try:
            found[id(row)] = _pair(row)
        except ValueError as error:
            return str(error)
        return None

    source = find_source(path, split)
    required = ("chosen", "rejected", MEAN, STD, CHOSEN, REJECTED)
    rows = read_rows(
        source, required=required, skip_bad_rows=skip_bad_rows, limit=limit, check=check, every_column=True
    )
    return [replace(found[id(row)], where=where) for where, row in rows]


@dataclass(frozen=True)
class StrengthBin:
    """Pairs of one stretch of the strength: their number, mean mu and deviation, and the mean of what was measured."""

    count: int
    mean: float
    std: float
    outcome: float


def by_strength(mean: ArrayLike, std: ArrayLike, outcome: ArrayLike, *, bins: int = 10) -> list[StrengthBin]:
    """Equal-count bins from the weakest strength to the strongest, with the mean of any ``outcome`` in each.

    Args:
        mean, std: [N]. outcome: [N], for instance 1 where a judge agrees with the label; nan where it was not asked.
        bins: 1 to N. The paper's figures have 10 and 20 bins, and bins of 500 pairs.
    Raises:
        ValueError: shapes differ, or bins out of range.
    Source: Secrets of RLHF II (arXiv 2401.06080), figures 2 and 3.
    """
    rows = np.stack([np.asarray(column, dtype=np.float64) for column in (mean, std, outcome)])
    if rows.ndim != 2 or not 1 <= bins <= rows.shape[1]:
        raise ValueError(f"three columns [N] and 1 to N bins are needed, got {list(rows.shape)} and {bins} bins")
    made = []
    for places in np.array_split(np.argsort(rows[0], kind="stable"), bins):
        mu, spread, seen = rows[:, places]
        seen = seen[~np.isnan(seen)]
        made.append(StrengthBin(len(places), mu.mean(), spread.mean(), float(seen.mean()) if seen.size else np.nan))
    return made


def _scored(model: Scorer, pairs: Sequence[Pair], member: int) -> Floats:
    """Scores [2, N] of chosen and rejected; both answers side by side, for models that read a shared prompt once."""
    sides: tuple[Any, ...] = ("chosen", "rejected")
    options: dict[str, Any] = {}
    if any(pair.images for pair in pairs):
        options["images"] = [pair.images for pair in pairs for _ in sides]
    given = model.score([pair.conversation(side) for pair in pairs for side in sides], **options)
    scores = np.asarray(given, dtype=np.float64)
    if scores.shape != (2 * len(pairs),) or not np.isfinite(scores).all():
        raise GuerdonError(
            f"member {member} of the ensemble gave scores {list(scores.shape)}, not {2 * len(pairs)} finite ones"
        )
    return scores.reshape(-1, 2).T


def _pair(row: dict[str, Any]) -> Pair:
    chosen, rejected = (_turns(row[name], name) for name in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise ValueError("chosen and rejected do not share their history")
    if chosen == rejected:
        raise ValueError("chosen and rejected are equal")
    first, second = row[CHOSEN], row[REJECTED]
    for name, scores in ((CHOSEN, first), (REJECTED, second)):
        if not isinstance(scores, list | tuple) or not scores or not all(map(_is_finite, scores)):
            raise ValueError(f"column {name!r} must list one score a model")
    if len(first) != len(second):
        raise ValueError(f"{len(first)} chosen scores and {len(second)} rejected ones")
    if not (_is_finite(row[MEAN]) and _is_finite(row[STD])):
        raise ValueError(f"columns {MEAN!r} and {STD!r} must be numbers")
    differences = np.subtract(first, second)
    # Published numbers are rounded; a wrong sign or another ensemble's list is not.
    if abs(differences.mean() - row[MEAN]) > 0.01 + 0.01 * np.abs(differences).max():
        raise ValueError(f"column {MEAN!r} is {row[MEAN]:g}, its score lists differ by {differences.mean():g}")
    if row.get(JUDGE, -1) not in (1, 0, -1):
        raise ValueError(f"column {JUDGE!r} must be 1, 0 or -1, got {row[JUDGE]!r}")
    others = {name: value for name, value in row.items() if name not in ("chosen", "rejected")}
    return Pair(chosen[:-1], chosen[-1:], rejected[-1:], row=others)


def _turns(turns: Any, name: str) -> list[Message]:
    if not isinstance(turns, list | tuple) or len(turns) < 2:
        raise ValueError(f"column {name!r} must list a history and an answer")
    if all(isinstance(turn, str) for turn in turns):
        texts = [turn.strip().removeprefix("Human:").removeprefix("Assistant:").strip() for turn in turns]
        roles = [("assistant", "user")[place % 2] for place in range(len(texts))][::-1]
        turns = [{"role": role, "content": text} for role, text in zip(roles, texts)]
    try:
        messages = as_messages(turns)
    except ValueError as error:
        raise ValueError(f"column {name!r} {error}") from None
    if messages[-1]["role"] != "assistant" or not messages[-1]["content"]:
        raise ValueError(f"column {name!r} does not end with an answer of the assistant")
    return messages


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _fingerprint(pairs: Sequence[Pair]) -> str:
    """Of the texts and pictures in their order; where a pair came from does not matter."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(json.dumps([pair.prompt, pair.chosen, pair.rejected], sort_keys=True).encode())
        for image in pair.images:
            digest.update(image.tobytes())
    return digest.hexdigest()
