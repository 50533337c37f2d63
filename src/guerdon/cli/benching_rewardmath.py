"""``guerdon bench rewardmath``: one right solution against all the wrong ones, also by published result files."""

from __future__ import annotations

from guerdon.benchmarks.one_to_many_items import load_one_to_many
from guerdon.benchmarks.protocol import ROWS
from guerdon.benchmarks.rewardmath import rewardmath, rewardmath_published
from guerdon.benchmarks.rewardmath_result import RewardMathResult
from guerdon.benchmarks.rewardmath_scores import PublishedScores, read_published_scores
from guerdon.cli.benching import Graded, On, subjects
from guerdon.cli.sheets import finish
from guerdon.core.errors import GuerdonError, unknown
from guerdon.metrics.step_aggregation import REDUCERS

__all__ = ["bench_rewardmath"]


def bench_rewardmath(
    graded: Graded, on: On, reducer: str = "prod", both_orders: bool = False, *, as_json: bool = False
) -> None:
    """RewardMATH: is the right solution above every wrong one?

    on.data:      RewardMATH on the hub, a local copy of it, or one's own solutions with prompt, completion and label.
    graded.scores:  scores computed elsewhere, or a published result file (problem, score), which needs no data.
    reducer:      how step scores of a published file become one score.
    both_orders:  ask a judge of pairs every comparison twice, the second time exchanged.
    """
    if reducer not in REDUCERS:
        raise unknown("step reducer", reducer, REDUCERS)
    published = read_published_scores(graded.scores) if graded.scores is not None else None
    if published is not None:
        result = rewardmath_published(published, against=_against(graded), reducer=reducer, seed=on.seed)
        finish(result.sheet(), result.to_dict(), on.out, as_json=as_json)
        return
    items = load_one_to_many(on.data, seed=on.seed, skip_bad_rows=on.skip_bad_rows, out=on.out)
    first, second = subjects(graded)
    result = rewardmath(
        first, items, against=second, out=on.out, limit=on.limit, both_orders=both_orders, seed=on.seed
    )  # fmt: skip
    _end(result, on, as_json)


def _against(graded: Graded) -> PublishedScores | None:
    if graded.against is None:
        return None
    found = read_published_scores(graded.against)
    if found is None:
        raise GuerdonError(
            f"--against {graded.against} is no published result file (problem, score), which --scores names one of"
        )
    return found


def _end(result: RewardMathResult, on: On, as_json: bool) -> None:
    first = result.ranked[0]
    if not first.ranks.measured.any():
        told = ", ".join(f"{count} {kind}" for kind, count in result.graded.subjects[0].problems.items())
        kept = f"; see {on.out / ROWS}" if on.out is not None else "; with --out DIR every reply is kept"
        raise GuerdonError(f"{first.name} judged none of the {len(first.ranks)} problems whole ({told}){kept}")
    finish(result.sheet(), result.to_dict(), on.out, as_json=as_json)
