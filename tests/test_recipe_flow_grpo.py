"""Flow-GRPO's recipe: the published defaults, rewards by name, a whole run on a tiny base, its resumption."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tiny_pipelines as tiny
from guerdon.core.config import load_config
from guerdon.core.errors import GuerdonError
from guerdon.core.reward import reward
from guerdon.core.runs import RunFolder
from guerdon.recipes import _reward_run, flow_grpo

PROMPTS = ["a cat", "dogs", "rocks", "trees", "a red car", "the sea"]


@reward(name="darkness", range=(0.0, 1.0))
def darkness(prompts, completions, **columns):
    return (1 - completions.mean((1, 2, 3))).tolist()


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return str(path)


@pytest.fixture(autouse=True)
def tiny_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reward_run, "load_base", lambda: tiny.sd3(pixels=True, size=16, layers=1))


def config(rows: str, **changes) -> flow_grpo.FlowGRPOConfig:
    small = [
        "generator.steps=4", "generator.num_steps=4", "generator.eval_steps=3", "generator.group_size=4",
        "generator.prompts_per_step=2", "generator.lora_rank=2", "generator.checkpoint_every=2", "held_out=2",
        "images_a_prompt=2", "watch_every=2", f"data={rows}", "generator.learning_rate=1e-2", "generator.kl=none",
        "rewards={dark: {reward: 'test_recipe_flow_grpo:darkness'}}",
    ]  # fmt: skip
    extra = [f"{key}={value}" for key, value in changes.items()]
    return load_config(flow_grpo.CONFIG, overrides=[*small, *extra], preset=flow_grpo.PRESETS["embedded"])


def test_published_defaults() -> None:
    own = flow_grpo.FlowGRPOConfig()
    g = own.generator
    assert (g.num_steps, g.eval_steps, g.group_size, g.prompts_per_step) == (10, 40, 24, 48)
    assert (g.noise_level, g.clip_range, g.learning_rate, g.guidance, g.kl) == (0.7, 1e-4, 3e-4, 4.5, "mu")
    assert g.window is None and g.detach_uncond and (g.lora_rank, g.lora_alpha) == (32, 64)
    assert own.reward_std == "batch" and list(own.rewards) == ["pick_score"]
    fast = load_config(flow_grpo.CONFIG, preset=flow_grpo.PRESETS["sd3.5-fast"]).generator
    assert fast.window is not None and fast.window.size == 2 and not fast.kl_used and fast.clip_range == 1e-5


def test_run_and_its_summary(rows: str, tmp_path: Path) -> None:
    wanted = config(rows)
    folder = RunFolder.open(tmp_path / "run", wanted)
    summary = flow_grpo.run(wanted, folder)
    assert folder.summary()["arms"]["base"]["label"] == "base" and summary["steps"] == 4
    arms = summary["arms"]
    assert arms["tuned"]["rewards"]["dark"]["mean"] > arms["base"]["rewards"]["dark"]["mean"]
    assert arms["base"]["diversity"] > 0 and set(arms["base"]["drift"]) == set(arms["tuned"]["drift"])
    gain, kept = summary["verdicts"]
    assert gain["holds"] and gain["value"] == pytest.approx(
        arms["tuned"]["rewards"]["dark"]["mean"] - arms["base"]["rewards"]["dark"]["mean"]
    )
    assert kept["holds"] == (kept["value"] >= 0.9)
    lines = folder.metrics(stage="generator")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert "diversity" in lines[1] and "diversity" not in lines[0] and lines[1]["distance_to_base"] > 0
    adapter, _ = folder.load_checkpoint(folder.latest_checkpoint(stage="adapter"))
    assert any(float(tensor.abs().sum()) > 0 for name, tensor in adapter.items() if "lora_B" in name)
    assert len(list((folder.samples / "tuned").glob("*.png"))) == 4


def test_resumed_run_gives_the_same_numbers(rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = config(rows)
    whole = flow_grpo.run(wanted, RunFolder.open(tmp_path / "whole", wanted))
    folder = RunFolder.open(tmp_path / "cut", wanted)
    train_step = flow_grpo.DiffusionTrainer.train_step

    def dies(self):
        if self.step == 3:
            raise KeyboardInterrupt
        return train_step(self)

    monkeypatch.setattr(flow_grpo.DiffusionTrainer, "train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        flow_grpo.run(wanted, folder)
    monkeypatch.setattr(flow_grpo.DiffusionTrainer, "train_step", train_step)
    again = flow_grpo.run(wanted, RunFolder.open(tmp_path / "cut", wanted, resume=True), resume=True)
    assert again["arms"] == whole["arms"]
    assert folder.metrics() == RunFolder(tmp_path / "whole").metrics()


def test_unknown_reward_and_too_few_prompts(rows: str, tmp_path: Path) -> None:
    wanted = config(rows, rewards="{x: {reward: clip_scor}}")
    with pytest.raises(GuerdonError, match="did you mean 'clip_score'"):
        flow_grpo.run(wanted, RunFolder.open(tmp_path / "run", wanted))
    with pytest.raises(GuerdonError, match="unknown key 'rewards.x.wieght'|wieght"):
        config(rows, rewards="{x: {reward: clip_score, wieght: 2}}")
    single = tmp_path / "single.jsonl"
    single.write_text('{"prompt": "a cat"}\n')
    with pytest.raises(GuerdonError, match="at least 2 different prompts, got 1"):
        _reward_run.load_prompts(str(single), 0, 4)


def test_held_out_prompts_are_not_trained_on(rows: str) -> None:
    train, held = _reward_run.load_prompts(rows, 0, 2)
    assert len(held) == 2 and not set(train) & set(held) and sorted([*train, *held]) == sorted(PROMPTS)
    own, other = _reward_run.load_prompts(None, 3, 8)
    assert len(other) == 8 and not set(own) & set(other)


def test_the_embedded_alignment_reward() -> None:
    term = flow_grpo.embedded_alignment()
    scores = term(prompts=["grass", "stars"], completions=torch.rand(2, 3, 32, 32))
    assert len(scores) == 2 and all(-1 <= score <= 1 for score in scores)
