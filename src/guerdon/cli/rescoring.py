"""``guerdon score --rescore``: another reward for what is stored already, and how far the two agree."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from guerdon.cli.output import number, table
from guerdon.cli.scoring import COMPLETIONS, Job, Rows
from guerdon.core.errors import GuerdonError

# A prompt with very many completions has more pairs than a share needs.
MOST_PAIRS = 20_000


def stored_rows(source: Path, job: Job) -> Rows:
    """The samples of a run's folder (columns arm, index, prompt, rewrite, seed), or the rows of a scores.jsonl."""
    if (source / "samples" / "index.json").is_file():
        return _samples(source)
    if source.is_file():
        return _scored(source, job)
    raise GuerdonError(f"{source} holds nothing to score again: no samples/index.json of a run, no file of scored rows")


def _samples(run: Path) -> Rows:
    from datasets import Dataset, Image

    index = run / "samples" / "index.json"
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        described = {int(entry["index"]): entry for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GuerdonError(f"{index} cannot be read: {error}") from None
    rows = []
    for arm in sorted(path for path in index.parent.iterdir() if path.is_dir()):
        for place, entry in sorted(described.items()):
            picture = arm / f"{place:03d}.png"
            if not picture.is_file():
                raise GuerdonError(f"{picture} is missing, though {index} names it")
            rows.append({**entry, "arm": arm.name, "image": str(picture)})
    if not rows:
        raise GuerdonError(f"{index.parent} holds no samples")
    return Rows.of(Dataset.from_list(rows).cast_column("image", Image()), "prompt", "image")


def _scored(file: Path, job: Job) -> Rows:
    from datasets import Dataset

    rows = []
    for place, raw in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(raw)
            row = dict(line["input"])
            earlier = {name: value for name, value in line["scores"].items() if line["valid"][name]}
        except (ValueError, KeyError, TypeError):
            raise GuerdonError(f"{file}:{place} is not a scored row") from None
        rows.append({**row, "earlier": json.dumps(earlier)})
        if len(rows) == job.limit:
            break
    if not rows:
        raise GuerdonError(f"{file} holds no scored rows")
    completion = job.completion_column or next((name for name in COMPLETIONS if name in rows[0]), None)
    if completion is None or completion not in rows[0]:
        listed = ", ".join(key for key in rows[0] if key != "earlier")
        raise GuerdonError(f"{file} does not hold the completions themselves (columns: {listed}); score the data again")
    prompt = job.prompt_column or ("prompt" if "prompt" in rows[0] else None)
    return Rows.of(Dataset.from_list(rows), prompt, completion)


def compare(lines: list[dict[str, Any]]) -> Iterator[Table]:
    """Tables: the arms of a run against its base, pair by pair; or the rewards before and now, pair by pair."""
    if lines and "arm" in lines[0]["input"]:
        yield _arms(lines)
    elif lines and "earlier" in lines[0]["input"]:
        yield _agreement(lines)


def _arms(lines: list[dict[str, Any]]) -> Table:
    from guerdon.metrics.intervals import bootstrap_mean, paired_difference

    by_arm: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for line in lines:
        by_arm[line["input"]["arm"]][line["input"]["index"]] = line
    rows = []
    for name in lines[0]["scores"]:
        for arm, own in by_arm.items():
            values = {i: line["scores"][name] for i, line in own.items() if line["valid"][name]}
            base = {i: line["scores"][name] for i, line in by_arm.get("base", {}).items() if line["valid"][name]}
            both = sorted(values.keys() & base.keys()) if arm != "base" else []
            gain = paired_difference([values[i] for i in both], [base[i] for i in both]) if both else "-"
            mean = bootstrap_mean(list(values.values())) if values else "-"
            rows.append([name, arm, str(len(values)), mean, gain])
    columns = ("reward", "arm", "n", "mean", "minus base, same prompt and seed")
    return table("arms of the run", columns, rows, right=("n",))


def _agreement(lines: list[dict[str, Any]]) -> Table:
    from scipy.stats import spearmanr

    rows = []
    earlier = [json.loads(line["input"]["earlier"]) for line in lines]
    before_names = sorted({name for one in earlier for name in one})
    prompts = [json.dumps(line["input"].get("prompt"), sort_keys=True) for line in lines]
    for now in lines[0]["scores"]:
        for before in before_names:
            both = [i for i, line in enumerate(lines) if line["valid"][now] and before in earlier[i]]
            new = np.array([lines[i]["scores"][now] for i in both])
            old = np.array([earlier[i][before] for i in both])
            varied = len(both) > 2 and len(set(new)) > 1 and len(set(old)) > 1
            rank = float(spearmanr(old, new).statistic) if varied else None
            same, pairs = _pairs([prompts[i] for i in both], old, new)
            share = number(same / pairs if pairs else None)
            rows.append([before, now, str(len(both)), number(rank), share, str(pairs)])
    columns = ("before", "now", "n", "rank correlation", "same winner", "pairs of one prompt")
    return table("agreement", columns, rows, right=columns[2:])


def _pairs(prompts: list[str], old: np.ndarray, new: np.ndarray) -> tuple[int, int]:
    """Of the pairs of completions of one prompt that neither reward ties: how many both order alike, and how many."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        groups[prompt].append(place)
    same = pairs = 0
    for members in groups.values():
        for one, other in combinations(members, 2):
            gaps = (old[one] - old[other]) * (new[one] - new[other])
            if gaps:
                pairs += 1
                same += int(gaps > 0)
            if pairs >= MOST_PAIRS:
                return same, pairs
    return same, pairs
