"""Scoring: a batch is put to a reward, and all that comes back is checked before any number leaves."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Any

import numpy as np

from guerdon.core.batch import Batch, await_together, call_now, describe_exception, read_result
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed, Scores
from guerdon.core.reward import FailurePolicy, check_policy, identity, is_groupwise, name_of, policy_of, range_of
from guerdon.core.worker import KillableWorker

logger = logging.getLogger(__name__)


class Scorer:
    """Puts batches to a reward and checks all that comes back.

    reward:            any callable of the contract, sync or async; a composite's ``.scores`` is preferred.
    on_failure:        overrides the reward's own policy.
    deadline:          seconds that one sample may take (a group: that many for each of its samples), kept by a worker
                       process that is killed and started again. None: the reward runs in this process.
    max_failure_rate:  stops with an error once more than this share of the last 1000 or so samples to which the reward
                       applies failed. One single failure among them is forgiven, except at rate 0.
    group_size:        completions of one prompt, which stand together. None: the column ``group_ids`` tells the groups,
                       else each run of equal prompts is one; that cannot tell a whole group from a part of one.

    A pointwise reward that raises on a batch is asked again row by row, to find the row to blame: a reward for which a
    second call is dear returns ``Failed`` for its bad rows instead of raising.
    """

    WINDOW = 1000

    def __init__(
        self,
        reward: Any,
        *,
        on_failure: FailurePolicy | None = None,
        deadline: float | None = None,
        max_failure_rate: float = 0.1,
        group_size: int | None = None,
    ) -> None:
        self.reward = reward
        self.name = name_of(reward)
        if not callable(reward):
            raise GuerdonError(f"reward {self.name!r} is not callable")
        self.groupwise = is_groupwise(reward)
        self.range = range_of(reward)
        self.on_failure = policy_of(reward) if on_failure is None else check_policy(on_failure, self.name)
        self.deadline = deadline
        self.max_failure_rate = float(max_failure_rate)
        self.group_size = group_size
        self._recent: deque[tuple[int, int]] = deque()
        self._worker: KillableWorker | None = None
        self._lock = threading.Lock()
        if deadline is not None and not deadline > 0:
            raise GuerdonError(f"reward {self.name!r}: deadline must be a positive number of seconds, got {deadline!r}")
        if not 0 <= self.max_failure_rate <= 1:
            raise GuerdonError(f"reward {self.name!r}: max_failure_rate must lie in [0, 1], got {max_failure_rate!r}")
        if group_size is not None and group_size < 1:
            raise GuerdonError(f"reward {self.name!r}: group_size must be at least 1, got {group_size!r}")

    def score(self, prompts: Any, completions: Any, **columns: Any) -> Scores:
        """Scores of one batch, float64 [n] with their validity.

        Raises GuerdonError naming the reward and the row: for a wrong length, for a failure under "raise", for a
        failure rate above the ceiling, for a group that is not whole.
        """
        return score_all([self], prompts, completions, **columns)[0]

    def identity(self) -> str:
        """name@version#hash of the reward."""
        return identity(self.reward)

    def close(self) -> None:
        """End the worker process, if there is one; the next score starts another."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_worker", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _worker=None, _lock=threading.Lock())

    def groups(self, batch: Batch) -> list[tuple[int, int]]:
        """(first row, row after the last) of every group. Raises GuerdonError for one that is not whole or together."""
        rows, size = len(batch), self.group_size
        given = batch.columns.get("group_ids")
        labels = batch.prompts if given is None else given
        if size is None:
            starts = [row for row in range(rows) if row == 0 or not _same(labels[row], labels[row - 1])]
            if given is not None and len({int(labels[row]) for row in starts}) < len(starts):
                raise GuerdonError(f"reward {self.name!r}: the rows of one group do not stand together in 'group_ids'")
            return list(zip(starts, [*starts[1:], rows], strict=True))
        if rows % size:
            raise GuerdonError(f"reward {self.name!r}: {rows} completions are not whole groups of {size}")
        for row in range(rows):
            if not _same(labels[row], labels[row - row % size]):
                raise GuerdonError(
                    f"reward {self.name!r}: row {row} has another prompt than row {row - row % size}, the first of its "
                    f"group; the {size} completions of a prompt must stand together"
                )
        return [(start, start + size) for start in range(0, rows, size)]

    def units(self, batch: Batch, groups: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The rows that go to the reward in one call each: whole groups; single rows where each has a deadline."""
        if self.groupwise:
            return groups
        if self.deadline is not None:
            return [(row, row + 1) for row in range(len(batch))]
        return [(0, len(batch))] if len(batch) else []

    def read(self, batch: Batch, groups: list[tuple[int, int]], answers: list[Any]) -> Scores:
        """Scores from what the reward answered, one answer a unit; with a deadline the worker is asked instead."""
        with self._lock:
            units = self.units(batch, groups)
            if self.deadline is not None:
                return self._settle(self._read_worker(batch, units), groups)
            sheet = _Sheet(len(batch))
            for (start, stop), answer in zip(units, answers, strict=True):
                if not isinstance(answer, Exception):
                    sheet.put(start, read_result(answer, stop - start, self.name))
                elif self.groupwise or stop - start == 1:
                    sheet.fail(start, stop, Failed(describe_exception(answer)), answer)
                else:
                    logger.warning("reward %r raised on a batch; asking row by row: %s", self.name, answer)
                    self._read_rows(batch, sheet)
            return self._settle(sheet, groups)

    def _read_rows(self, batch: Batch, sheet: _Sheet) -> None:
        for row in range(len(batch)):
            try:
                sheet.put(row, read_result(call_now(self.reward, batch.take(row, row + 1)), 1, self.name))
            except Exception as error:  # whatever a reward raises is that row's failure
                sheet.fail(row, row + 1, Failed(describe_exception(error)), error)
                if self.on_failure == "raise":
                    return

    def _read_worker(self, batch: Batch, units: list[tuple[int, int]]) -> _Sheet:
        """Each sample (or group) on its own in the worker and within its deadline."""
        assert self.deadline is not None
        if self._worker is None:
            self._worker = KillableWorker(self.reward, deadline=self.deadline)
        sheet = _Sheet(len(batch))
        for (start, stop), answer in self._worker.run(batch, units):
            if isinstance(answer, Failed):
                sheet.fail(start, stop, answer, None)
            else:
                sheet.put(start, answer)
            # A reward that hangs on every row must not cost every row's deadline before the run stops.
            fatal = self.on_failure == "raise" and any(not sheet.valid[row] for row in sheet.failures)
            if fatal or sheet.failures and self._too_many(len(batch), len(sheet.failures)):
                break
        return sheet

    def _settle(self, sheet: _Sheet, groups: list[tuple[int, int]]) -> Scores:
        """Range, then the ceiling, then the policy."""
        if self.range is not None:
            low, high = self.range
            slack = 1e-6 * max(1.0, abs(low), abs(high))  # float32 arithmetic may step over an end
            outside = sheet.valid & ((sheet.values < low - slack) | (sheet.values > high + slack))
            for row in map(int, np.flatnonzero(outside)):
                cause = f"returned {sheet.values[row]:.6g}, outside [{low:g}, {high:g}]"
                sheet.fail(row, row + 1, Failed(cause, "out_of_range"), None)
        broken = [row for row in sorted(sheet.failures) if not sheet.valid[row]]
        if broken and self.on_failure == "raise":
            failed = sheet.failures[broken[0]]
            where = f"reward {self.name!r} failed at row {broken[0]}"
            raise GuerdonError(f"{where} ({failed.kind}): {failed.cause}") from sheet.errors.get(broken[0])
        attempted = int((sheet.valid | sheet.dropped).sum()) + len(broken)
        if sheet.failures and self._too_many(attempted, len(sheet.failures)):
            row, failed = min(sheet.failures.items())
            raise GuerdonError(
                f"reward {self.name!r} failed on {len(sheet.failures)} of {attempted} samples, above the ceiling of "
                f"{self.max_failure_rate:.0%} of recent samples; first at row {row} ({failed.kind}): {failed.cause}"
            ) from sheet.errors.get(row)
        self._recent.append((attempted, len(sheet.failures)))
        while sum(count for count, _ in self._recent) - self._recent[0][0] >= self.WINDOW:
            self._recent.popleft()
        if isinstance(self.on_failure, float):
            sheet.values[broken], sheet.valid[broken] = self.on_failure, True
        elif self.on_failure == "drop_group":
            for start, stop in groups:
                if any(start <= row < stop for row in broken):
                    sheet.dropped[start:stop] |= sheet.valid[start:stop]
                    sheet.valid[start:stop] = False
        who = identity(self.reward)
        return Scores(sheet.values, sheet.valid, sheet.failures, sheet.parts, who, sheet.dropped)

    def _too_many(self, attempted: int, failed: int) -> bool:
        attempted += sum(count for count, _ in self._recent)
        failed += sum(count for _, count in self._recent)
        return failed > max(1.0 if self.max_failure_rate else 0.0, self.max_failure_rate * attempted)


