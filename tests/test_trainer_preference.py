"""Reward model training: losses, layouts, samplers, schedules, hooks, resume, saving."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import get_scheduler

from guerdon.core.dialogues import embedded_image_pairs, embedded_pairs
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import text_of
from guerdon.core.runs import RunFolder
from guerdon.models.scalar import model as scalar_model
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone, tiny_vision_backbone
from guerdon.objectives.preference import bradley_terry
from guerdon.trainers.dropout_views import set_dropout, two_view_loss
from guerdon.trainers.meta_reward import MetaRMStep
from guerdon.trainers.pair_batches import (
    ModalityAlternatingSampler,
    PairBatch,
    ShuffledSampler,
    interleaved_accuracy,
    micro_batches,
    view_of,
)
from guerdon.trainers.preference import PreferenceConfig, RewardModelTrainer, learning_rate

PAIRS = embedded_pairs(40, 1)
HELD = embedded_pairs(20, 2)


def new_model(seed: int = 0, dropout: float = 0.0, **options) -> ScalarRewardModel:
    texts = [text_of(pair.conversation(side)) for pair in PAIRS for side in ("chosen", "rejected")]
    backbone, tokenizer = tiny_backbone(texts, hidden=16, layers=2, vocab=300, seed=seed)
    model = ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer, seed=seed, **options)
    if dropout:
        set_dropout(model, dropout)
    return model


def settings(**changes) -> PreferenceConfig:
    return PreferenceConfig(**{"batch_size": 8, "learning_rate": 3e-3, "epochs": 2, "seed": 5, **changes})


def gradients(model: ScalarRewardModel, **changes) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Of the first step: its gradient before clipping, and its metrics."""
    trainer = RewardModelTrainer(model, PAIRS, settings(batch_size=16, max_grad_norm=1e9, **changes))
    metrics = trainer.train_step()
    return {name: part.grad.clone() for name, part in trainer.trained.items() if part.grad is not None}, metrics


# What a step computes


@pytest.mark.parametrize(
    "changes",
    [{}, {"length_norm": "log", "centre": 0.01}, {"label_smoothing": 0.1, "floor": 1e-5}],
    ids=["plain", "length and centre", "smoothing and floor"],
)
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_gradients_of_shared_rows_are_those_of_the_plain_padded_batch(changes, pooling):
    shared, told = gradients(new_model(pooling=pooling), token_budget=300, **changes)
    plain, expected = gradients(new_model(pooling=pooling), token_budget=10**6, layout="interleaved", **changes)
    largest = max(float(one.abs().max()) for one in plain.values())
    assert shared.keys() == plain.keys()
    for name, one in plain.items():
        assert float((shared[name] - one).abs().max()) < 1e-4 * largest, name
    for name, value in expected.items():
        assert told[name] == pytest.approx(value, abs=1e-5), name


def test_rows_of_pairs_hold_the_prompt_once():
    model = new_model()
    trainer = RewardModelTrainer(model, PAIRS, settings())
    batch = trainer._batch(range(8))
    groups = micro_batches(model, batch, "shared", 200)
    assert sorted(m for rows in groups for row in rows for m in row.members) == list(range(16))
    row = groups[0][0]
    assert row.shared >= min(batch.encoded[m].shared for m in row.members) > 0
    assert row.length == sum(len(batch.encoded[m]) for m in row.members) - row.shared
    assert all(len(rows) * rows[0].length <= 200 or len(rows) == 1 for rows in groups)


