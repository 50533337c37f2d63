"""Human texts with generated ones beside them, from the files that detectors of generated text are graded by.

The same human texts stand in the file of every generating model, and a generated text may begin with the human one's
first words: whatever splits such data, or resamples them, must go by the human text (`human_key`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.core.data import read_rows
from guerdon.core.errors import GuerdonError
from guerdon.core.json_table import find_table
from guerdon.core.sources import BadRow, Row, Source

__all__ = ["TextPair", "equally_long", "human_key", "load_text_pairs", "split_by_human", "write_pair_files"]

FILE_SUFFIXES = (".json", ".jsonl", ".jsonl.gz", ".parquet", ".csv")
KEY_WORDS = 20
_NAMES = {"human": ("human", "original"), "generated": ("generated", "sampled"), "prompt": ("prompt", "question")}


@dataclass(frozen=True)
class TextPair:
    """A human text and a generated one on the same subject.

    domain, generator:  the kind of text and the model that wrote the other one. prompt: what both answer; None where
    nobody asked. mixed: the human text with sentences of a language model in it. where: ``file:row``.
    """

    human: str
    generated: str
    domain: str = ""
    generator: str = ""
    prompt: str | None = None
    mixed: str | None = None
    where: str = ""

    @property
    def key(self) -> str:
        """`human_key` of its human text."""
        return human_key(self.human)


def human_key(text: str) -> str:
    """What counts as the same human text: its first 20 words, in small letters without punctuation.

    So a text that one file cuts shorter than another is the same text. Texts that begin alike and go on differently
    fall together too, which makes a split coarser, never leaky. The number of words is ours.
    """
    words = re.findall(r"\w+", text.lower())
    return " ".join(words[:KEY_WORDS]) or text.strip()


def load_text_pairs(
    paths: str | Path | Sequence[str | Path],
    *,
    columns: Mapping[str, str] | None = None,
    skip_bad_rows: bool = False,
    limit: int | None = None,
    out: str | Path | None = None,
    seed: int = 0,
) -> list[TextPair]:
    """Pairs from files, folders of files, or data sets on the hub, each in any of these layouts:

    {"original": [...], "sampled": [...]}   one JSON object a file, named <domain>_<generator>.raw_data.json (ReMoDetect
                                            and Fast-DetectGPT); the name tells domain and generator
    human, generated (+ prompt, mixed, domain, generator)   a row a pair; a list counts by its first text (HC3)
    text, label                             a row a text, label 1 or "generated", 0 or "human": paired at random by
                                            ``seed``; what is left over of the larger side is left out

    columns: name here -> name in the files. limit: pairs a file. The others as in `guerdon.core.data.load_rows`.

    Raises GuerdonError for a folder without such files, and naming together the rows that lack a text.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    files = [file for path in given for file in _files(path)]
    if not files:
        raise GuerdonError("no files of human and generated texts were named")
    names = dict(columns or {})
    pairs: list[TextPair] = []
    for file in files:
        pairs += _load(file, names, skip_bad_rows=skip_bad_rows, limit=limit, out=out, seed=seed)
    return pairs


def _files(path: str | Path) -> list[str | Path]:
    folder = Path(path)
    if not folder.is_dir():
        # A list on the command line: a,b,c
        if isinstance(path, str) and "," in path and not folder.exists():
            return [file for part in path.split(",") if part.strip() for file in _files(part.strip())]
        return [path]
    found: list[str | Path] = [
        file
        for file in sorted(folder.iterdir())
        if file.name.lower().endswith(FILE_SUFFIXES) and not file.name.endswith(".args.json")
    ]
    if not found:
        raise GuerdonError(f"{folder} holds no files of texts ({', '.join(FILE_SUFFIXES)})")
    return found


def _load(file: str | Path, names: dict[str, str], *, limit: int | None, seed: int, **options: Any) -> list[TextPair]:
    source = _pair_object(Path(file)) or find_table(file)
    known = set(source.columns)
    if not known:
        first = next((row for row in source.rows(()) if isinstance(row, tuple)), None)
        known = set(first[1]) if first is not None else set()
    columns = {ours: _column(ours, names, known) for ours in _NAMES}
    domain, generator = _named(file)

    def text(row: Mapping[str, Any], column: str) -> str:
        value = row.get(names.get(column, columns.get(column, column)))
        value = value[0] if isinstance(value, list) and value else value
        return value.strip() if isinstance(value, str) else ""

    if names.get("text", "text") in known and columns["human"] not in known:
        return _from_labels(source, names, (domain, generator), limit, seed, options)

    def check(row: dict[str, Any]) -> str | None:
        lacking = next((side for side in ("human", "generated") if len(text(row, side).split()) < 2), None)
        return None if lacking is None else f"column {columns[lacking]!r} holds no text of two words or more"

    required = [columns["human"], columns["generated"]]
    rows = read_rows(source, required=required, limit=limit, check=check, every_column=True, **options)
    return [
        TextPair(
            text(row, "human"), text(row, "generated"), text(row, "domain") or domain,
            text(row, "generator") or generator, text(row, "prompt") or None, text(row, "mixed") or None, where,
        )
        for where, row in rows
    ]  # fmt: skip


