"""Contrast pairs: two instructions that look alike and ask for different things, each with an answer of its own.

A reward that reads the instruction puts each answer above the other one under its own instruction. All but the
embedding is text here: pairs that show pictures are left out.

Source: Contrast Instructions (arXiv 2309.16155).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.preferences import Message, Pair, as_messages, text_of

__all__ = ["TEMPLATES", "Contrast", "ContrastInstructions", "OverlapBaseline", "mine_contrast", "score_contrasts"]

AnswerField = Literal["j", "k"]
Embed = Callable[[list[str]], NDArray[Any]]
"""Texts -> float [N, d]."""

TEMPLATES = {
    "stack": "Question: {q}\n\nAnswer: {r}",
    "para": "Paraphrase the following sentence: {q}\n\nAnswer: {r}",
    "sum": "Summarize the paragraph: {q}\n\nAnswer: {r}",
    "wmt": "Please translate the sentences to English: {q}\n\nAnswer: {r}",
}
"""What the published reward models read, by task: StackExchange, Twitter, RealSumm, WMT."""

_WORD = re.compile(r"\w+")
_BLOCK = 1024


class Judge(Protocol):
    """Anything with ``score(conversations)`` -> [N]."""

    def score(self, conversations: Any, **options: Any) -> Any: ...


@dataclass(frozen=True)
class Contrast:
    """Two instructions and the answer to each. similarity: cosine of the instructions, where known."""

    first: list[Message]
    first_answer: list[Message]
    second: list[Message]
    second_answer: list[Message]
    similarity: float | None = None
    task: str = ""
    where: str = ""

    def conversations(self, template: str | None = None) -> list[Any]:
        """The four combinations (instruction, answer): (0, 0), (0, 1), (1, 0), (1, 1).

        template: a name of ``TEMPLATES`` for the published plain text, None for messages.
        """
        answers = (self.first_answer, self.second_answer)
        both = [(asked, said) for asked in (self.first, self.second) for said in answers]
        if template is None:
            return [[*asked, *said] for asked, said in both]
        return [TEMPLATES[template].format(q=text_of(asked), r=text_of(said)) for asked, said in both]


@dataclass(frozen=True)
class ContrastInstructions:
    """Contrast pairs, each once; ``dropped`` counts by reason what was left out, ``answer_field`` of published ones."""

    contrasts: list[Contrast]
    dropped: dict[str, int] = field(default_factory=dict)
    answer_field: AnswerField | None = None

    def __len__(self) -> int:
        return len(self.contrasts)

    def __iter__(self) -> Iterator[Contrast]:
        return iter(self.contrasts)

    @property
    def groups(self) -> list[str]:
        """The first instruction of each pair: pairs that share it are not independent."""
        return [text_of(one.first) for one in self.contrasts]

    @property
    def tasks(self) -> list[str]:
        """The task of each pair."""
        return [one.task for one in self.contrasts]

    def rows(self) -> list[dict[str, Any]]:
        """The pairs under the published keys, for a person to look at; the answers as ``*_response_j``."""
        return [
            {
                "query": text_of(one.first), "retrieval": text_of(one.second), "similarity": one.similarity,
                "query_response_j": text_of(one.first_answer), "retrieval_response_j": text_of(one.second_answer),
            }
            for one in self.contrasts
        ]  # fmt: skip

    @classmethod
    def load(cls, path: str | Path, answer_field: AnswerField, *, task: str | None = None) -> ContrastInstructions:
        """Read a published file (JSON list or lines with query, retrieval, and both with _response_j and _response_k).

        answer_field: which response stands for an instruction's answer. "j" is the one that the preference data
            prefer (all Twitter and RealSumm rows); "k" is what the authors' README names and their scripts read.
            There is no default, since it decides what is measured.
        task: default what the file's name says, such as wmt in wmt_contrast.json.

        Unordered (query, retrieval) pairs that repeat, and rows with the same instruction or answer on both sides, are
        dropped and counted. Raises GuerdonError naming the row and key that is missing or no text.
        """
        if answer_field not in get_args(AnswerField):
            raise unknown("answer field", str(answer_field), get_args(AnswerField))
        file = Path(path)
        keys = ("query", f"query_response_{answer_field}", "retrieval", f"retrieval_response_{answer_field}")
        found = []
        for number, row in enumerate(_json_rows(file), start=1):
            for key in keys:
                if not isinstance(row, dict) or not isinstance(row.get(key), str):
                    raise GuerdonError(f"{file}: row {number} has no text under the key {key!r}")
            query, said, retrieval, other = (row[key] for key in keys)
            found.append(
                Contrast(
                    as_messages(query),
                    _answer(said),
                    as_messages(retrieval),
                    _answer(other),
                    task=task if task is not None else file.name.partition("_")[0],
                    where=f"{file}:{number}",
                )
            )
        kept, dropped = _distinct(found)
        return cls(kept, dropped, answer_field)


def mine_contrast(
    rows: Sequence[Pair] | Sequence[tuple[str, str]],
    embed: Embed,
    low: float = 0.75,
    high: float = 0.9,
    lexical: float = 0.0,
    *,
    different: Callable[[str, str], bool] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> ContrastInstructions:
    """Contrast pairs of any preference data: instructions whose embeddings have a cosine in [low, high].

    rows:       pairs (their chosen answer counts), or (instruction, answer). The first row of an instruction counts.
    embed:      texts -> [N, d] (`guerdon.models.embedding`). The paper's is SimCSE (sup-simcse-roberta-base).
    lexical:    least share of words in common, |A & B| / |A | B|, in [0, 1]; ours.
    different:  whether two instructions differ in meaning, by an NLI model or a judge: a cosine alone does not say so.
    limit:      so many at most, drawn at random by ``seed``.

    Each unordered pair of instructions comes once; ``dropped`` counts what was left out within the band of cosines,
    and rows without a prompt, with pictures or with an instruction that was seen.
    Source: section 2 and repository; an appendix says [0.8, 0.9]. Raises GuerdonError for low > high or a lexical
    share outside [0, 1].
    """
    if not -1 <= low <= high <= 1:
        raise GuerdonError(f"cosines of contrast pairs need -1 <= low <= high <= 1, got {low} and {high}")
    if not 0 <= lexical <= 1:
        raise GuerdonError(f"lexical must be a share of words in [0, 1], got {lexical}")
    dropped: Counter[str] = Counter()
    asked = _instructions(rows, dropped)
    texts = list(asked)
    words = [_words(text) for text in texts]
    candidates = _in_band(np.asarray(embed(texts), dtype=np.float32), low, high) if texts else []
    if limit is not None:
        candidates = [candidates[place] for place in np.random.default_rng(seed).permutation(len(candidates))]
    found: list[Contrast] = []
    for one, other, similarity in candidates:
        if limit is not None and len(found) >= limit:
            break
        (first, said, where), (second, replied, _) = asked[texts[one]], asked[texts[other]]
        if _jaccard(words[one], words[other]) < lexical:
            dropped["too few words in common"] += 1
        elif _same(said, replied):
            dropped["same answer"] += 1
        elif different is not None and not different(texts[one], texts[other]):
            dropped["same meaning"] += 1
        else:
            found.append(Contrast(first, said, second, replied, similarity, where=where))
    return ContrastInstructions(found, dict(dropped))


def score_contrasts(
    model: Judge, contrasts: Sequence[Contrast] | ContrastInstructions, *, template: str | None = None,
    progress: str | None = None,
) -> NDArray[np.float64]:  # fmt: skip
    """R(instruction i, answer j) of P contrast pairs -> float64 [P, 2, 2], for `guerdon.metrics.consistency`.

    model:     anything with ``score(conversations)`` -> [N]; called once, each conversation scored once.
    template:  a name of ``TEMPLATES``: plain text as the published reward models read it; None: messages, for models
               with a chat template. Scores under two templates do not compare.

    Raises GuerdonError for no pairs, an unknown template, or another number of scores.
    """
    if template is not None and template not in TEMPLATES:
        raise unknown("template", template, TEMPLATES)
    if not len(contrasts):
        raise GuerdonError("there are no contrast pairs to score")
    asked = [one for contrast in contrasts for one in contrast.conversations(template)]
    keys = [json.dumps(one, sort_keys=True, default=str) for one in asked]
    distinct = dict(zip(keys, asked))
    options: dict[str, Any] = {} if progress is None else {"progress": progress}
    scores = torch.as_tensor(model.score(list(distinct.values()), **options)).double().cpu().numpy()
    if scores.shape != (len(distinct),):
        raise GuerdonError(f"a judge gave scores {list(scores.shape)} for {len(distinct)} conversations")
    place = {key: number for number, key in enumerate(distinct)}
    return scores[[place[key] for key in keys]].reshape(-1, 2, 2)


class OverlapBaseline:
    """The share of words that instruction and answer have in common, |A & B| / |A | B|: the floor of any reward.

    On the published Twitter rows it is at chance (C_res .49 to .50, C_ins .47), so these are not solved by overlap.
    """

    name = "overlap"

    def score(self, conversations: Sequence[Sequence[Message]], **ignored: Any) -> NDArray[np.float64]:
        """Scores of conversations, float64 [N] in [0, 1]; the last message is the answer."""
        return np.array([_jaccard(_words(text_of(one[:-1])), _words(text_of(one[-1:]))) for one in conversations])


def _instructions(
    rows: Sequence[Pair] | Sequence[tuple[str, str]], dropped: Counter[str]
) -> dict[str, tuple[list[Message], list[Message], str]]:
    """The first row of each instruction, by the instruction's text."""
    asked: dict[str, tuple[list[Message], list[Message], str]] = {}
    for row in rows:
        if isinstance(row, Pair):
            prompt, said, where = row.prompt, row.chosen, row.where
            if row.images:
                dropped["shows pictures"] += 1
                continue
        else:
            prompt, said, where = as_messages(row[0]), _answer(row[1]), ""
        text = text_of(prompt)
        if not text.strip():
            dropped["no instruction"] += 1
        elif text in asked:
            dropped["repeated instruction"] += 1
        else:
            asked[text] = (prompt, said, where)
    return asked


