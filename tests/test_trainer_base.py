from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from transformers import CLIPTokenizer

from guerdon.core import photographs
from guerdon.policies import embedded
from guerdon.policies.flow import FlowPolicy
from guerdon.trainers.base import to_unit, train_clip, train_flow

CROPS = photographs.sample(48, seed=0, smoothed_share=0.5)


TOKENIZER = embedded.train_tokenizer(CROPS.captions)


def _base() -> StableDiffusion3Pipeline:
    torch.manual_seed(0)
    return embedded.new_base(TOKENIZER, width=32, layers=1)


def test_to_unit() -> None:
    images = np.array([[[[0, 51, 255]]]], dtype=np.uint8)
    assert torch.allclose(to_unit(images)[0, :, 0, 0], torch.tensor([0.0, 0.2, 1.0]))


def test_an_interrupted_training_gives_the_same_weights(tmp_path: Path) -> None:
    straight = _base()
    train_flow(straight, CROPS.images, CROPS.captions, steps=6, batch_size=8)
    halted = _base()
    checkpoint = tmp_path / "flow.safetensors"

    def halt(step: int, figures: dict[str, float]) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_flow(
            halted, CROPS.images, CROPS.captions, steps=6, batch_size=8, checkpoint=checkpoint, checkpoint_every=2,
            on_step=halt,
        )  # fmt: skip
    again = _base()
    train_flow(again, CROPS.images, CROPS.captions, steps=6, batch_size=8, checkpoint=checkpoint, checkpoint_every=2)
    for (name, one), two in zip(
        straight.transformer.state_dict().items(), again.transformer.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two), name


def test_flow_matching_lowers_its_loss() -> None:
    base = _base()
    losses: list[float] = []
    train_flow(
        base, CROPS.images, CROPS.captions, steps=60, batch_size=16, learning_rate=3e-3,
        on_step=lambda step, figures: losses.append(figures["loss"]),
    )  # fmt: skip
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_contrast_finds_the_caption_of_a_picture() -> None:
    torch.manual_seed(0)
    clip = embedded.new_clip(TOKENIZER)
    losses: list[float] = []
    train_clip(
        clip, TOKENIZER, CROPS.images, CROPS.captions, steps=40, batch_size=24,
        on_step=lambda step, figures: losses.append(figures["loss"]),
    )  # fmt: skip
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:4])


def test_a_saved_base_draws_the_same_pictures(tmp_path: Path) -> None:
    base = _base()
    for module in (base.transformer, base.text_encoder):
        module.half().float()  # what is stored has half precision
    embedded.save_base(base, tmp_path)
    loaded = embedded.load_base(tmp_path)
    pictures = [
        FlowPolicy(one, guidance=1.0, max_sequence_length=1).generate(["a coin", "grass"], [1, 2], num_steps=2)
        for one in (base, loaded)
    ]
    assert torch.allclose(*pictures, atol=1e-5)


def test_the_tokenizer_knows_its_captions_and_can_spell_the_rest(tmp_path: Path) -> None:
    ids = TOKENIZER("a photo of a coin", padding="max_length")["input_ids"]
    words = TOKENIZER.convert_ids_to_tokens(ids)
    assert words[:7] == ["<|startoftext|>", "a</w>", "photo</w>", "of</w>", "a</w>", "coin</w>", "<|endoftext|>"]
    assert len(ids) == embedded.TEXT_LENGTH == TOKENIZER.model_max_length
    assert (
        TOKENIZER.decode(TOKENIZER("zebra 42!")["input_ids"], skip_special_tokens=True).replace(" ", "") == "zebra42!"
    )
    TOKENIZER.save_pretrained(tmp_path)
    assert (
        CLIPTokenizer.from_pretrained(tmp_path)("a crisp photo of grass")["input_ids"]
        == TOKENIZER("a crisp photo of grass")["input_ids"]
    )


def test_the_same_captions_give_the_same_tokens_in_every_process() -> None:
    script = (
        "from guerdon.core import photographs; from guerdon.policies import embedded;"
        "t = embedded.train_tokenizer(photographs.sample(48, seed=0, smoothed_share=0.5).captions);"
        "print(sorted(t.get_vocab().items(), key=lambda item: item[1]))"
    )
    printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == str(sorted(TOKENIZER.get_vocab().items(), key=lambda item: item[1]))
