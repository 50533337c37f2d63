"""DiffusionTrainer's runs: averages, callbacks, trackers, interruption, several processes, configuration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from torch.testing import assert_close

import tiny_pipelines as tiny
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.reward import reward
from guerdon.core.runs import RunFolder
from guerdon.policies.flow import FlowPolicy
from guerdon.rewards.bank import RewardBank
from guerdon.trainers.diffusion import DiffusionTrainer
from guerdon.trainers.diffusion_config import DiffusionConfig
from tiny_training import PROMPTS, Scored, config, darkness, trainer

# Averages, callbacks, trackers


def test_ema_is_stepped_once_an_optimiser_step() -> None:
    one = trainer(micro_batch=1, steps=3, ema_every=2, ema_decay=0.5)
    taken: list[int] = []
    step = one.ema.step
    one.ema.step = lambda n: (taken.append(n), step(n))[1]  # type: ignore[method-assign]
    one.train()
    assert taken == [0, 1, 2, 3, 4, 5] and one.updates == 6
    assert any((mine - p.data).abs().max() > 0 for mine, p in zip(one.ema.tensors, one.parameters, strict=True))


def test_evaluate_uses_the_average_and_eval_steps() -> None:
    one = trainer()
    for tensor in one.ema.tensors:
        tensor += 0.5
    calls: list[int] = []
    handle = one.policy.transformer.register_forward_pre_hook(lambda *a: calls.append(1))
    averaged, own = one.evaluate(PROMPTS, [1, 2, 3]), one.evaluate(PROMPTS, [1, 2, 3], ema=False)
    handle.remove()
    assert len(calls) == 2 * 3  # eval_steps
    assert (averaged - own).abs().max() > 1e-3
    assert_close(own, one.policy.generate(PROMPTS, [1, 2, 3], num_steps=3), atol=1e-5, rtol=0)


class Judge:
    """Asks for the best after step 2 and stops after step 3."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_step_end(self, trainer: DiffusionTrainer, step: int, metrics: dict[str, float]):
        self.seen.append(step)
        metrics["judge"] = float(step)
        return {2: "best", 3: "stop"}.get(step)

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def test_callbacks_stop_the_run_and_keep_the_best(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "run", config())
    judge = Judge()
    one = trainer(run=run, callbacks=[judge], steps=9)
    history = one.train()
    assert len(history) == 3 and one.stopped and judge.seen == [1, 2, 3]
    assert [line["judge"] for line in run.metrics()] == [1, 2, 3]
    assert one.best_step == 2 and one.best_state is not None
    late = one.lora_state()
    assert any((one.best_state[name] - late[name]).abs().max() > 0 for name in late)
    again = trainer(run=run, callbacks=[other := Judge()], steps=9)
    assert again.train() == []  # it had stopped
    assert other.seen == [1, 2, 3] and again.best_step == 2 and again.best_state is not None
    for name, tensor in one.best_state.items():
        assert_close(again.best_state[name], tensor, atol=0, rtol=0)
    assert again.restore_best() == 2
    assert_close(next(iter(again.policy.lora_state().values())), next(iter(one.best_state.values())), atol=0, rtol=0)


def test_an_unknown_verdict_is_an_error() -> None:
    class Odd:
        def on_step_end(self, trainer: Any, step: int, metrics: Any) -> Any:
            return "halt"

    with pytest.raises(GuerdonError, match="not 'halt'"):
        trainer(callbacks=[Odd()]).train()


def test_trackers_get_every_step() -> None:
    class Memory(GeneralTracker):
        name, requires_logging_directory, tracker = "memory", False, None

        def __init__(self) -> None:
            super().__init__()
            self.lines: list[tuple[int, dict[str, float]]] = []
            self.settings: dict[str, Any] = {}

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            self.settings = values

        def log(self, values: dict[str, float], step: int | None = None, **options: Any) -> None:
            self.lines.append((step or 0, dict(values)))

    memory = Memory()
    policy = FlowPolicy(tiny.sd3(pixels=True, layers=1))
    one = DiffusionTrainer(policy, darkness, PROMPTS, config(steps=2), accelerator=Accelerator(log_with=memory))
    history = one.train()
    assert memory.lines == [(1, history[0]), (2, history[1])]
    assert memory.settings["learning_rate"] == 1e-3


# Interruption


class Fault(Exception):
    pass


class Interrupt:
    def __init__(self, after: int) -> None:
        self.after = after

    def on_step_end(self, trainer: DiffusionTrainer, step: int, metrics: dict[str, float]) -> None:
        if step == self.after:
            raise Fault


def noisy_darkness(prompts: list[str], images: torch.Tensor, step: int, **columns: Any) -> Scored:
    """A reward that draws from the global generators, as sampled judges do."""
    scored = darkness(prompts, images, step)
    scored.parts["darkness"] += 0.01 * torch.randn(len(images)).double().numpy() + 0.01 * np.random.rand(len(images))
    return scored


