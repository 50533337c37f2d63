"""Adv-GRPO's recipe: published defaults, whose turn it is, both discriminators, a whole run and its resumption."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import Dinov2Config, Dinov2Model

import tiny_pipelines as tiny
from guerdon.core.config import load_config
from guerdon.core.errors import GuerdonError
from guerdon.core.runs import RunFolder
from guerdon.recipes import _adv_grpo_game, _reward_run, adv_grpo

PROMPTS = ["a cat", "dogs", "rocks", "trees"]


@pytest.fixture(autouse=True)
def tiny_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reward_run, "load_base", lambda: tiny.sd3(pixels=True, size=16, layers=1))


@pytest.fixture
def references(tmp_path: Path) -> str:
    folder = tmp_path / "references"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    lines = []
    for number in range(24):
        pixels = (torch.rand(20, 20, 3, generator=generator) * 80 + 150).to(torch.uint8).numpy()
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "prompt": PROMPTS[number % 4]}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))
    return str(folder)


def config(references: str, **changes) -> adv_grpo.AdvGRPOConfig:
    small = [
        "generator.steps=4", "generator.num_steps=4", "generator.eval_steps=3", "generator.group_size=4",
        "generator.prompts_per_step=2", "generator.lora_rank=2", "generator.checkpoint_every=2", "held_out=2",
        "generator.window={size: 2, lo: 0, hi: 3}", "images_a_prompt=2", "watch_every=2", f"data={references}",
        "discriminator.warm_up=2", "discriminator.steps=2",
    ]  # fmt: skip
    extra = [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
    return load_config(adv_grpo.CONFIG, overrides=[*small, *extra], preset=adv_grpo.PRESETS["embedded"])


def test_published_defaults() -> None:
    own = adv_grpo.AdvGRPOConfig()
    g, d = own.generator, own.discriminator
    assert (g.kind, g.noise_level, g.group_size, g.prompts_per_step, g.clip_range) == ("cps", 0.8, 16, 48, 1e-5)
    assert not g.kl_used and not g.detach_uncond and {g.make_window().at(step) for step in range(20)} == {(0, 2)}
    assert (d.kind, d.schedule, d.detector_turns, d.steps, d.lr, d.image_size) == ("head", "every", 9, 1, 1e-4, 518)
    turns = [d.turns()(step, 0.0, 0.0) for step in range(20)]
    assert sum(turn.generator for turn in turns) == 2 and all(turn.detector != turn.generator for turn in turns)


def test_run_and_its_summary(references: str, tmp_path: Path) -> None:
    wanted = config(references)
    folder = RunFolder.open(tmp_path / "run", wanted)
    summary = adv_grpo.run(wanted, folder)
    assert folder.summary()["verdicts"] == summary["verdicts"] and summary["steps"] == 4
    base, tuned = summary["arms"]["base"], summary["arms"]["tuned"]
    assert 0 <= tuned["rewards"]["realness"]["mean"] <= 1 and tuned["mmd2"] != base["mmd2"]
    assert summary["verdicts"][0]["value"] == pytest.approx(tuned["mmd2"] - base["mmd2"])
    lines = folder.metrics(stage="generator")
    assert all(line["discriminator/generator_turn"] == 1 and "discriminator/accuracy" in line for line in lines)
    assert lines[1]["distance_to_base"] > 0


def test_resumed_run_gives_the_same_numbers(references: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = config(references)
    whole = adv_grpo.run(wanted, RunFolder.open(tmp_path / "whole", wanted))
    train_step = adv_grpo.DiffusionTrainer.train_step

    def dies(self):
        if self.step == 3:
            raise KeyboardInterrupt
        return train_step(self)

    monkeypatch.setattr(adv_grpo.DiffusionTrainer, "train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        adv_grpo.run(wanted, RunFolder.open(tmp_path / "cut", wanted))
    monkeypatch.setattr(adv_grpo.DiffusionTrainer, "train_step", train_step)
    again = adv_grpo.run(wanted, RunFolder.open(tmp_path / "cut", wanted, resume=True), resume=True)
    assert again["arms"] == whole["arms"]


def test_out_of_turn_the_generator_rests(references: str, tmp_path: Path) -> None:
    """With one discriminator turn to each of the generator, every other step leaves the adapter as it is."""
    wanted = config(references, discriminator__schedule="every", discriminator__detector_turns=1)
    folder = RunFolder.open(tmp_path / "run", wanted)
    adv_grpo.run(wanted, folder)
    lines = folder.metrics(stage="generator")
    assert [line["discriminator/generator_turn"] for line in lines] == [0, 1, 0, 1]
    assert ["discriminator/accuracy" in line for line in lines] == [True, False, True, False]
    assert [line["samples/valid"] for line in lines] == [0, 1, 0, 1]
    assert [line["updates"] for line in lines] == [0, 2, 2, 4]


def test_the_head_learns_and_its_state_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_dino = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=4, intermediate_size=32
    )

    def small(cls, backbone, *, image_size, **options):
        torch.manual_seed(0)
        return cls(Dinov2Model(tiny_dino), image_size=image_size, hidden=16, **options)

    monkeypatch.setattr(_adv_grpo_game.FoundationHead, "from_pretrained", classmethod(small))
    wanted = adv_grpo.DiscriminatorConfig(image_size=16, lr=3e-3, steps=5)
    generator = torch.Generator().manual_seed(1)
    real = torch.rand(16, 3, 16, 16, generator=generator) * 0.3 + 0.6
    fake = torch.rand(16, 3, 16, 16, generator=generator) * 0.3
    judge = _adv_grpo_game.Discriminator(wanted, 3)
    before = judge.score(real).mean() - judge.score(fake).mean()
    for step in range(10):
        judge.learn(real, fake, step)
    assert judge.score(real).mean() - judge.score(fake).mean() > before + 0.1
    other = _adv_grpo_game.Discriminator(wanted, 3)
    other.load_state_tensors(judge.state_tensors())
    for one in (judge, other):
        one.learn(real, fake, 10)
    assert torch.equal(judge.score(fake), other.score(fake))


def test_references_of_one_prompt_are_too_few(references: str, tmp_path: Path) -> None:
    table = Path(references) / "metadata.jsonl"
    text = table.read_text()
    for prompt in PROMPTS[1:]:
        text = text.replace(prompt, PROMPTS[0])
    table.write_text(text)
    wanted = config(references)
    with pytest.raises(GuerdonError, match="at least 2 different prompts"):
        adv_grpo.run(wanted, RunFolder.open(tmp_path / "run", wanted))