def test_first_step_is_the_objective_on_single_forward_passes():
    pairs = [replace(pair, margin=0.3 * place, smoothing=[None, 0.2, 0.5][place % 3])
             for place, pair in enumerate(PAIRS[:8])]  # fmt: skip
    model = new_model()
    trainer = RewardModelTrainer(model, pairs, settings(shuffle=False, label_smoothing=0.05))
    singles = [[model(**model.batch([model.encode(pair.conversation(side))]))[0] for pair in pairs]
               for side in ("chosen", "rejected")]  # fmt: skip
    chosen, rejected = (torch.stack(one).detach() for one in singles)
    expected = bradley_terry(
        chosen, rejected, margin=torch.tensor([pair.margin for pair in pairs]),
        label_smoothing=torch.tensor([0.05, 0.2, 0.5] * 2 + [0.05, 0.2]),
        ties=torch.tensor([False, False, True] * 2 + [False] * 2),
    )  # fmt: skip
    metrics = trainer.train_step()
    assert metrics["loss"] == pytest.approx(float(expected), abs=1e-5)
    # Accuracy knows no margin.
    assert metrics["accuracy"] == pytest.approx(float((chosen > rejected).float().mean()))
    assert metrics["gap"] == pytest.approx(float((chosen - rejected).mean()), abs=1e-5)
    without = RewardModelTrainer(new_model(), pairs, settings(shuffle=False, margins=False)).train_step()
    assert without["loss"] != pytest.approx(metrics["loss"], abs=1e-3)


def test_pair_batch_lengths_are_of_the_answers():
    model = new_model()
    pair = PAIRS[0]
    encoded = [model.encode(pair.conversation(side)) for side in ("chosen", "rejected")]
    batch = PairBatch.of([pair], encoded)
    assert batch.chosen_length.tolist() == [len(encoded[0]) - encoded[0].shared]
    with pytest.raises(ValueError, match="need 2 conversations"):
        PairBatch.of([pair], encoded[:1])


def test_view_keeps_the_order_of_the_batch():
    model = new_model()
    batch = RewardModelTrainer(model, PAIRS, settings())._batch(range(6))
    view = view_of(model, batch, micro_batches(model, batch, "shared", 150), "shared")
    single = [float(model(**model.batch([one]))) for one in batch.encoded]
    assert view.chosen.tolist() == pytest.approx(single[0::2], abs=1e-5)
    assert view.rejected.tolist() == pytest.approx(single[1::2], abs=1e-5)


def test_interleaved_accuracy_counts_ties_as_half():
    assert interleaved_accuracy(torch.tensor([2.0, 1.0, 0.0, 3.0])) == 0.5
    assert interleaved_accuracy(torch.tensor([2.0, 1.0, 3.0, 3.0])) == 0.75
    with pytest.raises(ValueError, match="2N"):
        interleaved_accuracy(torch.zeros(3))


# Samplers and schedules


def test_shuffled_sampler_shows_every_pair_once_an_epoch():
    sampler = ShuffledSampler(11, 4, seed=3)
    assert sampler.steps_per_epoch == 3
    epochs = [[row for step in range(3 * epoch, 3 * epoch + 3) for row in sampler(step)] for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(11))
    assert epochs[0] != epochs[1]
    assert sampler(1) == ShuffledSampler(11, 4, seed=3)(1) != ShuffledSampler(11, 4, seed=4)(1)
    assert ShuffledSampler(11, 4, shuffle=False)(2) == [8, 9, 10]


def test_pairs_that_belong_together_stay_together():
    sampler = ShuffledSampler(12, 4, seed=3, together=2)
    for step in range(3):
        rows = sampler(step)
        assert all(first % 2 == 0 and second == first + 1 for first, second in zip(rows[0::2], rows[1::2]))
    with pytest.raises(GuerdonError, match="groups of 2"):
        ShuffledSampler(11, 4, together=2)