@pytest.mark.parametrize(
    "changes",
    [
        {"kl": "velocity", "kl_weight": 0.01, "ema_every": 2, "after": 4},
        {"algorithm": "nft", "kl": "velocity", "nft_timesteps": 2, "after": 3},
        {"algorithm": "mixgrpo", "window": {"size": 2, "interval": 1}, "after": 2},
    ],
)
def test_a_resumed_run_gives_the_same_numbers(tmp_path: Path, changes: dict[str, Any]) -> None:
    changes = dict(changes)
    after = changes.pop("after")
    torch.manual_seed(0)
    np.random.seed(0)
    settings = config(**changes, steps=5)
    whole = RunFolder.open(tmp_path / "whole", settings)
    straight = trainer(noisy_darkness, run=whole, **changes, steps=5)
    torch.manual_seed(7)
    np.random.seed(7)
    straight.train()
    broken = RunFolder.open(tmp_path / "broken", settings)
    first = trainer(noisy_darkness, run=broken, callbacks=[Interrupt(after)], **changes, steps=5)
    torch.manual_seed(7)
    np.random.seed(7)
    with pytest.raises(Fault):
        first.train()
    second = trainer(noisy_darkness, run=RunFolder.open(tmp_path / "broken", settings, resume=True), **changes, steps=5)
    if after == 2:  # killed before the first checkpoint: it begins again
        torch.manual_seed(7)
        np.random.seed(7)
    second.train()
    assert second.step == 5
    assert (tmp_path / "broken" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert len(whole.metrics()) == 5
    for mine, theirs in zip(
        [*second.parameters, *second.ema.tensors], [*straight.parameters, *straight.ema.tensors], strict=True
    ):
        assert torch.equal(mine, theirs)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "run", config())
    trainer(run=run, steps=2).train()
    assert trainer(run=run, steps=2).train() == []
    longer = trainer(run=run, steps=3)
    assert len(longer.train()) == 1 and longer.step == 3


def test_resuming_something_else_is_refused(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "run", config())
    trainer(run=run, steps=2).train()
    with pytest.raises(GuerdonError, match=r"learning_rate = 0.001, now it is 0.01"):
        trainer(run=run, learning_rate=0.01).train()
    with pytest.raises(GuerdonError, match="other prompts"):
        trainer(run=run, prompts=["x", "y"]).train()


def test_stages_of_one_folder_do_not_meet(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "run", config())
    for stage in ("one", "two"):
        policy = FlowPolicy(tiny.sd3(pixels=True, layers=1))
        one = DiffusionTrainer(policy, darkness, PROMPTS, config(steps=2), run, stage=stage)
        assert len(one.train()) == 2
    assert [(line["stage"], line["step"]) for line in run.metrics()] == [("one", 1), ("one", 2), ("two", 1), ("two", 2)]


# Scores of a real bank


def test_a_reward_bank_scores_whole_or_in_groups() -> None:
    unreadable = float(trainer().sampler.sample(0)[1].parts["darkness"][5])  # the sixth image of the first step

    @reward(name="dark", on_failure="drop_sample", range=(-1.0, 0.0))
    def dark(prompts: list[str], completions: torch.Tensor, **columns: Any) -> list[Any]:
        values = (-completions.mean((1, 2, 3))).tolist()
        return [Failed("cannot be read", "unavailable") if abs(v - unreadable) < 1e-7 else v for v in values]

    @reward(name="red", range=(0.0, 1.0))
    def red(prompts: list[str], completions: torch.Tensor, **columns: Any) -> list[float]:
        return completions[:, 0].mean((1, 2)).tolist()

    def fresh(**changes: Any) -> DiffusionTrainer:
        bank = RewardBank({"dark": (dark, 1.0), "red": (red, 0.5)})  # forgives one failure in its life
        return trainer(
            lambda prompts, images, step, **columns: bank.score(prompts, images, **columns), steps=2, **changes
        )

    def run(**changes: Any) -> tuple[list[dict[str, float]], Any]:
        return fresh(**changes).train(), fresh(**changes).sampler.sample(0)[1]

    (whole, scored), (parts, joined) = run(), run(overlap_scoring=True)
    assert whole == parts
    assert [row["samples/valid"] for row in whole] == [0.875, 1.0] and {"reward/dark", "reward/red"} <= whole[0].keys()
    assert joined.failures == scored.failures and list(joined.failures["dark"]) == [5]
    np.testing.assert_array_equal(joined.failed, scored.failed)


