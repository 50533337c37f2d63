"""guerdon's rewards inside a real ``trl.GRPOTrainer``: what the trainer logs is what the rewards gave."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from guerdon.core.adapters import to_trl
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.reward import reward
from guerdon.policies.tiny_rewriter import tiny_rewriter
from guerdon.rewards.compose import gate, penalty, standardised, weighted_sum
from guerdon.rewards.text.answer_tags import answer_format, answer_present

STEPS, PROMPTS, GROUP = 2, 2, 4
Calls = list[list[Any]]


def recorded(function: Any, calls: Calls) -> Any:
    """The reward itself, keeping what it returns to TRL."""

    def call(**arguments: Any) -> Any:
        given = function(**arguments)
        calls.append(given)
        return given

    call.__name__ = function.__name__
    return call


@reward(name="length", range=(0.0, 1000.0))
def length(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    return [float(len(c)) for c in completions]


@reward(name="sometimes")
def sometimes(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
    return [None if i % 3 == 0 else float(ord(c[:1] or "a")) for i, c in enumerate(completions)]


@reward(name="never")
def never(prompts: list[str], completions: list[str], **columns: Any) -> list[None]:
    return [None for _ in completions]


@reward(name="solved", range=(0.0, 1.0))
def solved(prompts: list[str], completions: list[str], solution: list[str], **columns: Any) -> list[float]:
    assert len(solution) == len(completions) and len(set(solution)) == PROMPTS
    return [sum(letter in c for letter in s) / len(s) for c, s in zip(completions, solution, strict=True)]


async def awaited(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    return [c.count("a") / 10 for c in completions]


def train(reward_funcs: list[Any], folder: Path, **options: Any) -> list[dict[str, Any]]:
    """Two steps of GRPO on a tiny random model; the metrics of each."""
    policy = tiny_rewriter(hidden=16, layers=1, heads=2)
    rows = [{"prompt": f"say {word}", "solution": word} for word in ("coin", "grass")]
    trainer = GRPOTrainer(
        model=policy.model,
        reward_funcs=reward_funcs,
        args=GRPOConfig(
            output_dir=str(folder),
            max_steps=STEPS,
            per_device_train_batch_size=PROMPTS * GROUP,
            num_generations=GROUP,
            max_completion_length=8,
            learning_rate=1e-3,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            **options,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=policy.tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return [row for row in trainer.state.log_history if "reward" in row]


def mean(values: list[float | None]) -> float:
    return float(np.mean([v for v in values if v is not None]))


def test_every_kind_of_reward_is_logged_as_it_scored(tmp_path: Path) -> None:
    total = weighted_sum({"length": (length, 0.01), "solved": (solved, 2.0)}, name="total")
    gated = gate(answer_present, length, closed=-1.0, name="gated")
    rewards = [length, sometimes, never, total, gated, to_trl(penalty(solved, length, 0.5, name="net")), answer_format]
    calls: list[Calls] = [[] for _ in rewards]
    rows = train([*(recorded(r, c) for r, c in zip(rewards, calls, strict=True)), awaited], tmp_path)
    assert len(rows) == STEPS
    for step, row in enumerate(rows):
        given = {r.__name__: c[step] for r, c in zip(rewards, calls, strict=True)}
        for name, values in given.items():
            assert len(values) == PROMPTS * GROUP
            if name == "never":
                assert values == [None] * len(values) and row["rewards/never/mean"] is None
            else:
                assert row[f"rewards/{name}/mean"] == pytest.approx(mean(values), rel=1e-5, abs=1e-6)
        assert given["sometimes"].count(None) == 3
        assert given["total"] == pytest.approx(
            [0.01 * a + 2.0 * b for a, b in zip(given["length"], _inner(given), strict=True)], rel=1e-6
        )
        # A composed reward, and one behind to_trl, shows its parts beside TRL's own metrics.
        assert row["total/length"] == pytest.approx(mean(given["length"]), rel=1e-5)
        assert row["net/solved"] == pytest.approx(row["total/solved"], rel=1e-5)
        assert row["gated/condition"] == pytest.approx(0.0) and set(given["gated"]) == {-1.0}
        assert 0 <= row["rewards/awaited/mean"] < 1
        assert math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])


def _inner(given: dict[str, list[float]]) -> list[float]:
    return [n + 0.5 * k for n, k in zip(given["net"], given["length"], strict=True)]


def test_samples_without_any_score_get_no_advantage(tmp_path: Path) -> None:
    def half(prompts: list[str], completions: list[str], **columns: Any) -> list[Any]:
        return [Failed("away", "test") if i == 1 else float(i) for i in range(len(completions))]

    dropping = to_trl(reward(half, name="half", on_failure="drop_sample"), max_failure_rate=0.5)
    (first, _) = train([dropping], tmp_path)
    scored = [float(i) for i in range(PROMPTS * GROUP) if i != 1]
    assert first["rewards/half/mean"] == pytest.approx(np.mean(scored))
    assert first["reward"] == pytest.approx(np.mean(scored))
    assert first["half/failed"] == pytest.approx(1 / (PROMPTS * GROUP))


def test_standardised_rewards_reach_the_policy_unscaled(tmp_path: Path) -> None:
    z = to_trl(weighted_sum({"z": (standardised(length), 1.0)}, name="z_length"), group_size=GROUP)
    for row in train([z], tmp_path, scale_rewards="none"):
        assert row["rewards/z_length/mean"] == pytest.approx(0.0, abs=1e-5)
        assert row["z_length/z/length"] > 0


def test_a_failing_reward_stops_training_with_its_name(tmp_path: Path) -> None:
    @reward(name="broken", range=(0.0, 1.0))
    def broken(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        return [2.0 for _ in completions]

    with pytest.raises(GuerdonError, match="'broken' failed at row 0 .out_of_range.: returned 2"):
        train([to_trl(broken)], tmp_path)
