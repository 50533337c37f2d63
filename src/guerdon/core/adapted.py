"""What every adapter shares: a foreign reward made one of ours, and our reward where there is no "does not apply"."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from guerdon.core.answer import completion_text
from guerdon.core.batch import describe_exception, read_entry
from guerdon.core.errors import GuerdonError
from guerdon.core.identity import name_of
from guerdon.core.outcome import Failed, Scores
from guerdon.core.reward import FailurePolicy, check_policy, check_range, identity, is_async
from guerdon.core.scorer import Scorer


class Foreign:
    """A reward of another framework as one of ours. Subclasses say how it is called, in ``_ask``."""

    def __init__(
        self,
        function: Any,
        *,
        name: str | None = None,
        groupwise: bool = False,
        range: tuple[float, float] | None = None,
        on_failure: FailurePolicy = "raise",
    ) -> None:
        if not callable(function):
            raise GuerdonError(f"{function!r} is not callable, so it is no reward")
        self.function = function
        self.__name__ = name or name_of(function)
        self.groupwise = groupwise
        self.range = check_range(range, self.__name__)
        self.on_failure = check_policy(on_failure, self.__name__)
        self.asynchronous = is_async(function)

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> Any:
        """One score, None or Failed a completion; awaitable if the foreign reward is."""
        found = self.scores(prompts, completions, **columns)
        if not inspect.isawaitable(found):
            return found.outcomes()

        async def outcomes() -> Any:
            return (await found).outcomes()

        return outcomes()

    def scores(self, prompts: Any, completions: Any, **columns: Any) -> Any:
        """Scores, with what the foreign reward logs beside them as parts; awaitable if the foreign reward is."""
        raise NotImplementedError


class ForeignBySample(Foreign):
    """A foreign reward that is called once for each sample; what it raises is that sample's failure."""

    def _ask(self, prompt: Any, completion: Any, row: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def _read(self, answer: Any) -> tuple[float | None | Failed, dict[str, float]]:
        """The outcome and the numbers logged beside it."""
        raise NotImplementedError

    def scores(self, prompts: Any, completions: Any, **columns: Any) -> Any:
        rows, shared = _split(columns, len(completions))
        answers: list[Any] = []
        for number, completion in enumerate(completions):
            row = {**shared, **{key: values[number] for key, values in rows.items()}}
            try:
                answers.append(self._ask(prompts[number], completion, row))
            except GuerdonError:
                raise
            except Exception as error:  # that sample's failure, with its type and message
                answers.append(Failed(describe_exception(error)))
        if any(inspect.isawaitable(answer) for answer in answers):
            return self._wait(answers)
        return self._collect(answers)

    async def _wait(self, answers: list[Any]) -> Scores:
        waiting = [answer for answer in answers if inspect.isawaitable(answer)]
        done = iter(await asyncio.gather(*waiting, return_exceptions=True))
        settled = [next(done) if inspect.isawaitable(answer) else answer for answer in answers]
        for answer in settled:
            if isinstance(answer, BaseException) and not isinstance(answer, Exception):
                raise answer
        return self._collect([Failed(describe_exception(a)) if isinstance(a, Exception) else a for a in settled])

    def _collect(self, answers: Sequence[Any]) -> Scores:
        outcomes: list[float | None | Failed] = []
        parts: dict[str, np.ndarray] = {}
        for row, answer in enumerate(answers):
            outcome, logged = (answer, {}) if isinstance(answer, Failed) else self._read(answer)
            outcomes.append(outcome)
            for key, value in logged.items():
                parts.setdefault(key, np.full(len(answers), np.nan))[row] = value
        return Scores.of(outcomes, parts=parts)


class Export:
    """One of our rewards in a framework that knows numbers only.

    "Does not apply" and failure cannot be said there, and a silent 0 would be a lie: the reward's policy decides, which
    must be "raise" or a number.
    """

    def __init__(self, reward: Callable[..., Any], framework: str, by_sample: bool, options: Mapping[str, Any]) -> None:
        self.scorer = Scorer(reward, **options)
        self.framework = framework
        self.__name__ = self.scorer.name
        if not isinstance(self.scorer.on_failure, float) and self.scorer.on_failure != "raise":
            raise GuerdonError(
                f"reward {self.__name__!r}: {framework} cannot {self.scorer.on_failure.replace('_', ' a ')}; "
                "pass on_failure='raise' or a number"
            )
        if by_sample and self.scorer.groupwise:
            raise GuerdonError(f"reward {self.__name__!r} is groupwise, but {framework} calls it with single samples")

    def identity(self) -> str:
        """name@version#hash of the reward inside."""
        return identity(self.scorer.reward)

    def numbers(self, scores: Scores) -> list[float]:
        """A finite number a row, by the declared policy where there is no score."""
        found: list[float] = []
        for row, value in enumerate(scores.as_list()):
            if value is None and not isinstance(self.scorer.on_failure, float):
                raise GuerdonError(
                    f"reward {self.__name__!r} does not apply to row {row}, which {self.framework} cannot express; "
                    "pass a number as on_failure to pay such rows, or leave them out of the data"
                )
            found.append(float(self.scorer.on_failure) if value is None else value)
        return found


def text_of(completion: Any, name: str, row: int = 0) -> str:
    """The text of a string or message completion. Raises GuerdonError for a picture or anything else without text."""
    if not isinstance(completion, str | list | tuple | Mapping):
        kind = type(completion).__name__
        raise GuerdonError(f"reward {name!r} scores text, but the completion of row {row} is {kind}")
    return completion_text(completion)


def number_of(value: Any) -> float | None:
    """A logged value as a float, or None if it is no number."""
    entry = read_entry(value)
    return entry if isinstance(entry, float) else None


def first_column(columns: Mapping[str, Any], *names: str) -> Any:
    """The first of these columns that is there and not None, else None."""
    return next((columns[name] for name in names if columns.get(name) is not None), None)


def _split(columns: Mapping[str, Any], rows: int) -> tuple[dict[str, Any], dict[str, Any]]:
    own = {k: v for k, v in columns.items() if hasattr(v, "__len__") and not isinstance(v, str | bytes | Mapping)}
    own = {key: value for key, value in own.items() if len(value) == rows}
    return own, {key: value for key, value in columns.items() if key not in own}
