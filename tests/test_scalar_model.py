"""`ScalarRewardModel`: head, pooling, freezing and LoRA on real architectures, and a folder that scores the same."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Qwen3ForCausalLM, T5Config, T5EncoderModel

from guerdon.core.errors import GuerdonError
from guerdon.models.scalar.head import HeadConfig, RewardHead
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.saved import HEAD, SETTINGS
from guerdon.models.scalar.tiny import tiny_backbone, tiny_vision_backbone

TEXTS = ["what is a kettle for", "a kettle is for boiling water", "happy to help"]


def talk(answer: str, asked: str = "what is a kettle for?") -> list[dict[str, Any]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


CONVERSATIONS = [talk("boiling water"), talk("happy to help, it is for boiling water"), talk("no", "a kettle?" * 9)]
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8))


def made(**options: Any) -> ScalarRewardModel:
    backbone, tokenizer = tiny_backbone(TEXTS, kind=options.pop("kind", "qwen3"), hidden=32)
    model = ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer, **options)
    return stirred(model)


def stirred(model: ScalarRewardModel) -> ScalarRewardModel:
    """With adapters that do something: LoRA begins as the identity."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def trainable(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


# ---- scoring


def test_a_score_is_the_head_of_the_pooled_state() -> None:
    for pooling, place in (("last", -1), ("mean", slice(None))):
        model = made(pooling=pooling, head=HeadConfig(num_layers=2, activation="tanh"))
        ids = torch.tensor([model.encode(CONVERSATIONS[0]).ids])
        with torch.no_grad():
            state = model.backbone(input_ids=ids).last_hidden_state[0, place]
            expected = model.head(state.mean(0) if pooling == "mean" else state)
        assert torch.allclose(model.score(CONVERSATIONS[:1])[0], expected, atol=1e-5)


def test_the_reward_token_is_read_and_made_where_the_tokenizer_has_none() -> None:
    model = made(pooling="token", reward_token="<|reward|>")
    encoded = model.encode(CONVERSATIONS[0])
    assert encoded.ids[-1] == model.tokenizer.convert_tokens_to_ids("<|reward|>") < len(model.tokenizer)
    with torch.no_grad():
        state = model.backbone(input_ids=torch.tensor([encoded.ids])).last_hidden_state[0, -1]
        assert torch.allclose(model.score(CONVERSATIONS[:1])[0], model.head(state), atol=1e-5)


def test_the_names_that_users_of_ixc_know() -> None:
    model = made()
    values = model.score(CONVERSATIONS)
    assert values.dtype == torch.float32 and values.shape == (3,)
    assert model.scores(CONVERSATIONS) == values.tolist()
    assert model.compare(CONVERSATIONS[0], CONVERSATIONS[1]) == bool(values[0] > values[1])
    assert not model.compare(CONVERSATIONS[0], CONVERSATIONS[0])
    ranks = model.rank(CONVERSATIONS)
    assert sorted(ranks) == [0, 1, 2] and values[ranks.index(0)] == values.max() and ranks[int(values.argmin())] == 2


