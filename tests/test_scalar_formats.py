"""Published layouts: the same scores as the plain forward of their own class, every weight in its place, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaModel,
    Qwen3ForCausalLM,
)

from guerdon.core.errors import GuerdonError
from guerdon.models.scalar.formats import internlm2_weights
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone, tiny_tokenizer

TEXTS = ["what is a kettle for", "a kettle is for boiling water", "happy to help"]
CONVERSATIONS = [
    [{"role": "user", "content": "what is a kettle for?"}, {"role": "assistant", "content": answer}]
    for answer in ("boiling water", "happy to help, it is for boiling water, as everybody knows", "no")
]


def written(model: Any, tokenizer: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def classifier(folder: Path, *, kind: str = "qwen3", labels: int = 1, pad: str | None = "<|endoftext|>") -> Path:
    """A checkpoint as Skywork-Reward-V2 and TRL's trainer publish them."""
    backbone, tokenizer = tiny_backbone(TEXTS, kind=kind, hidden=32)
    tokenizer.pad_token = pad
    config = backbone.config
    config.num_labels, config.pad_token_id = labels, tokenizer.pad_token_id
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        model.score.weight.normal_()
    return written(model, tokenizer, folder)


def plain_scores(folder: Path, tokenizer: Any) -> list[float]:
    """transformers' own forward, one sample at a time."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    scores = []
    for conversation in CONVERSATIONS:
        ids = tokenizer(tokenizer.apply_chat_template(conversation, tokenize=False), return_tensors="pt")["input_ids"]
        with torch.no_grad():
            scores.append(model(input_ids=ids).logits[0, 0].item())
    return scores


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize("pad", ["<|endoftext|>", "<|im_end|>", None])
def test_parity_with_the_plain_sequence_classifier(kind: str, pad: str | None, tmp_path: Path) -> None:
    model = ScalarRewardModel.from_pretrained(classifier(tmp_path, kind=kind, pad=pad))
    assert model.scores(CONVERSATIONS) == pytest.approx(plain_scores(tmp_path, model.tokenizer), abs=1e-5)
    for batch in (model.batch([model.encode(one) for one in CONVERSATIONS], side=side) for side in ("left", "right")):
        with torch.no_grad():
            assert model(**batch).tolist() == pytest.approx(plain_scores(tmp_path, model.tokenizer), abs=1e-5)


def test_where_pad_is_eos_the_classifier_passes_over_a_last_eos_and_so_do_we(tmp_path: Path) -> None:
    """Its weights were trained on the state before the eos; reading at the eos would give another score."""
    classifier(tmp_path, pad="<|im_end|>")
    model = ScalarRewardModel.from_pretrained(tmp_path)
    tokenizer = model.tokenizer
    ids = tokenizer("boiling water<|im_end|>", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()(input_ids=ids).logits[0, 0].item()
    assert model.scores(["boiling water<|im_end|>"]) == pytest.approx([plain], abs=1e-5)
    assert model.unread_token == tokenizer.eos_token_id
    model.unread_token = None
    assert abs(model.scores(["boiling water<|im_end|>"])[0] - plain) > 1e-3


def test_a_published_model_can_be_saved_as_ours(tmp_path: Path) -> None:
    model = ScalarRewardModel.from_pretrained(classifier(tmp_path / "theirs"))
    again = ScalarRewardModel.from_pretrained(model.save_pretrained(tmp_path / "ours"))
    assert again.scores(CONVERSATIONS) == pytest.approx(model.scores(CONVERSATIONS), abs=1e-6)
    assert again.settings == model.settings and again.name == "theirs" and again.unread_token == 0


def test_gpt2_has_other_names_and_positions(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(TEXTS)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=128, num_labels=1)
    config.pad_token_id = 0
    model = ScalarRewardModel.from_pretrained(written(GPT2ForSequenceClassification(config), tokenizer, tmp_path))
    plain = plain_scores(tmp_path, model.tokenizer)
    assert model.max_length == 128 and model.scores(CONVERSATIONS) == pytest.approx(plain, abs=1e-5)
    for side in ("left", "right"):  # absolute positions: padding on the left must not move them
        with torch.no_grad():
            batch = model.batch([model.encode(one) for one in CONVERSATIONS], side=side)
            assert model(**batch).tolist() == pytest.approx(plain, abs=1e-5)


# ---- refused


def test_a_head_of_another_width_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(GuerdonError, match="a head of width 2 .'score.weight'.; a reward has width 1"):
        ScalarRewardModel.from_pretrained(classifier(tmp_path, labels=2))


def test_a_language_model_gets_no_random_head(tmp_path: Path) -> None:
    backbone, tokenizer = tiny_backbone(TEXTS, hidden=32)
    for place, model in (("stack", backbone), ("language model", Qwen3ForCausalLM(backbone.config))):
        with pytest.raises(GuerdonError, match="without a reward head, and one is never made up; .*on_backbone"):
            ScalarRewardModel.from_pretrained(written(model, tokenizer, tmp_path / place))


def test_other_layouts_are_named(tmp_path: Path) -> None:
    shape = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32, vocab_size=400)
    bert = BertForSequenceClassification(BertConfig(**shape, num_labels=1))
    with pytest.raises(GuerdonError, match="its head 'classifier.bias' is of an unknown layout"):
        ScalarRewardModel.from_pretrained(written(bert, tiny_tokenizer(TEXTS), tmp_path))


def test_weights_are_matched_strictly(tmp_path: Path) -> None:
    file = classifier(tmp_path) / "model.safetensors"
    state = load_file(file)
    for changed, message in (
        ({k: v for k, v in state.items() if k != "model.norm.weight"}, "1 missing weights, first 'model.norm.weight'"),
        (state | {"model.extra.weight": torch.zeros(1)}, "1 unexpected weights, first 'model.extra.weight'"),
        (state | {"model.norm.weight": torch.zeros(3)}, "1 mismatched weights, first 'model.norm.weight'"),
    ):
        save_file(changed, file, metadata={"format": "pt"})
        with pytest.raises(GuerdonError, match=message):
            ScalarRewardModel.from_pretrained(tmp_path)


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    (classifier(tmp_path) / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(GuerdonError, match="pytorch_model.bin is a pickle, which is never loaded"):
        ScalarRewardModel.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not safe")
    with pytest.raises(GuerdonError, match="not a safetensors file"):
        ScalarRewardModel.from_pretrained(tmp_path)


def test_adapters_of_a_classifier_keep_their_head_or_are_refused(tmp_path: Path) -> None:
    """What TRL's reward trainer writes with a PEFT configuration, with and without ``modules_to_save``."""
    base = classifier(tmp_path / "base")
    for kept in (["score"], None):
        model = AutoModelForSequenceClassification.from_pretrained(base)
        with torch.no_grad():
            model.score.weight.normal_()  # not the base's: a trained head
        config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=kept, task_type=None)
        adapted = get_peft_model(model, config)
        adapted.eval().save_pretrained(tmp_path / str(kept))
        tokenizer = ScalarRewardModel.from_pretrained(base).tokenizer
        tokenizer.save_pretrained(tmp_path / str(kept))
        if kept is None:
            with pytest.raises(GuerdonError, match="LoRA adapters without a reward head, .*modules_to_save"):
                ScalarRewardModel.from_pretrained(tmp_path / str(kept))
            continue
        loaded = ScalarRewardModel.from_pretrained(tmp_path / str(kept))
        encoded = [loaded.encode(one) for one in CONVERSATIONS]
        with torch.no_grad():
            plain = [adapted(input_ids=torch.tensor([one.ids])).logits[0, 0].item() for one in encoded]
        assert loaded.scores(CONVERSATIONS) == pytest.approx(plain, abs=1e-5)


