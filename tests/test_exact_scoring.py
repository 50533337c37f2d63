"""A score belongs to the sample: the same, to 1e-5 in float32, whatever shares its batch and however it is batched."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    BertConfig,
    BertModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    GPT2Config,
    GPT2Model,
)

from guerdon.core.images import to_pil
from guerdon.models.detectors.effort import Effort
from guerdon.models.detectors.foundation_head import FoundationHead
from guerdon.models.detectors.omniaid import OmniAID
from guerdon.models.detectors.small import FAMILIES, make_detector
from guerdon.models.scalar.head import HeadConfig
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone, tiny_tokenizer, tiny_vision_backbone
from guerdon.rewards.image.detector import DetectorReward, RobustScore, ScoreReward
from guerdon.rewards.model import ModelReward
from guerdon.trainers.adversarial import AdversarialDetector

WORDS = "what is a kettle for boiling water happy to help it is good yes no".split()
HEADS = {"linear": HeadConfig(), "silu": HeadConfig(num_layers=2, activation="silu", dropout=0.3)}
KINDS = ("qwen3", "llama", "lora", "gpt2", "bert", "vision")
POOLINGS = ("last", "mean", "token")
VARIANTS = [(kind, pooling, head) for kind in KINDS for pooling in POOLINGS for head in HEADS]
PICTURES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
    for seed, (height, width) in enumerate([(32, 32), (48, 64), (20, 60)])
]
# Few examples of many variants. A model is shared between them: nothing of one call may be left in it for the next.
RANDOMLY = settings(max_examples=2, deadline=None)


@functools.cache
def reward_model(kind: str, pooling: str, head: str) -> ScalarRewardModel:
    options: dict[str, Any] = {"head": HEADS[head], "pooling": pooling, "max_length": 512}
    options["reward_token"] = "<|reward|>" if pooling == "token" else None
    torch.manual_seed(0)
    if kind == "vision":
        backbone, processor = tiny_vision_backbone(WORDS)
        options["processor"] = processor
    elif kind in ("gpt2", "bert"):
        tokenizer = tiny_tokenizer(WORDS)
        shape = {"vocab_size": len(tokenizer) + 1}
        backbone = (
            GPT2Model(GPT2Config(**shape, n_embd=32, n_layer=2, n_head=4, n_positions=512))
            if kind == "gpt2"
            else BertModel(
                BertConfig(
                    **shape, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
                )  # fmt: skip
            )
        )
        options["tokenizer"] = tokenizer
    else:
        backbone, options["tokenizer"] = tiny_backbone(WORDS, kind="qwen3" if kind == "lora" else kind, hidden=32)
        options["lora"] = 4 if kind == "lora" else None
    model = ScalarRewardModel.on_backbone(backbone, **options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:  # untrained weights this small hardly attend to anything
                parameter.copy_(parameter * 3.0 if ".lora_B" not in name else torch.randn(parameter.shape) * 0.1)
    return model.eval()


def conversations(seed: int, pictures: bool) -> tuple[list[Any], list[list[Any]]]:
    """Three prompts with three answers each, of very different lengths; some prompts show pictures."""
    rng = np.random.default_rng(seed)

    def said(longest: int) -> str:
        return " ".join(rng.choice(WORDS, rng.integers(1, longest)))

    rows, shown = [], []
    for prompt in range(3):
        asked = [{"role": "user", "content": said(30)}]
        if rng.random() < 0.4:
            asked = [{"role": "system", "content": said(5)}, *asked, {"role": "assistant", "content": said(9)}, *asked]
        seen = [PICTURES[place] for place in rng.permutation(3)[:prompt]] if pictures else []
        for longest in (2, 9, 50):
            rows.append([*asked, {"role": "assistant", "content": said(longest)}])
            shown.append(seen)
    rows[-1] = "rendered text<|im_end|>"  # and one that shares nothing
    shown[-1] = []
    return rows, shown


def alone(model: ScalarRewardModel, rows: list[Any], shown: list[list[Any]]) -> torch.Tensor:
    """The plain forward, one sample at a time, without padding."""
    with torch.no_grad():
        encoded = [model.encode(row, seen) for row, seen in zip(rows, shown, strict=True)]
        return torch.cat([model(**model.batch([one])) for one in encoded])


@pytest.mark.parametrize("kind, pooling, head", VARIANTS)
@RANDOMLY
@given(data=st.data())
def test_scalar_reward_models(kind: str, pooling: str, head: str, data: st.DataObject) -> None:
    """Padded batches of any size and side, and `score` with any budget and order, against the plain forward."""
    seed, size = data.draw(st.integers(0, 10**6), "seed"), data.draw(st.integers(1, 9), "batch size")
    side = data.draw(st.sampled_from(["left", "right"]), "side")
    budget = data.draw(st.sampled_from([1, 64, 300, 100_000]), "token budget")
    model = reward_model(kind, pooling, head)
    rows, shown = conversations(seed, kind == "vision")
    expected = alone(model, rows, shown)
    assert float(expected.std()) > 1e-3  # the scores do tell the conversations apart
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    padded, fast = torch.empty(len(rows)), torch.empty(len(rows))
    for places in order.split(size):
        encoded = [model.encode(rows[place], shown[place]) for place in places]
        with torch.no_grad():
            padded[places] = model(**model.batch(encoded, side=side))
    assert torch.allclose(padded, expected, rtol=0, atol=1e-5)
    for places in (order[:size], order[size:]):
        part = [rows[place] for place in places], [shown[place] for place in places]
        fast[places] = model.train().score(part[0], images=part[1], token_budget=budget)  # dropout must not count
    model.eval()
    assert torch.allclose(fast, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_of_a_model(kind: str) -> None:
    model = reward_model(kind, "last", "linear")
    reward = ModelReward(model)
    prompts = [f"what is {word} for" for word in WORDS[:6]]
    completions = [" ".join(WORDS[: 1 + 2 * place]) for place in range(6)]
    images = [PICTURES[: place % 3] if kind == "vision" else None for place in range(6)]
    whole = reward(prompts, completions, images=images)
    single = [reward([p], [c], images=[i])[0] for p, c, i in zip(prompts, completions, images, strict=True)]
    backwards = reward(prompts[::-1], completions[::-1], images=images[::-1])[::-1]
    assert whole == pytest.approx(single, abs=1e-5) and whole == pytest.approx(backwards, abs=1e-5)


def test_the_test_can_fail() -> None:
    """Left padding without a care for positions moves the scores of a model with absolute ones: the usual mistake."""
    model = reward_model("gpt2", "last", "linear")
    rows, shown = conversations(0, False)
    batch = model.batch([model.encode(row) for row in rows], side="left")
    with torch.no_grad():
        states = model.backbone(**batch).last_hidden_state[:, -1]
        naive = model.head(states)
    assert float((naive - alone(model, rows, shown)).abs().max()) > 1e-3


# ---- detectors of generated images


@functools.cache
def detector_rewards() -> dict[str, Any]:
    torch.manual_seed(0)
    clip = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7
    )
    dino = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7, initializer_range=0.2
    )
    vision = CLIPVisionModel(clip).eval()
    made: dict[str, Any] = {name: DetectorReward(make_detector(name, seed=1)) for name in FAMILIES}
    made |= {f"{name} by two": DetectorReward(make_detector(name, seed=1), batch_size=2) for name in FAMILIES}
    made["omniaid"] = DetectorReward(OmniAID(vision, rank=2, squash=64).eval(), batch_size=3)
    made["effort"] = DetectorReward(Effort(vision).eval(), batch_size=3)
    made["foundation"] = ScoreReward(FoundationHead(Dinov2Model(dino), hidden=8).eval())
    adversarial = AdversarialDetector(make_detector("gradient", seed=2))
    made["adversarial"] = ScoreReward(adversarial, range=(0, 1))
    made["robust"] = ScoreReward(RobustScore(adversarial), range=(0, 1))
    return made


NAMES = [
    *FAMILIES,
    *(f"{name} by two" for name in FAMILIES),
    "omniaid",
    "effort",
    "foundation",
    "adversarial",
    "robust",
]


@pytest.mark.parametrize("name", NAMES)
@RANDOMLY
@given(seed=st.integers(0, 10**6), cut=st.integers(0, 7), mixed=st.booleans())
def test_detectors(name: str, seed: int, cut: int, mixed: bool) -> None:
    reward, generator = detector_rewards()[name], torch.Generator().manual_seed(seed)
    sizes = [(32, 32), (24, 40), (48, 32)] if mixed else [(32, 32)]
    pictures = [
        (torch.rand(3, *sizes[place % len(sizes)], generator=generator) * 255).round() / 255 for place in range(7)
    ]
    expected = [reward(prompts=None, completions=picture[None])[0] for picture in pictures]
    assert max(expected) - min(expected) > 1e-6
    order = torch.randperm(7, generator=generator).tolist()
    scores: list[float] = []
    for places in (order[:cut], order[cut:]):
        part = [pictures[place] for place in places]
        # A tensor goes through the model whole, a list of pictures of several sizes cannot.
        given_part: Any = torch.stack(part) if part and not mixed else [to_pil(picture[None])[0] for picture in part]
        scores += reward(prompts=None, completions=given_part) if part else []
    assert scores == pytest.approx([expected[place] for place in order], abs=1e-5)


def test_every_detector_family_is_here() -> None:
    assert set(NAMES) == set(detector_rewards()) and set(FAMILIES) < set(NAMES)
