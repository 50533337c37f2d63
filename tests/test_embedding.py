"""Texts as unit vectors: pooling, order, padding, and what hashed n-grams hold for alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from guerdon.core.errors import GuerdonError
from guerdon.models.embedding import HashingEmbedder, TextEmbedder
from guerdon.models.scalar.tiny import tiny_tokenizer

TEXTS = ["one", "two three four five one two", "five", "", "one two three " * 30]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("encoder")
    tokenizer = tiny_tokenizer(["one two three four five"], vocab=300)
    torch.manual_seed(0)
    shape = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **shape)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_rows_are_unit_and_belong_to_the_text(folder: Path) -> None:
    embed = TextEmbedder(folder, max_length=64)
    rows = embed(TEXTS)
    assert rows.shape == (5, 16) and rows.dtype == np.float32
    kept = [row for text, row in zip(TEXTS, rows) if text]
    assert np.linalg.norm(kept, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    for size in (1, 2, 3):
        others = TextEmbedder(folder, max_length=64, batch_size=size)(TEXTS[::-1])[::-1]
        assert others == pytest.approx(rows, abs=1e-5)
    assert embed([]).shape == (0, 16)


def test_the_mean_is_over_a_texts_own_tokens(folder: Path) -> None:
    embed = TextEmbedder(folder)
    given = embed.tokenizer([TEXTS[1]], return_tensors="pt")
    with torch.no_grad():
        mean = embed.model(**given).last_hidden_state[0].mean(0)
    assert embed(TEXTS[:2])[1] == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5)


def test_identity_and_errors(folder: Path, tmp_path: Path) -> None:
    assert TextEmbedder(folder).identity() == TextEmbedder(folder).identity()
    assert TextEmbedder(folder).identity() != TextEmbedder(folder, max_length=8).identity()
    with pytest.raises(GuerdonError, match="cannot load a text encoder from"):
        TextEmbedder(tmp_path)


def test_hashing_sees_spelling() -> None:
    embed = HashingEmbedder()
    rows = embed(["What is a kettle for?", "what is a kettle for", "What is a ladder for?", "Sing me a song.", ""])
    assert rows.dtype == np.float32 and rows.shape == (5, 4096)
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 1, 1, 0], abs=1e-6)
    near = rows @ rows.T
    assert near[0, 1] > near[0, 2] > near[0, 3] > -1e-6
    assert embed([]).shape == (0, 4096) and embed(["x y"]).tolist() == HashingEmbedder()(["x y"]).tolist()
    assert HashingEmbedder(64).identity() != embed.identity()