def test_modality_alternates_two_to_one():
    shown = [True] * 5 + [False] * 20
    sampler = ModalityAlternatingSampler(shown, 6, ratio=(2, 1), seed=1)
    kinds = []
    for step in range(9):
        rows = sampler(step)
        assert len(rows) == 6 and len({shown[row] for row in rows}) == 1
        kinds.append(shown[rows[0]])
    assert kinds == [True, True, False] * 3
    assert sampler(4) == ModalityAlternatingSampler(shown, 6, ratio=(2, 1), seed=1)(4)
    # Six rows out of five: drawn with replacement.
    assert len(set(sampler(0))) < 6
    with pytest.raises(GuerdonError, match="none with pictures"):
        ModalityAlternatingSampler([False] * 4, 2)
    with pytest.raises(GuerdonError, match="two positive numbers"):
        ModalityAlternatingSampler(shown, 2, ratio=(2, 0))


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_schedules_are_those_of_transformers_without_warm_up(schedule):
    config = settings(schedule=schedule, warmup=0.0, learning_rate=1.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_scheduler(schedule, optimizer, num_warmup_steps=0, num_training_steps=10)
    for step in range(10):
        assert learning_rate(config, step, 10) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_warm_up_rises_from_above_zero_to_the_rate():
    config = settings(schedule="linear", warmup=0.3, learning_rate=1.0)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)


# Runs


def test_training_learns_the_preferences_and_as_well_the_opposite_ones(tmp_path):
    """The opposite labels are the control: a loss that ignores them would give the same model twice."""
    held, ends = embedded_pairs(60, 2), {}
    for name in ("right", "turned"):
        pairs = [pair.swapped() if name == "turned" else pair for pair in embedded_pairs(128, 3)]
        folder = RunFolder.open(tmp_path / name, {})
        trainer = RewardModelTrainer(
            new_model(), pairs, settings(batch_size=16, epochs=3, evaluate_every=12), folder, held, stage="tiny"
        )
        history = trainer.train()
        assert len(history) == trainer.total == 24 and not trainer.model.training
        lines = folder.metrics(stage="tiny")
        assert [line["step"] for line in lines] == list(range(25))
        looks = [line for line in lines if "held_out/accuracy" in line]
        assert [line["step"] for line in looks] == [0, 12, 24]
        assert history[-1]["loss"] < history[0]["loss"] - 0.1
        ends[name] = looks[-1]
    assert ends["right"]["held_out/accuracy"] > 0.6 and ends["right"]["held_out/loss"] < math.log(2) - 0.02
    assert ends["turned"]["held_out/accuracy"] < 0.4 and ends["turned"]["held_out/loss"] > math.log(2) + 0.1
    assert ends["right"]["held_out/chosen"] > ends["right"]["held_out/rejected"]


class Killed(Exception):
    pass


def interrupted_at(trainer: RewardModelTrainer, step: int) -> None:
    """Let the run die when it has taken that many steps."""
    take = trainer.train_step

    def step_or_die():
        if trainer.step == step:
            raise Killed
        return take()

    trainer.train_step = step_or_die  # type: ignore[method-assign]


@pytest.mark.parametrize("alternate", [False, True])
def test_resumed_run_equals_the_uninterrupted_one(tmp_path, alternate):
    changes = {"checkpoint_every": 3, "evaluate_every": 4, "keep_best": True}

    def trainer(name: str, resume: bool) -> RewardModelTrainer:
        # With dropout, so that the random state counts.
        folder = RunFolder.open(tmp_path / name, config, resume=resume)
        return RewardModelTrainer(make(), pairs, config, folder, HELD[:8])

    if alternate:
        pairs = [*embedded_image_pairs(8, 1), *PAIRS[:16]]
        config = settings(**changes, alternate=(2, 1), epochs=3)

        def make() -> ScalarRewardModel:
            texts = [text_of(pair.conversation("chosen")) for pair in pairs]
            backbone, processor = tiny_vision_backbone(texts, hidden=16, layers=1, heads=2, vocab=300)
            return ScalarRewardModel.on_backbone(backbone, processor=processor)

    else:
        pairs, config = PAIRS, settings(**changes)

        def make() -> ScalarRewardModel:
            return new_model(dropout=0.1)

    whole = trainer("whole", False)
    whole.train()
    cut = trainer("cut", False)
    interrupted_at(cut, 7)
    with pytest.raises(Killed):
        cut.train()
    torch.rand(5)
    again = trainer("cut", True)
    again.train()
    assert again.folder.metrics_path.read_bytes() == whole.folder.metrics_path.read_bytes()
    for name, part in whole.model.state_dict().items():
        assert torch.equal(part, again.model.state_dict()[name]), name
    # A finished run does nothing more.
    assert trainer("cut", True).train() == []


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_trainer_preference import *
run = RunFolder.open({folder!r}, settings(checkpoint_every=2), resume=True)
trainer = RewardModelTrainer(new_model(dropout=0.1), PAIRS, settings(checkpoint_every=2), run, HELD[:4])
take = trainer.train_step
def step():
    if trainer.step == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return take()
