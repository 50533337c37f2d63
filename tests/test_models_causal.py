"""Causal language models from folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from guerdon.core.errors import GuerdonError
from guerdon.models.causal import load_causal
from guerdon.models.tiny_causal import tiny_causal


def test_a_folder_gives_back_what_was_saved(tmp_path: Path) -> None:
    model, tokenizer = tiny_causal(["a b c"], hidden=16, layers=1, heads=2, vocab=270)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, same = load_causal(tmp_path, device="cpu")
    assert same("a b")["input_ids"] == tokenizer("a b")["input_ids"]
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(GuerdonError, match="nothing'?: there is no such folder"):
        load_causal(tmp_path / "nothing")
    with pytest.raises(GuerdonError, match=f"no causal language model at '{tmp_path}'"):
        load_causal(tmp_path)
    with pytest.raises(GuerdonError, match="no causal language model at 'nobody/nothing'"):
        load_causal("nobody/nothing")
