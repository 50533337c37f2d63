"""MRMBench's tasks: texts with a label in one dimension of preference, six dimensions, two or three labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from guerdon.core.data import read_rows
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.json_table import find_table
from guerdon.core.preferences import Message

__all__ = ["DIMENSIONS", "HUB", "LABELS", "Labelled", "Level", "Task", "load_tasks"]

HUB = "ifnoc/MRMBench"
DIMENSIONS = ("harmlessness", "helpfulness", "correctness", "coherence", "complexity", "verbosity")
Level = Literal["easy", "hard"]
LABELS: dict[str, dict[str, tuple[str, ...]]] = {
    "easy": {
        "harmlessness": ("harmful", "harmless"), "helpfulness": ("unhelpful", "helpful"),
        "correctness": ("incorrect", "correct"), "coherence": ("incoherent", "coherent"),
        "complexity": ("basic", "expert"), "verbosity": ("succinct", "verbose"),
    },
    "hard": {
        "harmlessness": ("harmful", "minor", "harmless"), "helpfulness": ("unhelpful", "partially", "helpful"),
        "correctness": ("incorrect", "partially", "correct"), "coherence": ("incoherent", "somewhat", "coherent"),
        "complexity": ("basic", "minorly", "expert"), "verbosity": ("succinct", "intermediate", "verbose"),
    },
}  # fmt: skip
_SPLITS = ("train", "test")
_ENDINGS = (".json", ".jsonl", ".jsonl.gz", ".parquet", ".csv")


@dataclass(frozen=True)
class Labelled:
    """Texts with labels: conversations of a prompt ("input") and an answer ("output"), and integers [N]."""

    conversations: list[list[Message]]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.conversations)


@dataclass(frozen=True)
class Task:
    """One dimension: what the probe is trained on and tested on, and how many labels there are."""

    dimension: str
    train: Labelled
    test: Labelled
    classes: int


def load_tasks(
    data: str | Path | None = None,
    *,
    level: Level = "easy",
    dimensions: Sequence[str] | None = None,
    classes: int | None = None,
    limit: int | None = None,
    skip_bad_rows: bool = False,
    out: Path | None = None,
    seed: int = 0,
) -> list[Task]:
    """The tasks of a folder in MRMBench's layout or of the hub's (``data`` None, or a hub id).

    The layout: ``mrm_{easy,hard}/DIMENSION/{train,test}.json``, rows of input, output and label.

    data:        that folder, the folder ``mrm_easy`` or ``mrm_hard`` in it, or any folder of one's own dimensions laid
                 out like the latter. Files may also be jsonl, parquet or csv.
    dimensions:  a choice of them; None: the six, or in a folder of one's own whatever there is.
    classes:     labels 0..classes-1; None: 2 for "easy", 3 for "hard".
    limit:       at most so many training rows a dimension, drawn by ``seed``; test rows are all used.

    UNVERIFIED: the hub's files are taken to lie as in the paper's repository. Raises GuerdonError for a dimension or a
    file that is not there, and naming together all rows of a file that cannot be used.
    """
    if level not in get_args(Level):
        raise unknown("level", level, get_args(Level))
    folder = _folder(data, level)
    there = sorted(path.name for path in folder.iterdir() if path.is_dir())
    wanted = list(dimensions) if dimensions is not None else _default(there)
    if not wanted:
        raise GuerdonError(f"{folder} holds no folder of a dimension, such as {DIMENSIONS[0]}")
    missing = [name for name in wanted if name not in there]
    if missing:
        if dimensions is not None and missing[0] not in DIMENSIONS:
            raise unknown("dimension", missing[0], there or DIMENSIONS)
        raise GuerdonError(
            f"{folder} lacks the dimensions {', '.join(missing)}; it holds {', '.join(there) or 'none'}: name those "
            "with --dimensions, and their mean is not MRMBench's"
        )
    count = classes or {"easy": 2, "hard": 3}[level]
    tasks = []
    for name in wanted:
        train, test = (_labelled(folder / name, split, count, skip_bad_rows, out) for split in _SPLITS)
        tasks.append(Task(name, _sampled(train, limit, seed), test, count))
    return tasks


def _default(there: Sequence[str]) -> list[str]:
    known = [name for name in DIMENSIONS if name in there]
    return list(DIMENSIONS) if known else list(there)


def _folder(data: str | Path | None, level: str) -> Path:
    root = Path(data) if data is not None and Path(data).exists() else _from_hub(str(data or HUB), level, data is None)
    if not root.is_dir():
        raise GuerdonError(f"{root} is a file; MRMBench is a folder of dimensions, each with train and test rows")
    for place in (root / f"mrm_{level}", root / "data" / f"mrm_{level}"):
        if place.is_dir():
            return place
    other = {"easy": "hard", "hard": "easy"}[level]
    if root.name == f"mrm_{other}" or (root / f"mrm_{other}").is_dir():
        raise GuerdonError(f"{root} holds the level {other!r}, not {level!r}")
    return root


def _from_hub(name: str, level: str, default: bool) -> Path:
    if not default and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise GuerdonError(f"there is no folder {name}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=[f"*mrm_{level}/*"]))
    except Exception as error:  # the hub's client has a dozen kinds of them
        raise GuerdonError(
            f"MRMBench could not be had from the hub as {name!r} ({type(error).__name__}); give --data, a folder with "
            f"mrm_{level}/DIMENSION/train.json and test.json, rows of input, output and label"
        ) from error


def _labelled(folder: Path, split: str, classes: int, skip: bool, out: Path | None) -> Labelled:
    path = next((folder / f"{split}{ending}" for ending in _ENDINGS if (folder / f"{split}{ending}").is_file()), None)
    if path is None:
        raise GuerdonError(f"{folder} lacks {split}.json, rows of input, output and label")

    def check(row: dict[str, Any]) -> str | None:
        label = row["label"]
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < classes:
            return f"column 'label' must be one of 0 to {classes - 1}, got {label!r}"
        if not all(isinstance(row[name], str) for name in ("input", "output")):
            return "columns 'input' and 'output' must be text"
        return None

    rows = read_rows(
        find_table(path), required=("input", "output", "label"), check=check, skip_bad_rows=skip,
        out=None if out is None else out / f"{folder.name}-{split}", every_column=True,
    )  # fmt: skip
    talks = [
        [{"role": "user", "content": row["input"]}, {"role": "assistant", "content": row["output"]}] for _, row in rows
    ]
    return Labelled(talks, np.array([row["label"] for _, row in rows], dtype=np.int64))


def _sampled(given: Labelled, limit: int | None, seed: int) -> Labelled:
    if limit is None or limit >= len(given):
        return given
    if limit < 1:
        raise GuerdonError(f"limit must be at least 1, got {limit}")
    kept = np.sort(np.random.default_rng(seed).permutation(len(given))[:limit])
    return Labelled([given.conversations[row] for row in kept], given.labels[kept])
