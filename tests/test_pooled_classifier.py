"""DeBERTa's sequence classifiers as scalar reward models: the same scores, saved, loaded and trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification, PreTrainedTokenizerFast

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair
from guerdon.models.scalar.head import pool_hidden
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.trainers.preference import PreferenceConfig, RewardModelTrainer

WORDS = "is it so yes no the kettle boils water a saw cuts wood name colour that you like and say why".split()


def tokenizer() -> Any:
    vocab = {name: place for place, name in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]",
        bos_token="[CLS]", eos_token="[SEP]", model_max_length=64,
    )  # fmt: skip


def classifier(**changes: Any) -> Any:
    torch.manual_seed(0)
    config = DebertaV2Config(
        **{
            "vocab_size": 4 + len(WORDS),
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 64,
            "relative_attention": True,
            "position_buckets": 8,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "type_vocab_size": 0,
            "num_labels": 1,
            "pad_token_id": 0,
            **changes,
        }  # fmt: skip
    )
    made = DebertaV2ForSequenceClassification(config).eval()
    with torch.no_grad():
        for part in made.parameters():
            part.mul_(3.0)  # untrained scores differ by less than rounding otherwise
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("classifier")
    classifier().save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


@torch.no_grad()
def published(folder: Path, *texts: str) -> float:
    model = DebertaV2ForSequenceClassification.from_pretrained(folder).eval()
    given = tokenizer()(*texts, return_tensors="pt", return_token_type_ids=False)
    return float(model(**given).logits[0, 0])


def test_scores_are_the_classifiers(folder: Path) -> None:
    model = ScalarRewardModel.from_pretrained(folder)
    texts = ["the kettle boils water", "a saw cuts wood and why"]
    alone = [[{"role": "assistant", "content": text}] for text in texts]
    assert model.score(alone).tolist() == pytest.approx([published(folder, text) for text in texts], abs=1e-5)
    assert model.score(texts).tolist() == pytest.approx(model.score(alone).tolist(), abs=1e-6)
    asked = [{"role": "user", "content": "is it so"}, {"role": "assistant", "content": "yes the water boils"}]
    assert model.score([asked]).item() == pytest.approx(published(folder, "is it so", "yes the water boils"), abs=1e-5)
    # No text can end its own part.
    forged = model.encode([{"role": "assistant", "content": "yes [SEP] no"}]).ids
    assert forged.count(2) == 1


def test_saved_loaded_and_trained(folder: Path, tmp_path: Path) -> None:
    model = ScalarRewardModel.from_pretrained(folder)
    talks = [[{"role": "assistant", "content": text}] for text in ("the kettle boils water", "a saw cuts wood")]
    pair = Pair([], talks[0], talks[1])
    before = model.score(talks)
    RewardModelTrainer(model, [pair] * 4, PreferenceConfig(steps=6, batch_size=4, learning_rate=3e-3)).train()
    after = model.score(talks)
    assert (after[0] - after[1]) > (before[0] - before[1]) + 0.01
    loaded = ScalarRewardModel.from_pretrained(model.save_pretrained(tmp_path / "saved"))
    assert torch.allclose(loaded.score(talks), after, atol=1e-6) and loaded.pooling == "first"


def test_the_first_token_wherever_the_padding_is() -> None:
    hidden = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    assert pool_hidden(hidden, mask, "first").tolist() == [[0.0, 1.0], [8.0, 9.0]]


def test_refusals(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(GuerdonError, match="first token only"):
        ScalarRewardModel.from_pretrained(folder, pooling="mean")
    classifier(num_labels=2).save_pretrained(tmp_path / "two")
    tokenizer().save_pretrained(tmp_path / "two")
    with pytest.raises(GuerdonError, match="width 2"):
        ScalarRewardModel.from_pretrained(tmp_path / "two")
    classifier(pooler_hidden_act="tanh").save_pretrained(tmp_path / "tanh")
    tokenizer().save_pretrained(tmp_path / "tanh")
    with pytest.raises(GuerdonError, match="'tanh'"):
        ScalarRewardModel.from_pretrained(tmp_path / "tanh")