# Several processes


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    """Groups that straddle both processes, unequal shares after skipping flat groups, KL, NFT, a resume; FSDP 2 too."""
    base = config(steps=3, prompts_per_step=3, branches=2, micro_batch=2, learning_rate=3e-3).model_dump(mode="json")
    runs = [
        {**base, "kl": "velocity", "kl_weight": 0.1},
        {**base, "algorithm": "grpo", "break_after": 2},
        {**base, "algorithm": "nft", "guidance": 2.0, "overlap_scoring": True},
    ]
    repository = Path(__file__).parent.parent
    script = [str(repository / "tests" / "sharded_run.py"), str(tmp_path), json.dumps(runs)]
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(repository / "examples/accelerate/cpu2.yaml")]
    paths = os.pathsep.join([str(repository / "src"), str(repository / "tests"), os.environ.get("PYTHONPATH", "")])
    launch += ["--main_process_port", "0"]
    for command in (script, [*launch, *script], [*launch, *script, "shard"]):
        done = subprocess.run(
            [sys.executable, *command], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
    alone, shared, sharded = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1", "2", "shard"))
    for one, two in [*zip(alone, shared, strict=True), *zip(alone, sharded, strict=True)]:
        assert one["step"] == two["step"] == 3 and len(one["history"]) == len(two["history"]) == 3
        assert two["norm"] == pytest.approx(one["norm"], rel=1e-6)
        for before, after in zip(one["history"], two["history"], strict=True):
            assert before.keys() == after.keys()
            for key, value in before.items():
                assert after[key] == pytest.approx(value, rel=1e-3, abs=2e-6), key


def test_shares_that_do_not_fit_are_refused() -> None:
    class Three(Accelerator):
        num_processes = 3  # type: ignore[assignment]

    policy = FlowPolicy(tiny.sd3(pixels=True, layers=1))
    with pytest.raises(GuerdonError, match="8 images a step .* cannot be shared by 3 processes"):
        DiffusionTrainer(policy, darkness, PROMPTS, config(), accelerator=Three())


# Configuration


def test_every_key_is_read() -> None:
    """A key that nothing reads is a bug."""
    read: set[str] = set()
    running = False

    class Watched(DiffusionConfig):
        def __getattribute__(self, name: str) -> Any:
            if running and name in DiffusionConfig.model_fields:  # what validation reads does not count
                read.add(name)
            return super().__getattribute__(name)

    runs: list[dict[str, Any]] = [
        {"kl": "velocity"},
        {"algorithm": "nft", "kl": "velocity"},
        {"window": {"size": 2, "schedule": "sliding_random"}, "recompute_old": True},
    ]
    for changes in runs:
        running = False
        watched = Watched(**config(**changes, steps=1).model_dump())
        running = True
        one = DiffusionTrainer(FlowPolicy(tiny.sd3(pixels=True, layers=1)), darkness, PROMPTS, watched)
        one.train()
        one.evaluate(["a"], [1])
    # these two are read where a run folder is
    assert set(DiffusionConfig.model_fields) - read == {"checkpoint_every", "keep_checkpoints"}


def test_checkpoint_keys_are_read(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "run", config())
    trainer(run=run, steps=5, checkpoint_every=1, keep_checkpoints=2).train()
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 2


def test_defaults_are_the_papers() -> None:
    paper = DiffusionConfig()
    assert (paper.algorithm, paper.num_steps, paper.guidance, paper.noise_level) == ("guard", 28, 3.5, 0.9)
    assert (paper.group_size, paper.prompts_per_step, paper.branches, paper.updates_per_step) == (21, 24, 3, 2)
    assert (paper.lora_rank, paper.lora_alpha, paper.learning_rate, paper.clip_range) == (64, 128, 1e-4, 2e-6)
    assert (paper.kl, paper.kl_weight, paper.adv_clip, paper.max_grad_norm) == ("velocity", 4e-4, 5, 1)
    starts = {paper.make_window().at(step)[0] for step in range(400)}  # type: ignore[index]
    assert starts == set(range(15))
    assert paper.make_window().at(0)[1] - paper.make_window().at(0)[0] == 7  # type: ignore[index]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"branches": 3}, "not a multiple of branches"),
        ({"algorithm": "guard", "kind": "cps"}, "Gaussian log-probs"),
        ({"algorithm": "mixgrpo", "window": None}, "slides a window"),
        ({"algorithm": "nft", "kl": "mu"}, "no step means"),
        ({"window": {"size": 9}}, "does not fit"),
        ({"window": {"size": 2, "hi": 9}}, "beyond the last"),
        ({"algorithm": "grpo", "kind": "cps", "window": {"size": 2, "hi": 5}}, "beyond the last"),
        ({"learning_rat": 1}, "learning_rate"),
    ],
)
def test_configurations_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GuerdonError, match=message):
        config(**changes)


def test_prompts_that_do_not_fit() -> None:
    with pytest.raises(GuerdonError, match="at least one prompt"):
        trainer(prompts=[])
    with pytest.raises(GuerdonError, match="row 1 has no text"):
        trainer(prompts=[{"prompt": "a"}, {"text": "b"}])
    with pytest.raises(GuerdonError, match="row 1 differs from row 0 in its columns: 'k'"):
        trainer(prompts=[{"prompt": "a", "k": 1}, {"prompt": "b"}])
