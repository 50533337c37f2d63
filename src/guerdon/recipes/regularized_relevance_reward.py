"""Preference-free alignment by regularised relevance, R^3 (arXiv 2402.03469v1): no preferences, no reward model.

open queries:   relevance to the query  x  length / 100  x  share of trigrams that are new
closed queries: F(relevance to a reference answer)       x  share of trigrams that are new
The judge is any gold reward: whether the proxy's rise carries it along is the question.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from guerdon.core.runs import RunFolder
from guerdon.models.query_type import load
from guerdon.recipes._kinds import with_kinds
from guerdon.recipes._language import PRESETS, LanguageConfig, Problems, preset_for, run_language
from guerdon.rewards.text.relevance import regularized_relevance

TITLE = "Preference-free Alignment Learning with Regularized Relevance Reward"
__all__ = ["CONFIG", "PRESETS", "RelevanceConfig", "preset_for", "run"]


class RelevanceConfig(LanguageConfig):
    """Rows are told apart by their column ``qtype``, OPENENDED or CONSTRAINED, the latter with a ``reference``; maths
    problems are closed, and their worked solution is the reference. query_types: what tells rows without the column,
    a file of labelled queries or a sequence classifier (`guerdon.models.query_type.load`).

    open_share: of the embedded problems are called open, which no word problem is: what the length term does to them is
    to be seen. encoder: a sentence encoder's folder or hub id (the paper's: facebook/contriever); None: hashed n-grams.
    most: the relevance that F maps onto the longest answer's pay. judge: rows of one's own without a ``solution`` need
    another than the rule verifier, such as a reward model.
    """

    open_share: float = Field(0.0, ge=0, le=1)
    query_types: str | None = None
    encoder: str | None = None
    most: float = Field(1.0, gt=0)


CONFIG = RelevanceConfig


def run(config: RelevanceConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train on R^3 and grade by the judge in ``folder``; returns the summary, which is written there too."""
    embedded = config.data is None
    kind_of = load(config.query_types) if config.query_types is not None else None
    notes = []
    if kind_of is not None and (accuracy := getattr(kind_of, "accuracy", None)) is not None:
        notes.append(f"query types by words of {config.query_types}: {accuracy:.0%} right in cross-validation")

    def rewards(model: Any, tokenizer: Any) -> dict[str, tuple[Any, float]]:
        longest = config.training.max_completion_length
        return {"r3": (regularized_relevance(config.encoder, max_new_tokens=longest, most=config.most), 1.0)}

    def rows(problems: Problems) -> Problems:
        share = config.open_share if embedded else 0.0
        return with_kinds(
            problems, "qtype", {"OPENENDED": None, "CONSTRAINED": "reference"}, share=share, otherwise="CONSTRAINED",
            kind_of=kind_of,
        )  # fmt: skip

    return run_language("regularized-relevance-reward", TITLE, config, folder, resume, rewards, rows=rows, notes=notes)