trainer.train_step = step
trainer.train()
"""


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_numbers(tmp_path):
    def go(folder: Path, at: int) -> int:
        code = KILLED.format(tests=str(Path(__file__).parent), folder=str(folder), at=at)
        return subprocess.run([sys.executable, "-c", code], env={**os.environ}, capture_output=True).returncode

    assert go(tmp_path / "cut", 5) == -signal.SIGKILL
    assert go(tmp_path / "cut", 8) == -signal.SIGKILL
    assert go(tmp_path / "cut", -1) == 0
    assert go(tmp_path / "whole", -1) == 0
    assert (tmp_path / "cut/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    last = []
    for name in ("cut", "whole"):
        run = RunFolder(tmp_path / name)
        last.append(run.load_checkpoint(run.latest_checkpoint(stage="reward_model")))
    assert last[0][1] == last[1][1]
    assert all(torch.equal(last[0][0][name], part) for name, part in last[1][0].items())


ONE_OF_MANY = """
import sys
sys.path.insert(0, {tests!r})
from test_trainer_preference import *
run = RunFolder({folder!r})
trainer = RewardModelTrainer(new_model(), PAIRS, settings(batch_size=12, together=2), run, HELD[:4])
trainer.train()
assert trainer.accelerator.num_processes == {processes}
"""


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(tmp_path):
    repository, lines = Path(__file__).parent.parent, []
    for processes in (1, 2):
        folder, script = tmp_path / str(processes), tmp_path / f"run{processes}.py"
        RunFolder.open(folder, {})
        tests = str(Path(__file__).parent)
        script.write_text(ONE_OF_MANY.format(tests=tests, folder=str(folder), processes=processes))
        launch = ["-m", "accelerate.commands.launch", "--main_process_port", "0"]
        launch += ["--config_file", str(repository / "examples/accelerate/cpu2.yaml")]
        command = [sys.executable, *(launch if processes > 1 else []), str(script)]
        done = subprocess.run(command, env={**os.environ}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        lines.append(RunFolder(folder).metrics())
    for one, two in zip(*lines, strict=True):
        assert one.keys() == two.keys()
        assert all(two[name] == pytest.approx(one[name], rel=1e-3, abs=1e-5) for name in one if name != "stage")


def test_resuming_with_other_settings_or_pairs_is_refused(tmp_path):
    folder = RunFolder.open(tmp_path / "run", {})
    RewardModelTrainer(new_model(), PAIRS, settings(), folder).train()
    with pytest.raises(GuerdonError, match="learning_rate = 0.003, now it is 0.001"):
        RewardModelTrainer(new_model(), PAIRS, settings(learning_rate=1e-3), folder).train()
    with pytest.raises(GuerdonError, match="other training pairs"):
        RewardModelTrainer(new_model(), [PAIRS[0].swapped(), *PAIRS[1:]], settings(), folder).train()


def test_checkpoints_hold_tensors_and_json_only(tmp_path):
    folder = RunFolder.open(tmp_path / "run", {})
    RewardModelTrainer(new_model(), PAIRS, settings(checkpoint_every=4, keep_checkpoints=2), folder).train()
    kept = sorted(path.name for path in (folder.path / "checkpoints").iterdir())
    assert kept == ["reward_model-00000008", "reward_model-00000010"]
    files = {path.name for path in (folder.path / "checkpoints").rglob("*") if path.is_file()}
    assert files == {"tensors.safetensors", "state.json"}


def test_keep_best_ends_with_the_best_look():
    trainer = RewardModelTrainer(
        new_model(), PAIRS, settings(learning_rate=0.05, epochs=4, evaluate_every=1, keep_best=True), None, HELD
    )
    history = trainer.train()
    best = max(line["held_out/accuracy"] for line in history)
    assert trainer.evaluate(HELD)["accuracy"] == best


# LoRA, freezing, saving


def test_lora_trains_adapters_and_head_only_and_is_saved_with_them(tmp_path):
    model = new_model(lora=2)
    before = {name: part.clone() for name, part in model.state_dict().items()}
    trainer = RewardModelTrainer(model, PAIRS, settings(), None, HELD)
    assert all("lora_" in name or name.startswith("head.") for name in trainer.trained)
    trainer.train()
    moved = {name for name, part in model.state_dict().items() if not torch.equal(part, before[name])}
    assert moved and all("lora_" in name or name.startswith("head.") for name in moved)
    path = trainer.save(tmp_path / "saved")
    again = ScalarRewardModel.from_pretrained(path)
    talks = [pair.conversation("chosen") for pair in HELD]
    assert torch.allclose(again.score(talks), model.score(talks), atol=1e-5)


def test_saving_fails_when_the_loaded_model_scores_otherwise(tmp_path, monkeypatch):
    model = new_model()
    trainer = RewardModelTrainer(model, PAIRS, settings(), None, HELD)

    def other(cls, path, **options):
        return new_model(seed=1)

    monkeypatch.setattr(scalar_model.ScalarRewardModel, "from_pretrained", classmethod(other))
    with pytest.raises(GuerdonError, match="loaded again, the model scores up to"):
        trainer.save(tmp_path / "saved")


def test_half_precision_that_trains_becomes_float32():
    model = new_model()
    model.backbone.bfloat16()
    trainer = RewardModelTrainer(model, PAIRS, settings())
    assert {part.dtype for part in trainer.trained.values()} == {torch.float32}


# Hooks


def test_extra_loss_sees_the_whole_batch_and_is_added():
    seen = []

    def extra(model, batch, view):
        seen.append((len(batch), tuple(view.chosen_features.shape)))
        return 0.5 * view.chosen.square().mean(), {"extra": 2.0}

    plain, told = gradients(new_model())
    trainer = RewardModelTrainer(
        new_model(), PAIRS, settings(batch_size=16, max_grad_norm=1e9, token_budget=100), extra_loss=extra
    )
    metrics = trainer.train_step()
    assert seen == [(16, (16, 16))]
    assert metrics["extra"] == 2.0 and metrics["loss"] > told["loss"]
    assert any(
        not torch.allclose(part.grad, plain[name], atol=1e-6)
        for name, part in trainer.trained.items()
        if part.grad is not None
    )


def test_objective_of_one_plain_pass_is_bradley_terry():
    def objective(passes, batch):
        view = passes()
        return bradley_terry(view.chosen, view.rejected)

    plain, told = gradients(new_model())
    trainer = RewardModelTrainer(new_model(), PAIRS, settings(batch_size=16, max_grad_norm=1e9), objective=objective)
    metrics = trainer.train_step()
    for name in ("loss", "accuracy", "chosen", "rejected", "grad_norm"):
        assert metrics[name] == pytest.approx(told[name], abs=1e-5)
    for name, part in plain.items():
        assert torch.allclose(trainer.trained[name].grad, part, atol=1e-5), name


def test_contrastive_views_and_meta_steps_fit_the_hooks():
    model = new_model(dropout=0.05)
    contrast = RewardModelTrainer(
        model,
        PAIRS,
        settings(steps=3),
        None,
        objective=lambda passes, batch: two_view_loss(passes, margin=batch.margin),
    )
    assert len(contrast.train()) == 3

    unlabelled = [model.encode(pair.conversation("chosen")) for pair in HELD[:4]]
    meta = MetaRMStep(eta=0.0)

    def difference(model):
        return model(**model.batch(unlabelled)).std()

    def step(model, loss):
        return vars(meta(model, loss, difference))

    moved = RewardModelTrainer(new_model(), PAIRS, settings(), step=step)
    plain = RewardModelTrainer(new_model(), PAIRS, settings())
    one, other = moved.train_step(), plain.train_step()
    # With eta = 0 nothing is looked ahead to.
    assert one["loss"] == pytest.approx(other["loss"], abs=1e-5) and "difference" in one
    assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


def test_one_hook_at_most_and_the_model_must_run():
    with pytest.raises(GuerdonError, match="at most one"):
        RewardModelTrainer(new_model(), PAIRS, settings(), objective=lambda p, b: p(), step=lambda m, loss: {})
    with pytest.raises(GuerdonError, match="never passed its pairs"):
        RewardModelTrainer(new_model(), PAIRS, settings(), step=lambda m, loss: {}).train_step()


# Bad input


def test_bad_input_is_named():
    with pytest.raises(GuerdonError, match="no pairs"):
        RewardModelTrainer(new_model(), [], settings())
    model = new_model()
    model.requires_grad_(False)
    with pytest.raises(GuerdonError, match="nothing of this reward model is trainable"):
        RewardModelTrainer(model, PAIRS, settings())
    with pytest.raises(GuerdonError, match="bach_size.*batch_size"):
        PreferenceConfig(bach_size=3)
    with pytest.raises(GuerdonError, match="none with pictures"):
        RewardModelTrainer(new_model(), PAIRS, settings(alternate=(2, 1)))
    with pytest.raises(GuerdonError, match="together and shuffle=false exclude it"):
        RewardModelTrainer(new_model(), PAIRS, settings(alternate=(2, 1), shuffle=False))
    with pytest.raises(GuerdonError, match="keep_best chooses by held-out pairs"):
        RewardModelTrainer(new_model(), PAIRS, settings(keep_best=True))


def test_too_long_conversations_are_counted_or_refused(caplog):
    model = new_model(max_length=24)
    lengths = [len(new_model().encode(pair.conversation(side))) for pair in PAIRS for side in ("chosen", "rejected")]
    trainer = RewardModelTrainer(model, PAIRS, settings())
    assert trainer.truncated == sum(length > 24 for length in lengths) > 0
    assert f"{trainer.truncated} of 80 conversations are longer than 24 tokens" in caplog.text
    with pytest.raises(GuerdonError, match="^embedded:.*longer than the limit of 24"):
        RewardModelTrainer(new_model(max_length=24, too_long="fail"), PAIRS, settings())


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_rows():
    model = new_model()
    with torch.no_grad():
        next(model.head.parameters()).fill_(math.nan)
    with pytest.raises(GuerdonError, match=r"at step 1 \(pairs embedded:"):
        RewardModelTrainer(model, PAIRS, settings()).train_step()


def test_metrics_are_json_numbers(tmp_path):
    folder = RunFolder.open(tmp_path / "run", {})
    RewardModelTrainer(new_model(), PAIRS, settings(steps=2), folder, HELD[:4]).train()
    lines = [json.loads(line) for line in folder.metrics_path.read_text().splitlines()]
    wanted = {"loss", "accuracy", "chosen", "rejected", "gap", "grad_norm", "learning_rate", "step", "stage"}
    assert wanted <= lines[1].keys() and all(isinstance(lines[1][name], float) for name in wanted - {"step", "stage"})