@pytest.mark.parametrize(
    "values, ranks", [([5.76, -2.85], [0, 1]), ([1.0, 3.0, 2.0], [2, 0, 1]), ([1.0, 2.0, 2.0], [2, 0, 0])]
)
def test_rank_gives_the_rank_of_each(values: list[float], ranks: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = made()
    monkeypatch.setattr(model, "score", lambda conversations, images=None: torch.tensor(values))
    assert model.rank(["a"] * len(values)) == ranks


def test_scoring_leaves_the_mode_as_it_was_and_has_no_dropout() -> None:
    model = made(head=HeadConfig(num_layers=2, dropout=0.5)).train()
    first = model.score(CONVERSATIONS)
    assert model.training and model.head.training and torch.equal(first, model.score(CONVERSATIONS))
    assert torch.equal(first, model.eval().score(CONVERSATIONS)) and not model.training
    assert model.score([]).shape == (0,)


def test_a_limit_of_a_few_tokens_that_refuses_what_is_longer() -> None:
    model = made(max_length=6, too_long="fail")
    assert model.score(["a kettle", "a help", "water"]).shape == (3,)
    with pytest.raises(GuerdonError, match="longer than the limit of 6"):
        model.score(CONVERSATIONS)


def test_what_is_cut_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    model = made(max_length=30)
    with caplog.at_level(logging.WARNING, "guerdon.models.scalar"):
        model.score(CONVERSATIONS[:1])
        assert not caplog.records
        model.score(CONVERSATIONS)
    longer = [one for one in CONVERSATIONS if len(made(max_length=4000).encode(one)) > 30]
    assert f"{len(longer)} of 3 conversations are longer than 30 tokens" in caplog.text and len(longer) >= 1


def test_the_same_seed_gives_the_same_head() -> None:
    first, again, other = made(seed=1), made(seed=1), made(seed=2)
    assert first.identity() == again.identity() != other.identity()
    assert torch.equal(first.score(CONVERSATIONS), again.score(CONVERSATIONS))


def test_identity_follows_weights_template_and_reading() -> None:
    model = made()
    before = model.identity()
    assert before == model.identity() == made().identity() and made(pooling="mean").identity() != before
    with torch.no_grad():
        model.head.layers[-1].weight.add_(1e-3)
    assert model.identity() != before
    changed = model.identity()
    model.backbone.norm.weight.data.mul_(1.1)  # as optimisers of other libraries write: no version is raised
    assert model.identity() != changed
    other = made()
    other.tokenizer.chat_template += " "
    assert other.identity() != before


def test_a_causal_models_stack_is_taken() -> None:
    backbone, tokenizer = tiny_backbone(TEXTS, hidden=32)
    whole = Qwen3ForCausalLM(backbone.config)
    whole.model.load_state_dict(backbone.state_dict())
    model = ScalarRewardModel.on_backbone(whole, tokenizer=tokenizer)
    assert torch.equal(model.score(CONVERSATIONS), made().score(CONVERSATIONS))


# ---- training parts


def test_freezing_by_part() -> None:
    backbone, processor = tiny_vision_backbone(TEXTS)
    model = ScalarRewardModel.on_backbone(backbone, processor=processor, freeze=("vision", "projector"))
    names = trainable(model)
    assert not any("visual" in name for name in names) and any("language_model.layers" in name for name in names)
    assert {name for name, _ in model.head.named_parameters()} == {n[5:] for n in names if n.startswith("head.")}
    merger = {n for n, _ in model.named_parameters() if "merger" in n}
    other, processor = tiny_vision_backbone(TEXTS)
    kept = trainable(ScalarRewardModel.on_backbone(other, processor=processor, freeze=("vision",)))
    assert merger and merger <= kept and not any("visual.blocks" in name for name in kept)
    assert trainable(made(freeze=("backbone",))) == {"head.layers.0.weight", "head.layers.0.bias"}
    assert "backbone.embed_tokens.weight" not in trainable(made(freeze=("embeddings",)))
    with pytest.raises(GuerdonError, match="Qwen3Model has no vision to freeze"):
        made(freeze=("vision",))
    with pytest.raises(GuerdonError, match="unknown part to freeze 'visoin'; did you mean 'vision'"):
        made(freeze=("visoin",))


def test_lora_trains_adapters_and_head_alone() -> None:
    names = trainable(made(lora=4))
    assert names and all(".lora_" in name or name.startswith("head.") for name in names)
    backbone, processor = tiny_vision_backbone(TEXTS)
    seeing = ScalarRewardModel.on_backbone(backbone, processor=processor, lora={"r": 2}, freeze=("vision", "projector"))
    assert not any("visual" in name for name in trainable(seeing)) and any("lora" in n for n in trainable(seeing))
    with pytest.raises(GuerdonError, match="exclude each other"):
        made(lora=4, freeze=("backbone",))


def test_gradients_reach_what_is_trained() -> None:
    model = made(lora=4, head=HeadConfig(num_layers=2))
    batch = model.batch([model.encode(one) for one in CONVERSATIONS])
    model(**batch).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == parameter.requires_grad, name


# ---- the folder


VARIANTS: dict[str, dict[str, Any]] = {
    "linear": {},
    "llama-mean-tanh": {
        "kind": "llama",
        "pooling": "mean",
        "head": HeadConfig(num_layers=2, activation="tanh", width=8),
    },
    "token": {"pooling": "token", "reward_token": "<|reward|>"},
    "lora": {"lora": 4},
    "lora-token": {"lora": 4, "pooling": "token", "reward_token": "<|reward|>"},
    "cut": {"max_length": 12, "system_prompt": "refuse", "freeze": ("embeddings",)},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_saved_model_is_the_same_model(variant: str, tmp_path: Path) -> None:
    model = made(**dict(VARIANTS[variant]))
    folder = model.save_pretrained(tmp_path / "rm")
    again = ScalarRewardModel.from_pretrained(folder)
    assert torch.allclose(model.score(CONVERSATIONS), again.score(CONVERSATIONS), atol=1e-6)
    assert again.identity() == model.identity() and again.settings == model.settings and not again.training
    assert trainable(again) == trainable(model)
    assert not [path.name for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    # And the loaded one can be saved again.
    assert ScalarRewardModel.from_pretrained(again.save_pretrained(tmp_path / "twice")).identity() == model.identity()


def test_lora_on_a_backbone_from_a_folder_saves_adapters_and_head_only(tmp_path: Path) -> None:
    backbone, tokenizer = tiny_backbone(TEXTS, hidden=32)
    backbone.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    model = stirred(ScalarRewardModel.on_backbone(tmp_path / "base", lora=4))
    folder = model.save_pretrained(tmp_path / "rm")
    assert not (folder / "backbone" / "model.safetensors").exists() and (folder / HEAD).is_file()
    assert torch.allclose(
        ScalarRewardModel.from_pretrained(folder).score(CONVERSATIONS), model.score(CONVERSATIONS), atol=1e-6
    )
    # The base model that the adapters need is not the one they were trained on: found out, not scored with.
    tiny_backbone(TEXTS, hidden=32, seed=1)[0].save_pretrained(tmp_path / "base")
    with pytest.raises(GuerdonError, match="the loaded model scores .* where the saved one scored"):
        ScalarRewardModel.from_pretrained(folder)


def test_a_vision_model_comes_back(tmp_path: Path) -> None:
    backbone, processor = tiny_vision_backbone(TEXTS)
    model = stirred(ScalarRewardModel.on_backbone(backbone, processor=processor, lora=4, freeze=("vision",)))
    again = ScalarRewardModel.from_pretrained(model.save_pretrained(tmp_path))
    for images in ([[PICTURE], [], [PICTURE, PICTURE]], None):
        assert torch.allclose(
            model.score(CONVERSATIONS, images=images), again.score(CONVERSATIONS, images=images), atol=1e-6
        )
    seen, unseen = again.score([CONVERSATIONS[0]] * 2, images=[[PICTURE], []])
    assert abs(float(seen - unseen)) > 1e-4  # the picture counts


def test_bfloat16_is_kept_and_the_head_is_not(tmp_path: Path) -> None:
    backbone, tokenizer = tiny_backbone(TEXTS, hidden=32)
    backbone.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    model = ScalarRewardModel.on_backbone(tmp_path / "base", dtype=torch.bfloat16)
    assert model.head.layers[-1].weight.dtype == torch.float32 and model.backbone.dtype == torch.bfloat16
    model.save_pretrained(tmp_path)
    again = ScalarRewardModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert again.backbone.dtype == torch.bfloat16 and again.score(CONVERSATIONS).dtype == torch.float32
    assert torch.allclose(again.score(CONVERSATIONS), model.score(CONVERSATIONS))
    assert ScalarRewardModel.from_pretrained(tmp_path).backbone.dtype == torch.float32


def test_a_folder_whose_weights_were_changed_is_refused(tmp_path: Path) -> None:
    model = made()
    model.save_pretrained(tmp_path)
    for file in (tmp_path / HEAD, tmp_path / "backbone" / "model.safetensors"):
        state = load_file(file)
        name = sorted(state)[-1]
        save_file(state | {name: state[name] + 0.5}, file, metadata={"format": "pt"})
        with pytest.raises(GuerdonError, match="are not those that were saved"):
            ScalarRewardModel.from_pretrained(tmp_path)
        save_file(state, file, metadata={"format": "pt"})
    ScalarRewardModel.from_pretrained(tmp_path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return made(head=HeadConfig(num_layers=2)).save_pretrained(tmp_path / "rm", check=False)


def test_a_checkpoint_without_a_head_is_refused(saved: Path) -> None:
    (saved / HEAD).unlink()
    with pytest.raises(GuerdonError, match="without a head .* never made up"):
        ScalarRewardModel.from_pretrained(saved)


def test_a_head_of_another_width_is_refused(saved: Path) -> None:
    state = load_file(saved / HEAD)
    state["layers.2.weight"], state["layers.2.bias"] = torch.zeros(2, 32), torch.zeros(2)
    save_file(state, saved / HEAD)
    with pytest.raises(GuerdonError, match="a head of width 2; a reward has width 1"):
        ScalarRewardModel.from_pretrained(saved)


def test_weights_are_matched_strictly(saved: Path) -> None:
    state = load_file(saved / HEAD)
    save_file({key: value for key, value in state.items() if key != "layers.0.bias"}, saved / HEAD)
    with pytest.raises(GuerdonError, match="weight 'layers.0.bias' is missing"):
        ScalarRewardModel.from_pretrained(saved)
    save_file(state, saved / HEAD)
    file = saved / "backbone" / "model.safetensors"
    weights = load_file(file)
    for changed in (
        {key: value for key, value in weights.items() if key != "norm.weight"},
        weights | {"extra.weight": torch.zeros(1)},
        weights | {"norm.weight": torch.zeros(3)},
    ):
        save_file(changed, file, metadata={"format": "pt"})
        with pytest.raises(GuerdonError, match="1 weights do not fit Qwen3Model, first '(norm|extra).weight'"):
            ScalarRewardModel.from_pretrained(saved)


def test_adapters_are_matched_strictly(tmp_path: Path) -> None:
    made(lora=4).save_pretrained(tmp_path)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    state = load_file(file)
    gone = sorted(state)[0]
    save_file({key: value for key, value in state.items() if key != gone}, file, metadata={"format": "pt"})
    with pytest.raises(GuerdonError, match=f"missing weight '{gone}'"):
        ScalarRewardModel.from_pretrained(tmp_path)


def test_settings_that_are_none(saved: Path) -> None:
    record = json.loads((saved / SETTINGS).read_text())
    for text, message in (
        ("{", "not the settings of a reward model"),
        (json.dumps({**record, "format": 2}), "format 2 is not 1"),
        (json.dumps({key: value for key, value in record.items() if key != "pooling"}), "KeyError..pooling"),
        (json.dumps({**record, "head": {"layers": 2}}), "not the settings"),
    ):
        (saved / SETTINGS).write_text(text)
        with pytest.raises(GuerdonError, match=message):
            ScalarRewardModel.from_pretrained(saved)


def test_a_save_that_was_interrupted_leaves_no_model(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **options: Any) -> None:
        raise OSError("disk full")

    model = made()
    monkeypatch.setattr("guerdon.models.scalar.saved.save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        model.save_pretrained(saved)
    with pytest.raises(GuerdonError, match="no reward model here"):
        ScalarRewardModel.from_pretrained(saved)


def test_pooling_is_part_of_the_model(saved: Path) -> None:
    assert ScalarRewardModel.from_pretrained(saved, pooling="last", max_length=9, too_long="fail").max_length == 9
    with pytest.raises(GuerdonError, match="trained with pooling='last', not 'mean'"):
        ScalarRewardModel.from_pretrained(saved, pooling="mean")
    with pytest.raises(GuerdonError, match="unknown argument of from_pretrained 'pool'"):
        ScalarRewardModel.from_pretrained(saved, pool="mean")


def test_no_model_here(tmp_path: Path) -> None:
    with pytest.raises(GuerdonError, match="there is no folder"):
        ScalarRewardModel.from_pretrained(tmp_path / "nothing")
    with pytest.raises(GuerdonError, match="no reward model here, neither reward_model.json nor config.json"):
        ScalarRewardModel.from_pretrained(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(GuerdonError, match="is a file"):
        ScalarRewardModel.from_pretrained(tmp_path / "file")


# ---- what cannot be a reward model


def test_wrong_parts() -> None:
    backbone, tokenizer = tiny_backbone(TEXTS, hidden=32)
    with pytest.raises(GuerdonError, match="width 16, the backbone's have 32"):
        ScalarRewardModel(backbone, tokenizer, RewardHead(16))
    with pytest.raises(GuerdonError, match="unknown pooling 'lsat'; did you mean 'last'"):
        ScalarRewardModel(backbone, tokenizer, RewardHead(32), pooling="lsat")
    with pytest.raises(GuerdonError, match="go together"):
        ScalarRewardModel(backbone, tokenizer, RewardHead(32), pooling="token")
    with pytest.raises(GuerdonError, match="comes without a tokenizer"):
        ScalarRewardModel.on_backbone(backbone)
    with pytest.raises(GuerdonError, match="encoder-decoder"):
        shape = dict(d_model=32, d_ff=32, num_layers=1, num_heads=2, d_kv=16, vocab_size=64)
        t5 = T5EncoderModel(T5Config(**shape))
        t5.config.is_encoder_decoder = True
        ScalarRewardModel.on_backbone(t5, tokenizer=tokenizer)
    with pytest.raises(GuerdonError, match="got a single string"):
        made().score("text")
    with pytest.raises(GuerdonError, match="3 conversations come with pictures for 1"):
        made().score(CONVERSATIONS, images=[[]])


def test_a_backbone_with_missing_weights_is_refused(tmp_path: Path) -> None:
    backbone, tokenizer = tiny_backbone(TEXTS, hidden=32)
    backbone.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert ScalarRewardModel.on_backbone(tmp_path).score(CONVERSATIONS).shape == (3,)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    save_file({k: v for k, v in state.items() if k != "norm.weight"}, file, metadata={"format": "pt"})
    with pytest.raises(GuerdonError, match="1 weights do not fit Qwen3Model, first 'norm.weight'"):
        ScalarRewardModel.on_backbone(tmp_path)
    with pytest.raises(GuerdonError, match="there is no folder .*nowhere"):
        ScalarRewardModel.on_backbone(tmp_path / "nowhere")
    shutil.rmtree(tmp_path)


def test_tiny_backbones_are_repeatable() -> None:
    for kind in ("qwen3", "llama"):
        first, tokens = tiny_backbone(TEXTS, kind=kind, hidden=16)
        again, same = tiny_backbone(list(reversed(TEXTS)), kind=kind, hidden=16)
        other, _ = tiny_backbone(TEXTS, kind=kind, hidden=16, seed=1)
        assert tokens.get_vocab() == same.get_vocab()
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters()))
        assert not torch.equal(first.embed_tokens.weight, other.embed_tokens.weight)
    with pytest.raises(GuerdonError, match="unknown kind of tiny backbone 'quen3'; did you mean 'qwen3'"):
        tiny_backbone(TEXTS, kind="quen3")
    with pytest.raises(GuerdonError, match="even multiple"):
        tiny_backbone(TEXTS, hidden=30)
    with pytest.raises(GuerdonError, match="vocab must be at least 259"):
        tiny_backbone(TEXTS, vocab=100)
