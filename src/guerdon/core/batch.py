"""One batch of prompts, completions and columns: checked, sliced, and put to a reward the way TRL does it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guerdon.core.errors import GuerdonError, nearest
from guerdon.core.identity import name_of
from guerdon.core.outcome import Failed, Scores


@dataclass(frozen=True)
class Batch:
    """``n`` rows: prompts and completions, columns with one entry a row, and values that all rows share.

    A column is a sequence or array; strings, mappings, callables and scalars (TRL's ``trainer_state``, ``log_metric``)
    are shared.
    """

    prompts: Any
    completions: Any
    columns: dict[str, Any]
    shared: dict[str, Any]

    @classmethod
    def of(cls, prompts: Any, completions: Any, columns: Mapping[str, Any], name: str) -> Batch:
        """The batch after a check that everything has one entry a row; ``name`` is the reward's, for the error."""
        own: dict[str, Any] = {}
        shared: dict[str, Any] = {}
        for key, value in columns.items():
            (own if _is_column(value) else shared)[key] = _listed(value)
        for key, value in (("prompts", prompts), ("completions", completions)):
            if not _is_column(value):
                raise GuerdonError(f"reward {name!r}: {key} must be a list or a tensor, got {type(value).__name__}")
        rows = len(completions)
        for key, value in (("prompts", prompts), *own.items()):
            if len(value) != rows:
                raise GuerdonError(f"reward {name!r}: {key!r} has {len(value)} rows for {rows} completions")
        return cls(_listed(prompts), _listed(completions), own, shared)

    def __len__(self) -> int:
        return len(self.completions)

    def take(self, start: int, stop: int) -> Batch:
        """Rows ``start`` up to, not including, ``stop``."""
        columns = {key: value[start:stop] for key, value in self.columns.items()}
        return Batch(self.prompts[start:stop], self.completions[start:stop], columns, self.shared)

    def arguments(self, reward: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
        """What to call (a composite's ``.scores``, else the reward) and its keywords.

        A function without ``**columns`` is given only the columns that it names; one that it needs and the data lack is
        a GuerdonError.
        """
        scores = getattr(reward, "scores", None)
        target = scores if callable(scores) else reward
        given = {"prompts": self.prompts, "completions": self.completions, **self.columns, **self.shared}
        names, needed, takes_all = _signature(target)
        for key in needed:
            if key not in given:
                guess = nearest(key, self.columns)
                hint = f"; did you mean {guess!r}?" if guess else ";"
                raise GuerdonError(
                    f"reward {name_of(reward)!r} needs the column {key!r}, which the data lack{hint} "
                    f"columns: {', '.join(sorted(self.columns)) or '(none)'}"
                )
        return target, given if takes_all else {key: value for key, value in given.items() if key in names}

    def call(self, reward: Callable[..., Any]) -> Any:
        """What the reward returns (perhaps an awaitable), everything passed by keyword."""
        target, keywords = self.arguments(reward)
        return target(**keywords)


def _is_column(value: Any) -> bool:
    if isinstance(value, str | bytes | Mapping) or callable(value) and not hasattr(value, "__len__"):
        return False
    return isinstance(value, Sequence) or len(getattr(value, "shape", ())) > 0


def _listed(value: Any) -> Any:
    # Tuples and the lazy columns of datasets become the plain lists that reward functions expect.
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes | list) else value


def _signature(target: Callable[..., Any]) -> tuple[frozenset[str], tuple[str, ...], bool]:
    """Parameter names, those without a default, and whether the callable takes any keyword."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return frozenset(), (), True
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = tuple(p.name for p in named if p.default is p.empty)
    return frozenset(p.name for p in named), needed, any(p.kind is p.VAR_KEYWORD for p in parameters)


def await_together(awaitables: Sequence[Awaitable[Any]]) -> list[Any]:
    """The results of all awaitables, run concurrently in one event loop; an exception stands in its place in the list.

    Works with or without a running loop (in a notebook or a server): with one, the work is done on another thread.
    """
    if not awaitables:
        return []

    async def gather() -> list[Any]:
        return await asyncio.gather(*awaitables, return_exceptions=True)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(gather())
    results: list[Any] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.extend(asyncio.run(gather()))
        except BaseException as error:  # carried over to the thread that waits
            errors.append(error)

    thread = threading.Thread(target=work, name="guerdon-await")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results


def call_now(reward: Callable[..., Any], batch: Batch) -> Any:
    """``batch.call(reward)``, awaited if it is awaitable."""
    raw = batch.call(reward)
    if inspect.isawaitable(raw):
        raw = await_together([raw])[0]
        if isinstance(raw, BaseException):
            raise raw
    return raw


def read_result(raw: Any, rows: int, name: str) -> Scores:
    """What a reward returned, as Scores: length and type are checked here, row by row.

    A wrong container or length is a GuerdonError, since no row can be blamed; an entry that is not a number, None or
    Failed, or not finite, becomes that row's Failed.
    """
    if isinstance(raw, Scores):
        if len(raw) != rows:
            raise GuerdonError(f"reward {name!r} returned {len(raw)} scores for {rows} completions")
        return raw
    if hasattr(raw, "detach"):
        raw = raw.detach().cpu().float().numpy() if raw.is_floating_point() else raw.detach().cpu().numpy()
    if isinstance(raw, np.ndarray):
        if raw.ndim != 1:
            raise GuerdonError(f"reward {name!r} returned an array of shape {list(raw.shape)}, expected [{rows}]")
        raw = raw.tolist()
    if not isinstance(raw, list | tuple):
        raise GuerdonError(f"reward {name!r} returned {type(raw).__name__}, not a list with one score a completion")
    if len(raw) != rows:
        raise GuerdonError(f"reward {name!r} returned {len(raw)} scores for {rows} completions")
    return Scores.of([read_entry(entry) for entry in raw])


def read_entry(entry: Any) -> float | None | Failed:
    """One entry of a reward's list as an outcome; anything but a finite number, None or Failed is a typed failure."""
    if entry is None or isinstance(entry, Failed):
        return entry
    if getattr(entry, "ndim", None) == 0 and hasattr(entry, "item"):
        entry = entry.item()
    if not isinstance(entry, bool | int | float):
        return Failed(f"returned {_short(entry)} ({type(entry).__name__}), not a number", "wrong_type")
    try:
        value = float(entry)
    except OverflowError:
        return Failed("returned an integer too large for a float", "not_finite")
    if not np.isfinite(value):
        return Failed(f"returned {value}", "not_finite")
    return value


def describe_exception(error: BaseException) -> str:
    """Type and first line of an exception: what a Failed keeps as its cause."""
    first = str(error).strip().splitlines()[:1]
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