# ---- v_head, InternLM2, POLAR, InternLM-XComposer


def test_a_v_head_on_a_stack_of_transformers(tmp_path: Path) -> None:
    backbone, tokenizer = tiny_backbone(TEXTS, hidden=32)
    written(backbone, tokenizer, tmp_path)
    state = {f"model.{key}": value for key, value in load_file(tmp_path / "model.safetensors").items()}
    head = torch.randn(1, 32)
    save_file(state | {"v_head.weight": head}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model = ScalarRewardModel.from_pretrained(tmp_path)
    with torch.no_grad():
        ids = torch.tensor([model.encode(CONVERSATIONS[0]).ids])
        expected = backbone(input_ids=ids).last_hidden_state[0, -1] @ head[0]
    assert model.scores(CONVERSATIONS[:1]) == pytest.approx([expected.item()], abs=1e-5)
    assert model.pooling == "last" and model.unread_token is None


HEADS, GROUPS, SIZE, REWARD = 4, 2, 8, "[UNUSED_TOKEN_130]"


def fused(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Llama's weights as InternLM2 names and packs them: for each key-value group its queries, its key, its value."""
    names = {
        "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
        "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
        "embed_tokens": "tok_embeddings",
    }  # fmt: skip
    packed: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if ".self_attn.q_proj" in key:
            rows = []
            for group in range(GROUPS):
                for letter, count in (("q", HEADS // GROUPS), ("k", 1), ("v", 1)):
                    heads = state[key.replace("q_proj", f"{letter}_proj")].split(SIZE)
                    rows += heads[group * count : (group + 1) * count]
            packed[f"model.{key}".replace("self_attn.q_proj", "attention.wqkv")] = torch.cat(rows)
        elif ".k_proj" not in key and ".v_proj" not in key:
            new = next((key.replace(old, to) for old, to in names.items() if old in key), key)
            packed[f"model.{new}"] = value
    return packed


def internlm2(folder: Path, **extra: torch.Tensor) -> tuple[LlamaModel, torch.Tensor]:
    """A checkpoint in the layout of InternLM2-Reward and POLAR, and the Llama model that it is."""
    backbone, tokenizer = tiny_backbone(TEXTS, kind="llama", hidden=HEADS * SIZE, heads=HEADS)
    tokenizer.add_special_tokens({"extra_special_tokens": [REWARD]}, replace_extra_special_tokens=False)
    torch.manual_seed(6)
    backbone.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)) * 0.05)
    head = torch.randn(1, HEADS * SIZE, generator=torch.Generator().manual_seed(5))
    tokenizer.save_pretrained(folder)
    config = {
        "model_type": "internlm2", "architectures": ["InternLM2ForRewardModel"], "vocab_size": len(tokenizer),
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": HEADS,
        "num_key_value_heads": GROUPS, "hidden_act": "silu", "rms_norm_eps": backbone.config.rms_norm_eps,
        "max_position_embeddings": 4096, "rope_theta": 10000.0, "rope_scaling": {"type": "dynamic", "factor": 2.0},
        "auto_map": {"AutoModel": "modeling_internlm2.InternLM2ForRewardModel"}, "bias": False,
        "reward_token_id": tokenizer.convert_tokens_to_ids(REWARD), "pad_token_id": 2,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    state = {**fused(backbone.state_dict()), "v_head.weight": head, **extra}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return backbone, head[0]


def test_internlm2_and_polar_are_llama_under_other_names(tmp_path: Path) -> None:
    stack, head = internlm2(tmp_path)
    model = ScalarRewardModel.from_pretrained(tmp_path)  # and none of the code it names was run
    assert model.pooling == "token" and model.encoder.reward_token == REWARD
    for conversation, score in zip(CONVERSATIONS, model.scores(CONVERSATIONS), strict=True):
        ids = model.tokenizer(model.tokenizer.apply_chat_template(conversation, tokenize=False) + REWARD)["input_ids"]
        with torch.no_grad():
            expected = stack(input_ids=torch.tensor([ids])).last_hidden_state[0, -1] @ head
        assert score == pytest.approx(expected.item(), abs=1e-5)
    last = ScalarRewardModel.from_pretrained(tmp_path, pooling="last")
    assert last.encoder.reward_token is None and last.scores(CONVERSATIONS) != model.scores(CONVERSATIONS)
    again = ScalarRewardModel.from_pretrained(model.save_pretrained(tmp_path / "ours"))
    assert again.scores(CONVERSATIONS) == pytest.approx(model.scores(CONVERSATIONS), abs=1e-6)


def test_packing_and_unpacking_projections() -> None:
    stack, _ = tiny_backbone(TEXTS, kind="llama", hidden=HEADS * SIZE, heads=HEADS)
    state = stack.state_dict()
    back = internlm2_weights(fused(state), HEADS, GROUPS)
    assert back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state)


def test_internlm2_weights_are_matched_strictly(tmp_path: Path) -> None:
    internlm2(tmp_path, **{"model.layers.0.attention.other.weight": torch.zeros(1)})
    with pytest.raises(GuerdonError, match="unknown weight 'model.layers.0.attention.other.weight'"):
        ScalarRewardModel.from_pretrained(tmp_path)
    internlm2(tmp_path, **{"v_head.weight": torch.zeros(3, 32)})
    with pytest.raises(GuerdonError, match="a head of width 3"):
        ScalarRewardModel.from_pretrained(tmp_path)


def test_ixc_is_loaded_for_text(tmp_path: Path) -> None:
    """P-LoRA and vision tower act at pictures only, so the text scores are those of the language model alone."""
    stack, head = internlm2(tmp_path / "plain")
    extra = {
        "vit.vision_tower.embeddings.weight": torch.ones(2), "vision_proj.0.weight": torch.ones(2),
        "plora_glb_GN": torch.ones(1, 1, 4), "plora_sub_GN": torch.ones(1, 1, 1, 4),
        "model.layers.0.attention.wqkv.Plora_A.weight": torch.ones(2, 32),
        "model.layers.0.attention.wqkv.Plora_B.weight": torch.ones(2, 2),
        "model.layers.1.feed_forward.w1.Plora_A.weight": torch.ones(2, 32),
    }  # fmt: skip
    internlm2(tmp_path / "ixc", **extra)
    model = ScalarRewardModel.from_pretrained(tmp_path / "ixc")
    plain = ScalarRewardModel.from_pretrained(tmp_path / "plain")
    assert model.scores(CONVERSATIONS) == plain.scores(CONVERSATIONS)
    with pytest.raises(GuerdonError, match="reads text only"):
        model.score(CONVERSATIONS[:1], images=[[object()]])
    # The paper says mean pooling, the released data code a reward token: the caller can choose.
    assert ScalarRewardModel.from_pretrained(tmp_path / "ixc", pooling="mean").pooling == "mean"


def test_a_checkpoints_own_code_runs_only_when_asked_for(tmp_path: Path) -> None:
    backbone, tokenizer = tiny_backbone(TEXTS, hidden=32)
    written(backbone, tokenizer, tmp_path)
    (tmp_path / "modeling_own.py").write_text(
        "import pathlib\nimport torch\nfrom transformers import PreTrainedModel, Qwen3Config, Qwen3Model\n"
        f"pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "class OwnConfig(Qwen3Config):\n    model_type = 'own_reward'\n"
        "class OwnReward(PreTrainedModel):\n    config_class = OwnConfig\n    base_model_prefix = 'model'\n"
        "    def __init__(self, config):\n        super().__init__(config)\n        self.model = Qwen3Model(config)\n"
        "        self.v_head = torch.nn.Linear(config.hidden_size, 1, bias=False)\n        self.post_init()\n"
    )
    config = json.loads((tmp_path / "config.json").read_text())
    own = {"AutoConfig": "modeling_own.OwnConfig", "AutoModel": "modeling_own.OwnReward"}
    config |= {"model_type": "own_reward", "auto_map": own}
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = {f"model.{key}": value for key, value in load_file(tmp_path / "model.safetensors").items()}
    head = torch.randn(1, 32)
    save_file(state | {"v_head.weight": head}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GuerdonError, match="read it, then pass trust_remote_code=True"):
        ScalarRewardModel.from_pretrained(tmp_path)
    assert not (tmp_path / "ran").exists()
    model = ScalarRewardModel.from_pretrained(tmp_path, trust_remote_code=True)
    with torch.no_grad():
        ids = torch.tensor([model.encode(CONVERSATIONS[0]).ids])
        expected = backbone(input_ids=ids).last_hidden_state[0, -1] @ head[0]
    assert model.scores(CONVERSATIONS[:1]) == pytest.approx([expected.item()], abs=1e-5)
