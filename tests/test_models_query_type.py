"""Open or closed queries, told by labelled ones or by a tuned classifier."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import Qwen3ForSequenceClassification

from guerdon.core.errors import GuerdonError
from guerdon.models.query_type import QueryTypeClassifier, TunedQueryTypes, load, query_of
from guerdon.models.tiny_causal import tiny_causal

THINGS = ("river", "castle", "violin", "bridge", "garden", "comet", "lantern", "harbour")
OPEN = [f"{begin} a {thing}." for thing in THINGS for begin in ("Write a story about", "Imagine and describe")]
CLOSED = [f"{begin} a {thing}?" for thing in THINGS for begin in ("How many letters has the name of", "What is")]


def labelled(path: Path, **more: str) -> str:
    rows = [{"input": text, "qtype": kind} for kind, some in (("OPENENDED", OPEN), ("CONSTRAINED", CLOSED))
            for text in some]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *([more] if more else [])]), encoding="utf-8")
    return str(path)


def test_queries_of_new_things_are_told_apart(tmp_path: Path) -> None:
    tell = load(labelled(tmp_path / "types.jsonl"))
    assert tell(["Write a story about a ship.", "What is a ship?"]) == ["OPENENDED", "CONSTRAINED"] and tell([]) == []
    assert isinstance(tell, QueryTypeClassifier) and tell.accuracy is not None and tell.accuracy > 0.9
    few = QueryTypeClassifier(["a b", "c d"], ["OPENENDED", "CONSTRAINED"])
    assert few.accuracy is None


def test_bad_labels_are_named(tmp_path: Path) -> None:
    with pytest.raises(GuerdonError, match="did you mean 'OPENENDED'"):
        load(labelled(tmp_path / "types.jsonl", input="x", qtype="OPENEND"))
    with pytest.raises(GuerdonError, match="no query in any of query, prompt"):
        load(labelled(tmp_path / "types.jsonl", text="x", qtype="OPENENDED"))
    with pytest.raises(GuerdonError, match="two kinds"):
        QueryTypeClassifier(["a", "b"], ["OPENENDED"] * 2)
    with pytest.raises(GuerdonError, match="neither labelled queries nor a sequence classifier"):
        load(str(tmp_path / "nothing"))


def test_a_tuned_classifier_of_transformers(tmp_path: Path) -> None:
    causal, tokenizer = tiny_causal([*OPEN, *CLOSED], hidden=16, layers=1, heads=2, vocab=300)
    config = causal.config
    config.num_labels, config.pad_token_id = 2, tokenizer.pad_token_id
    config.id2label = {0: "OPENENDED", 1: "CONSTRAINED"}
    torch.manual_seed(0)
    model = Qwen3ForSequenceClassification(config)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    tell = load(str(tmp_path))
    together = tell([*OPEN[:5], *CLOSED[:5]])
    alone = [tell([query])[0] for query in [*OPEN[:5], *CLOSED[:5]]]
    assert together == alone and set(together) <= {"OPENENDED", "CONSTRAINED"}
    model.config.id2label = {0: "LONG", 1: "CONSTRAINED"}
    model.save_pretrained(tmp_path)
    with pytest.raises(GuerdonError, match="'LONG'"):
        TunedQueryTypes(str(tmp_path))


def test_the_query_is_what_the_user_said() -> None:
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
    ]
    assert query_of(turns) == "a\nb" and query_of("a") == "a"