def score_all(scorers: Sequence[Scorer], prompts: Any, completions: Any, **columns: Any) -> list[Scores]:
    """The same batch put to several rewards: sync ones in order, all async ones awaited together."""
    asked = _Asked(scorers, prompts, completions, columns)
    asked.fill(await_together(asked.waiting))
    return asked.scores()


async def score_all_async(scorers: Sequence[Scorer], prompts: Any, completions: Any, **columns: Any) -> list[Scores]:
    """``score_all`` for a caller that has an event loop already: async rewards are awaited in that loop."""
    asked = _Asked(scorers, prompts, completions, columns)
    asked.fill(await asyncio.gather(*asked.waiting, return_exceptions=True))
    # Worker processes are waited for on another thread, so that the caller's loop goes on.
    return await asyncio.to_thread(asked.scores)


class _Asked:
    """A batch that was put to several rewards, some of which are still to be awaited."""

    def __init__(self, scorers: Sequence[Scorer], prompts: Any, completions: Any, columns: dict[str, Any]) -> None:
        self.work: list[tuple[Scorer, Batch, list[tuple[int, int]]]] = []
        self.answers: list[list[Any]] = []
        self.waiting: list[Awaitable[Any]] = []
        for scorer in scorers:
            batch = Batch.of(prompts, completions, columns, scorer.name)
            batch.arguments(scorer.reward)
            by_group = scorer.groupwise or scorer.group_size is not None or scorer.on_failure == "drop_group"
            self.work.append((scorer, batch, scorer.groups(batch) if by_group else []))
        for scorer, batch, groups in self.work:
            self.answers.append([])
            for start, stop in scorer.units(batch, groups) if scorer.deadline is None else ():
                try:
                    answer = batch.take(start, stop).call(scorer.reward)
                except Exception as error:  # whatever a reward raises is traced to its row when it is read
                    answer = error
                if inspect.isawaitable(answer):
                    self.waiting.append(answer)
                self.answers[-1].append(answer)

    def fill(self, results: Sequence[Any]) -> None:
        """Put what was awaited in its place."""
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, Exception):
                raise result
        awaited = iter(results)
        self.answers = [[next(awaited) if inspect.isawaitable(one) else one for one in row] for row in self.answers]

    def scores(self) -> list[Scores]:
        asked = zip(self.work, self.answers, strict=True)
        return [scorer.read(batch, groups, answers) for (scorer, batch, groups), answers in asked]


class _Sheet:
    """Scores under construction: what came back for each row, before any policy."""

    def __init__(self, rows: int) -> None:
        self.values, self.valid = np.full(rows, np.nan), np.zeros(rows, dtype=bool)
        self.dropped = np.zeros(rows, dtype=bool)
        self.failures: dict[int, Failed] = {}
        self.errors: dict[int, Exception] = {}
        self.parts: dict[str, np.ndarray] = {}

    def put(self, start: int, scores: Scores) -> None:
        here = slice(start, start + len(scores))
        self.values[here], self.valid[here], self.dropped[here] = scores.values, scores.valid, scores.dropped
        self.failures.update({start + row: failed for row, failed in scores.failures.items()})
        for name, part in scores.parts.items():
            self.parts.setdefault(name, np.full(len(self.values), np.nan))[here] = part

    def fail(self, start: int, stop: int, failed: Failed, error: Exception | None) -> None:
        self.values[start:stop], self.valid[start:stop] = np.nan, False
        for row in range(start, stop):
            self.failures[row] = failed
            if error is not None:
                self.errors[row] = error


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except (TypeError, ValueError, RuntimeError):  # arrays, whose == is not one truth
        return bool(np.array_equal(np.asarray(one), np.asarray(other)))