def _in_band(rows: NDArray[np.float32], low: float, high: float) -> list[tuple[int, int, float]]:
    """(i, j, cosine) of all i < j with a cosine in [low, high]."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    found = []
    for start in range(0, len(unit), _BLOCK):
        near = unit[start : start + _BLOCK] @ unit[start:].T
        one, other = np.nonzero(np.triu((near >= low) & (near <= high), 1))
        found += [(start + int(i), start + int(j), float(near[i, j])) for i, j in zip(one, other)]
    return found


def _distinct(contrasts: Sequence[Contrast]) -> tuple[list[Contrast], dict[str, int]]:
    seen: set[frozenset[str]] = set()
    dropped: Counter[str] = Counter()
    kept = []
    for one in contrasts:
        key = frozenset((text_of(one.first), text_of(one.second)))
        if len(key) < 2:
            dropped["same instruction"] += 1
        elif key in seen:
            dropped["duplicate"] += 1
        elif _same(one.first_answer, one.second_answer):
            dropped["same answer"] += 1
        else:
            kept.append(one)
        seen.add(key)
    return kept, dict(dropped)


def _json_rows(file: Path) -> list[Any]:
    if not file.is_file():
        raise GuerdonError(f"there is no file {file}")
    text = file.read_text(encoding="utf-8")
    try:
        if text.lstrip().startswith("["):
            return list(json.loads(text))
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise GuerdonError(f"{file} is neither a JSON list nor JSON lines: {error}") from None


def _answer(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


def _same(one: list[Message], other: list[Message]) -> bool:
    return text_of(one).split() == text_of(other).split()


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other) if one or other else 0.0
