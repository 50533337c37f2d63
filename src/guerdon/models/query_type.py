"""Is a query open, with many good answers, or closed, with one? A classifier of queries, learnt from labelled ones.

Source: R^3 (arXiv 2402.03469v1), whose labels are a language model's and whose classifier is a fine-tuned one; how the
latter was trained is UNVERIFIED.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from guerdon.core.data import find_source, read_rows
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.preferences import as_messages, text_of

__all__ = ["KINDS", "QueryTypeClassifier", "TunedQueryTypes", "load", "query_of"]

KINDS = ("OPENENDED", "CONSTRAINED")
FOLDS = 5
_TEXT = ("query", "prompt", "input", "instruction")


class QueryTypeClassifier:
    """Query type by words and word pairs (tf-idf, logistic regression), fitted to labelled queries.

    accuracy: share right in 5-fold cross-validation, or None with fewer than 5 queries of a kind. Raises GuerdonError
    for lists of different lengths or queries of one kind only.
    """

    def __init__(self, queries: Sequence[str], kinds: Sequence[str]) -> None:
        counts = {kind: list(kinds).count(kind) for kind in set(kinds)}
        if len(queries) != len(kinds) or len(counts) < 2:
            raise GuerdonError(f"{len(queries)} queries of the kinds {counts}: at least two kinds are needed")
        self._model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+"),
            LogisticRegression(class_weight="balanced"),
        )
        self.accuracy: float | None = None
        if min(counts.values()) >= FOLDS:
            self.accuracy = float(cross_val_score(self._model, list(queries), list(kinds), cv=FOLDS).mean())
        self._model.fit(list(queries), list(kinds))

    def __call__(self, queries: Sequence[str]) -> list[str]:
        """The kind of each query."""
        return [str(kind) for kind in self._model.predict(list(queries))] if len(queries) else []


class TunedQueryTypes:
    """Query type by a sequence classifier of transformers (a folder or hub id) whose ``id2label`` names the kinds."""

    accuracy: float | None = None

    def __init__(self, path: str, kinds: Sequence[str] = KINDS, *, batch_size: int = 32) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            self.model: Any = AutoModelForSequenceClassification.from_pretrained(path).eval()
            self.tokenizer: Any = AutoTokenizer.from_pretrained(path)
        except (OSError, ValueError) as error:
            told = str(error).splitlines()[0]
            raise GuerdonError(f"neither labelled queries nor a sequence classifier at {path!r}: {told}") from error
        self.labels = [self.model.config.id2label[place] for place in range(self.model.config.num_labels)]
        for label in self.labels:
            if label not in kinds:
                raise unknown(f"label of the classifier {path}:", str(label), kinds)
        self.batch_size = batch_size

    @torch.no_grad()
    def __call__(self, queries: Sequence[str]) -> list[str]:
        """The kind of each query."""
        found: list[str] = []
        for start in range(0, len(queries), self.batch_size):
            some = list(queries[start : start + self.batch_size])
            read = self.tokenizer(some, return_tensors="pt", padding=True, truncation=True).to(self.model.device)
            found += [self.labels[place] for place in self.model(**read).logits.argmax(dim=-1).tolist()]
        return found


def load(path: str, *, column: str = "qtype", kinds: Sequence[str] = KINDS) -> Callable[[Sequence[str]], list[str]]:
    """A classifier from a file of labelled queries (a text in ``query``, ``prompt``, ``input`` or ``instruction``, the
    kind in ``column``), or a sequence classifier's folder or hub id.

    Raises GuerdonError naming the rows without a text or with an unknown kind.
    """
    if not Path(path).is_file():
        return TunedQueryTypes(path, kinds)

    def wrong(row: Mapping[str, Any]) -> str | None:
        if _said(row) is None:
            return f"has no query in any of {', '.join(_TEXT)}"
        return None if row[column] in kinds else str(unknown(column, str(row[column]), kinds))

    rows = read_rows(find_source(path), required=(column,), every_column=True, check=wrong)
    return QueryTypeClassifier([str(_said(row)) for _, row in rows], [str(row[column]) for _, row in rows])


def query_of(prompt: Any) -> str:
    """What the user said in a prompt, turns joined."""
    return text_of([one for one in as_messages(prompt, "user") if one["role"] == "user"])


def _said(row: Mapping[str, Any]) -> str | None:
    given = next((row[name] for name in _TEXT if row.get(name)), None)
    return None if given is None else query_of(given)
