"""``guerdon compare``: do rewards ask for the same behaviour, on a finite process or on completions of prompts?"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guerdon.cli.naming import named_rewards
from guerdon.cli.scoring import Job, Rows, read_rows, scored_lines, write_scores
from guerdon.cli.sheets import finish
from guerdon.core.data import load_rows
from guerdon.core.errors import GuerdonError
from guerdon.core.progress import progress
from guerdon.core.reward import policy_of
from guerdon.core.scorer import Scorer

SCORES = "scores.jsonl"
# Columns of preference pairs, each of which is two completions of a prompt.
PAIRS = ({"chosen", "rejected"}, {"response_a", "response_b"})


@dataclass(frozen=True)
class Showing:
    """How a comparison of learned rewards is shown and checked: see ``guerdon compare --help``."""

    examples: int = 10
    floor_rows: int = 64
    seed: int = 0


def compare(
    names: Sequence[str],
    mdp: str | None = None,
    data: str | None = None,
    settings: Sequence[str] = (),
    *,
    out: Path | None = None,
    prompt_column: str | None = None,
    completion_column: str | None = None,
    batch_size: int = 32,
    limit: int | None = None,
    deadline: float | None = None,
    max_failure_rate: float = 0.1,
    skip_bad_rows: bool = False,
    overwrite: bool = False,
    showing: Showing | None = None,
    as_json: bool = False,
) -> None:
    """Compare rewards and print tables; with ``out`` also write result.json, report.html and the scored rows.

    names:  with ``mdp`` rewards of that world (none: all of them), with ``data`` as ``guerdon score --reward`` takes
            them, one each.
    mdp:    a JSON or NPZ file of a finite process, or a built-in world.
    data:   rows of prompts with several completions each, or preference pairs.

    The other arguments are those of ``guerdon score``. Raises GuerdonError for neither or both of ``mdp`` and ``data``.
    """
    if (mdp is None) == (data is None):
        raise GuerdonError(
            "give either --mdp (a file or a built-in world) or --data (prompts with several completions)"
        )
    if mdp is not None:
        from guerdon.comparisons.tabular import compare_tabular, find_world

        result: Any = compare_tabular(find_world(mdp), names, progress=progress)
    else:
        assert data is not None
        if len(names) < 2:
            raise GuerdonError(f"a comparison needs at least two rewards; got {', '.join(names) or 'none'}")
        with tempfile.TemporaryDirectory() as folder:
            job = Job(
                rewards=",".join(names), settings=settings, out=(out or Path(folder)) / SCORES,
                prompt_column=prompt_column, completion_column=completion_column, batch_size=batch_size, limit=limit,
                deadline=deadline, max_failure_rate=max_failure_rate, skip_bad_rows=skip_bad_rows, overwrite=overwrite,
            )  # fmt: skip
            result = _compare_learned(data, job, showing or Showing())
    finish(result.sheet(), result.to_dict(), out, as_json=as_json)


def _compare_learned(data: str, job: Job, showing: Showing) -> Any:
    from guerdon.comparisons.learned import compare_scores, floor_sample, prompt_groups, rescored, shown

    scorers = {
        name: Scorer(
            # A file is scored to its end: where a reward would stop a training run, its row is written down as failed.
            reward, on_failure="drop_sample" if (policy := policy_of(reward)) == "raise" else policy,
            deadline=job.deadline, max_failure_rate=job.max_failure_rate,
        )
        for name, reward in named_rewards(job.rewards, job.settings).items()
    }  # fmt: skip
    rows = _rows(data, job)
    if rows.prompt is None:
        raise GuerdonError(f"{data} has no prompts; rewards are compared on several completions of each prompt")
    prompts = list(rows.plain[rows.prompt])
    groups = prompt_groups(prompts)
    # A groupwise reward sees whole groups only where the completions of a prompt stand together.
    order = sorted(range(len(groups)), key=groups.__getitem__)
    if order != list(range(len(groups))):
        rows = Rows.of(rows.data.select(order), rows.prompt, rows.completion)
        prompts, groups = [prompts[row] for row in order], sorted(groups)
    if max(Counter(groups).values()) < 2:
        raise GuerdonError(
            f"{data}: every prompt of column {rows.prompt!r} has one completion; two at least are compared"
        )
    assert job.out is not None
    write_scores(rows, scorers, job.out, job)
    lines = list(scored_lines(job.out))
    scores = {name: [line["scores"][name] if line["valid"][name] else math.nan for line in lines] for name in scorers}
    absent = {
        name: {
            "does not apply": sum(not one["valid"][name] and name not in one.get("failed", {}) for one in lines),
            "failed": sum(name in one.get("failed", {}) for one in lines),
        }
        for name in scorers
    }
    chosen = floor_sample(groups, showing.floor_rows, seed=showing.seed)
    try:
        part = Rows.of(rows.data.select(chosen), rows.prompt, rows.completion).arguments(0, len(chosen))
        again = rescored(scorers, *part, chosen, len(rows)) if chosen else None
    finally:
        for scorer in scorers.values():
            scorer.close()
    return compare_scores(
        scores, prompts, [shown(one) for one in rows.plain[rows.completion]], again=again, absent=absent,
        identities={name: scorer.identity() for name, scorer in scorers.items()}, facts={"data": data},
        examples=showing.examples, seed=showing.seed,
    )  # fmt: skip


def _rows(data: str, job: Job) -> Rows:
    """Rows of prompt and completion; preference pairs are two completions of one prompt."""
    if job.completion_column is not None:
        return read_rows(data, job)
    columns = set(load_rows(data, limit=1, skip_bad_rows=True).column_names)
    if columns & {"completion", "image"} or not any(layout <= columns for layout in PAIRS):
        return read_rows(data, job)
    from datasets import Dataset

    from guerdon.core.preferences import load_pairs, text_of

    assert job.out is not None
    pairs = load_pairs(data, skip_bad_rows=job.skip_bad_rows, limit=job.limit, out=job.out.parent)
    if lacking := next((pair for pair in pairs if pair.images or not pair.prompt), None):
        what = "a picture in its prompt" if lacking.images else "no prompt"
        raise GuerdonError(f"{lacking.where} has {what}; give rows of prompt and completion instead of pairs")
    # One turn each is text, as most rewards want it; more turns stay messages.
    plain = all(len(pair.prompt) == len(pair.chosen) == len(pair.rejected) == 1 for pair in pairs)
    sides = [
        {"prompt": text_of(pair.prompt) if plain else pair.prompt, "completion": text_of(side) if plain else side}
        for pair in pairs
        for side in (pair.chosen, pair.rejected)
    ]
    return Rows.of(Dataset.from_list(sides), "prompt", "completion")
