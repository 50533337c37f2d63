"""A verifier of answers with variables, sets and intervals: math-verify, in a process that is killed at its deadline.

math-verify and the algebra system below it keep their own time limits by signals, which only work in a main thread and
not at all inside one long computation. Here they run without any in a worker process; what hangs there is a failure of
that sample ("deadline"), never a zero, and costs nobody else anything.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import re
import resource
import threading
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal, get_args

from guerdon.core.answer import completion_text
from guerdon.core.batch import Batch
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash
from guerdon.core.outcome import Failed
from guerdon.core.worker import KillableWorker
from guerdon.rewards.text.final_answer import bare_text, solutions_of, stated_answer, verify_answer

__all__ = ["SymbolicVerifier"]

Outcomes = list[float | None | Failed]
Extraction = Literal["stated", "math_verify"]
_LONGEST = 300  # characters of an expression that are compared; a longer one is no final answer
_WINDOW = 2000  # characters at the end of a completion in which math-verify looks by itself
# Powers of powers and large exponents or factorials: seconds of algebra each, and what a policy that attacks writes.
_TOO_LARGE = re.compile(r"(?:\^|\*\*)\s*[{(]?[^{}()^*]{0,40}(?:\^|\*\*)|(?:\^|\*\*)\s*[{(]?\s*\d{4,}|!\s*!|\d{4,}\s*!")
_MEMORY = 2 * 2**30  # bytes that the algebra may take beyond what the process began with
_DIGITS = 9  # significant decimals to which numbers are compared


class SymbolicVerifier:
    """1.0 where the final answer of a completion equals the column ``solution`` as mathematics, else 0.0.

    2x + 1 and 1 + 2x, {1, 2} and {2, 1}, (0, 1] and 0 < x <= 1 are equal, \\frac12 and 0.5 too.

    extraction:   "stated": the answer that the completion states by our grammar (`stated_answer`), so that one which is
                  only mentioned does not count; "math_verify": what math-verify picks from the end of the text, as
                  trainers that call it directly do.
    rules_first:  a solution that is a number, word or letter is left to `verify_answer`, exactly and in this process,
                  unless what is stated is beyond it.
    deadline:     seconds a sample; start_timeout: for the worker process to begin.

    A solution that cannot be parsed fails ("unparseable"), whatever the completion says; a stated power of powers or
    the like fails without being computed ("too_large"). None where there is no solution. Needs the package math-verify
    (``pip install guerdon[math]``). Raises GuerdonError without it, or without the column.
    """

    groupwise = False
    range = (0.0, 1.0)
    on_failure = "drop_sample"
    version = "1"

    def __init__(
        self,
        *,
        extraction: Extraction = "stated",
        rules_first: bool = True,
        deadline: float = 3.0,
        start_timeout: float = 120.0,
        name: str = "symbolic_verifier",
    ) -> None:
        if extraction not in get_args(Extraction):
            raise unknown("extraction of answers", extraction, get_args(Extraction))
        if find_spec("math_verify") is None:
            raise GuerdonError(f"reward {name!r} needs the package math-verify: pip install 'guerdon[math]'")
        self.extraction, self.rules_first, self.deadline = extraction, rules_first, float(deadline)
        self.start_timeout, self.__name__ = float(start_timeout), name
        self._worker: KillableWorker | None = None
        self._lock = threading.Lock()

    def __call__(self, prompts: Any, completions: Sequence[Any], *, solution: Any = None, **columns: Any) -> Outcomes:
        """One outcome a completion."""
        wanted = solutions_of(solution, completions, self.__name__)
        found: Outcomes = [None] * len(completions)
        asked: list[int] = []
        said: list[str] = []
        for row, (completion, right) in enumerate(zip(completions, wanted, strict=True)):
            if right is None:
                continue
            text = completion_text(completion)
            plain = self._by_rules(text, right)
            if plain is not None:
                found[row] = plain
                continue
            # Empty where nothing is stated: the worker still says whether the solution can be read.
            expression = self._expression(text)
            if self.extraction == "stated" and _TOO_LARGE.search(expression) and not _TOO_LARGE.search(right):
                found[row] = Failed(f"{expression[:60]!r} is too large to compare", "too_large")
                continue
            asked.append(row)
            said.append(expression)
        for place, outcome in zip(asked, self._compared(said, [str(wanted[row]) for row in asked]), strict=True):
            found[place] = outcome
        return found

    def identity(self) -> str:
        """Name, version, and a hash of the settings and of math-verify's version."""
        from importlib.metadata import version

        settings = [self.extraction, self.rules_first, self.deadline, version("math-verify")]
        return f"{self.__name__}@{self.version}#{config_hash(settings)}"

    def close(self) -> None:
        """End the worker process, if there is one; the next call starts another."""
        with self._lock:
            if self._worker is not None:
                self._worker.close()
                self._worker = None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_worker", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _worker=None, _lock=threading.Lock())

    def _by_rules(self, text: str, solution: str) -> float | None:
        if not self.rules_first:
            return None
        try:
            verdict = verify_answer(text, solution)
        except GuerdonError:
            return None
        # A number may be stated as an expression that those rules do not read, such as x = 5 or 10 cos 0.
        return None if verdict.reason == "unreadable" else float(verdict.correct)

    def _expression(self, text: str) -> str:
        if self.extraction == "math_verify":
            return text[-_WINDOW:]
        stated = stated_answer(text)
        return "" if stated is None or len(stated.text) > _LONGEST else stated.text

    def _compared(self, said: list[str], wanted: list[str]) -> Outcomes:
        if not said:
            return []
        batch = Batch(
            [""] * len(said), said, {"solution": wanted, "whole": [self.extraction == "math_verify"] * len(said)}, {}
        )
        found: Outcomes = [None] * len(said)
        with self._lock:
            if self._worker is None:
                self._worker = KillableWorker(compared, deadline=self.deadline, start_timeout=self.start_timeout)
            for (start, _), told in self._worker.run(batch, [(row, row + 1) for row in range(len(said))]):
                found[start] = told if isinstance(told, Failed) else told.outcomes()[0]
        return found


def compared(prompts: Any, completions: Sequence[str], *, solution: Any, whole: Any, **columns: Any) -> Outcomes:
    """What the worker process runs: each text against its solution, by math-verify without any limit of time."""
    _limit_memory()
    return [_equal(said, wanted, every) for said, wanted, every in zip(completions, solution, whole, strict=True)]


def _equal(said: str, wanted: str, whole: bool) -> float | Failed:
    from math_verify import verify

    try:
        gold = _parsed(_delimited(wanted))
        if all(isinstance(one, str) for one in gold):  # what is no expression comes back as it went in
            return Failed(f"the solution {wanted[:60]!r} is no expression that math-verify reads", "unparseable")
        told = _parsed(said if whole else _delimited(said)) if said.strip() else []
        return float(verify(gold, told, numeric_precision=_DIGITS, timeout_seconds=None))
    except MemoryError:
        return Failed("the comparison took more memory than it may", "memory")
    except RecursionError:
        return Failed("the answer is nested too deeply to compare", "recursion")


def _parsed(text: str) -> Any:
    from math_verify import parse

    return parse(text, parsing_timeout=None)


def _delimited(text: str) -> str:
    """An expression as math-verify takes one for certain: alone inside a box."""
    return f"$\\boxed{{{bare_text(text)}}}$"


@cache
def _limit_memory() -> None:
    if multiprocessing.parent_process() is None:
        return
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that we keep the time ourselves
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/statm", encoding="ascii") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + _MEMORY, taken + _MEMORY))
