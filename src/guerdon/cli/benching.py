"""``guerdon bench``: rewards, judges and scores computed elsewhere, on rows with right and wrong answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guerdon.benchmarks import own_pairs as pair_bench
from guerdon.benchmarks import rewardbench_1 as version_1
from guerdon.benchmarks import rewardbench_2 as version_2
from guerdon.benchmarks.graded import BenchmarkResult
from guerdon.benchmarks.protocol import ROWS
from guerdon.cli.inspecting import renamed
from guerdon.cli.sheets import finish
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import load_pairs
from guerdon.rewards.subject import Subject, load_subject, subject_of_spec

__all__ = ["Graded", "On", "bench_pairs", "bench_rewardbench_1", "bench_rewardbench_2", "subjects"]


@dataclass(frozen=True)
class Graded:
    """Who is graded, in the words of ``guerdon bench rewardbench-2 --help``; ``against`` names a second one."""

    model: str | None = None
    reward: str | None = None
    scores: str | None = None
    against: str | None = None
    judge_model: str | None = None
    mode: str | None = None
    settings: Sequence[str] = ()


@dataclass(frozen=True)
class On:
    """On what: a hub id or a local file, a sample of ``limit`` rows, and the folder of the results."""

    data: str | None = None
    out: Path | None = None
    limit: int | None = None
    seed: int = 0
    skip_bad_rows: bool = False


def subjects(graded: Graded) -> tuple[Subject, Subject | None]:
    """The subject, and the second one or None. The second is loaded without settings of the first.

    Raises GuerdonError where they are one and the same.
    """
    first = load_subject(
        model=graded.model, reward=graded.reward, scores=graded.scores, judge_model=graded.judge_model,
        settings=graded.settings, mode=graded.mode,
    )  # fmt: skip
    if graded.against is None:
        return first, None
    second = subject_of_spec(graded.against)
    if first.identity == second.identity:
        raise GuerdonError(f"--against {graded.against} is the very same as what is graded ({first.identity})")
    return first, second


def bench_rewardbench_2(graded: Graded, on: On, atol: float = 0.0, *, as_json: bool = False) -> None:
    """RewardBench 2: one right answer among four, and the calibration test Ties."""
    items = version_2.load_rewardbench_2(on.data, skip_bad_rows=on.skip_bad_rows, out=on.out)
    first, second = subjects(graded)
    result = version_2.rewardbench_2(
        first, items, against=second, out=on.out, limit=on.limit, seed=on.seed, atol=atol, data=on.data or version_2.HUB
    )
    _end(result, on, as_json)


def bench_rewardbench_1(graded: Graded, on: On, *, as_json: bool = False) -> None:
    """RewardBench: chosen against rejected, in four sections."""
    rows = version_1.load_rewardbench_1(on.data, skip_bad_rows=on.skip_bad_rows, out=on.out)
    first, second = subjects(graded)
    result = version_1.rewardbench_1(
        first, rows, against=second, out=on.out, limit=on.limit, seed=on.seed, data=on.data or version_1.HUB
    )
    _end(result, on, as_json)


def bench_pairs(graded: Graded, on: On, columns: Sequence[str] = (), *, as_json: bool = False) -> None:
    """A person's own preference pairs; ``columns`` rename theirs, "ours=theirs"."""
    if on.data is None:
        raise GuerdonError(
            "bench pairs needs --data: preference pairs in a jsonl, parquet or csv file, or a hub id, with the columns "
            "chosen, rejected and (where they do not hold it) prompt"
        )
    pairs = load_pairs(on.data, skip_bad_rows=on.skip_bad_rows, out=on.out, columns=renamed(list(columns)))
    first, second = subjects(graded)
    result = pair_bench.own_pairs(
        first, pairs, against=second, out=on.out, limit=on.limit, seed=on.seed, data=on.data
    )  # fmt: skip
    _end(result, on, as_json)


def _end(result: BenchmarkResult, on: On, as_json: bool) -> None:
    first = result.subjects[0]
    if all(one.rows == one.unjudged for one in first.subsets):
        told = ", ".join(f"{count} {kind}" for kind, count in first.problems.items())
        kept = f"; see {on.out / ROWS}" if on.out is not None else "; with --out DIR every reply is kept"
        raise GuerdonError(f"{first.name} judged none of the {result.rows} rows ({told}){kept}")
    finish(result.sheet(), result.to_dict(), on.out, as_json=as_json)