def _column(ours: str, names: Mapping[str, str], known: set[str]) -> str:
    if ours in names:
        return names[ours]
    return next((name for name in _NAMES[ours] if name in known), ours)


def _pair_object(path: Path) -> Source | None:
    """The rows of one JSON object with the lists "original" and "sampled", or None where the file is none."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError, OSError):
        return None
    if not isinstance(value, dict) or not all(isinstance(value.get(side), list) for side in ("original", "sampled")):
        return None
    sides = value["original"], value["sampled"]
    if len(sides[0]) != len(sides[1]):
        raise GuerdonError(f"{path}: {len(sides[0])} original texts and {len(sides[1])} sampled ones are no pairs")

    def rows(needed: tuple[str, ...]) -> Iterator[Row | BadRow]:
        for number, (human, generated) in enumerate(zip(*sides), 1):
            yield f"{path}:{number}", {"original": human, "sampled": generated}

    return Source(str(path), rows, ("original", "sampled"))


def _named(file: str | Path) -> tuple[str, str]:
    """(domain, generator) of <domain>_<generator>.raw_data.json; a name without "_" is the domain's."""
    name = Path(file).name
    for suffix in (".gz", *FILE_SUFFIXES, ".raw_data"):
        name = name.removesuffix(suffix)
    domain, _, generator = name.partition("_")
    return domain, generator or "generated"


def _from_labels(
    source: Source, names: Mapping[str, str], named: tuple[str, str], limit: int | None, seed: int,
    options: Mapping[str, Any],
) -> list[TextPair]:  # fmt: skip
    column, label = names.get("text", "text"), names.get("label", "label")
    sides = {0: 0, 1: 1, "human": 0, "generated": 1, "0": 0, "1": 1}

    def check(row: dict[str, Any]) -> str | None:
        if row[label] not in sides:
            return f"column {label!r} must be 0 or 'human', or 1 or 'generated', got {row[label]!r}"
        told = row[column]
        return None if isinstance(told, str) and len(told.split()) > 1 else f"column {column!r} has no text"

    rows = read_rows(source, required=(column, label), check=check, every_column=True, **options)
    rng = np.random.default_rng(seed)
    texts = [[(where, row) for where, row in rows if sides[row[label]] == side] for side in (0, 1)]
    if not all(texts):
        raise GuerdonError(f"{source.name}: there are texts of one label only, so there is nothing to tell apart")
    human, generated = ([side[place] for place in rng.permutation(len(side))] for side in texts)
    pairs = [
        TextPair(str(one[column]).strip(), str(other[column]).strip(), *named, where=f"{where} and {there}")
        for (where, one), (there, other) in zip(human, generated)
    ]
    return pairs[:limit]


def equally_long(pair: TextPair, least: int = 2) -> TextPair:
    """The pair with both texts cut to as many words as the shorter one has (the harness's rule), at least ``least``."""
    words = max(least, min(len(pair.human.split()), len(pair.generated.split())))
    return replace(pair, human=_first_words(pair.human, words), generated=_first_words(pair.generated, words))


def _first_words(text: str, count: int) -> str:
    ends = [found.end() for found in re.finditer(r"\S+", text)]
    return text if len(ends) <= count else text[: ends[count - 1]]


def split_by_human(pairs: Sequence[TextPair], share: float, *, seed: int = 0) -> tuple[list[TextPair], list[TextPair]]:
    """(train, test): a random ``share`` of the human texts, at least one, with all that stands against them in test.

    A split by file or by pair would train on the human side of its own test. Raises GuerdonError where one side would
    be left without a text.
    """
    keys = [pair.key for pair in pairs]
    names = sorted(set(keys))
    held = max(1, round(share * len(names)))
    if held >= len(names):
        raise GuerdonError(f"a share of {share} leaves no human text of {len(names)} to train on; give more texts")
    test = {names[place] for place in np.random.default_rng(seed).permutation(len(names))[:held]}
    return (
        [pair for key, pair in zip(keys, pairs) if key not in test],
        [pair for key, pair in zip(keys, pairs) if key in test],
    )


def write_pair_files(pairs: Iterable[TextPair], folder: Path) -> list[Path]:
    """Write pairs as <domain>_<generator>.raw_data.json, for `load_text_pairs` and for other harnesses."""
    sides: dict[tuple[str, str], dict[str, list[str]]] = {}
    for pair in pairs:
        one = sides.setdefault((pair.domain, pair.generator), {"original": [], "sampled": []})
        one["original"].append(pair.human)
        one["sampled"].append(pair.generated)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for (domain, generator), texts in sides.items():
        name = re.sub(r"[^\w.-]+", "-", f"{domain.replace('_', '-') or 'texts'}_{generator}")
        path = folder / f"{name}.raw_data.json"
        path.write_text(json.dumps(texts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        written.append(path)
    return written
