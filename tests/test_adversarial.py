from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from guerdon.core.errors import GuerdonError
from guerdon.models.detectors.small import make_detector, p_real
from guerdon.trainers.adversarial import (
    AdversarialDetector,
    ReplayBuffer,
    Turn,
    always,
    every,
    when_above,
    when_generator_leads,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def textures(n: int, seed: int, width: int = 3) -> torch.Tensor:
    raw = torch.randn(n, 3, 32 + width - 1, 32 + width - 1, generator=generator(seed))
    return (0.5 + 0.12 * width * F.avg_pool2d(raw, width, 1)).clamp(0, 1)


def adversary(family: str = "spectrum", **options: Any) -> AdversarialDetector:
    model = make_detector(family, seed=0)
    model.calibrate(torch.cat([textures(16, 90), textures(16, 91, width=5)]))
    return AdversarialDetector(model, **{"lr": 3e-3, "batch_size": 8, **options})


def turns(schedule, means: list[tuple[float, float]]) -> list[tuple[bool, bool]]:
    result = [schedule(step, *pair) for step, pair in enumerate(means)]
    assert all(isinstance(turn, Turn) for turn in result)
    return [(turn.detector, turn.generator) for turn in result]


def test_schedules() -> None:
    flat = [(0.5, 0.5)] * 6
    assert turns(always(), flat) == [(True, True)] * 6
    assert turns(every(2, 1), flat) == [(True, True), (True, True), (False, True)] * 2
    assert turns(every(2, 1, share_samples=False), flat) == [(True, False), (True, False), (False, True)] * 2
    lead = [(0.9, 0.1), (0.4, 0.6), (0.5, 0.5)]
    assert turns(when_generator_leads(), lead) == [(False, True), (True, True), (False, True)]
    assert turns(when_generator_leads(share_samples=False), lead) == [(False, True), (True, False), (False, True)]
    # The first step is the warm-up; the threshold itself does not count as above.
    assert turns(when_above(0.6), [(0.9, 0.1), (0.9, 0.6), (0.9, 0.61)]) == [(True, True), (False, True), (True, True)]
    with pytest.raises(GuerdonError, match=r"every\(0, 0\)"):
        every(0, 0)


def test_buffer_fills_up_and_then_replaces_at_random_keeping_pairs_together() -> None:
    buffer = ReplayBuffer(10)
    values = torch.arange(30).view(30, 1, 1, 1) / 255.0
    real, fake = values.expand(30, 3, 4, 4), (values + 100 / 255.0).expand(30, 3, 4, 4)
    buffer.add(real[:6], fake[:6], generator())
    assert buffer.real[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    buffer.add(real[6:12], fake[6:12], generator())
    assert len(buffer) == 10
    buffer.add(real[12:], fake[12:], generator(1))
    kept = buffer.real[:, 0, 0, 0].long()
    assert len(buffer) == 10 and kept.max() > 12 and kept.unique().numel() == 10
    assert torch.equal(buffer.fake[:, 0, 0, 0].long(), kept + 100)
    old_real, old_fake = buffer.sample(4, generator(), torch.device("cpu"))
    assert old_real.shape == (4, 3, 4, 4)
    assert torch.allclose(old_fake - old_real, torch.tensor(100 / 255.0))
    assert len(buffer.sample(50, generator(), torch.device("cpu"))[0]) == 10
    with pytest.raises(GuerdonError, match=r"holds \[4, 4\] images, these are \[8, 8\]"):
        buffer.add(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), generator())
    nothing = ReplayBuffer(0)
    nothing.add(real, fake, generator())
    assert len(nothing) == 0


def test_update_learns_until_the_target_and_not_longer() -> None:
    judge = adversary(lr=3e-4, max_passes=200, corrupted=0.0, augment_both=False, ema_decay=0.5)
    real, fake = textures(48, 0), textures(48, 1, width=4)
    first = judge.update(real, fake, step=0)
    assert first["updated"] == 1 and first["accuracy"] >= 0.9
    assert 1 < first["passes"] < 200 and first["steps"] == first["passes"] * 6
    assert judge.score(textures(32, 7)).mean() - judge.score(textures(32, 8, width=4)).mean() > 0.05
    again = judge.update(real, fake, step=1)
    assert again["passes"] == 1
    assert again["gap"] > first["gap"] and again["buffer"] == 96
    assert judge.updates == 2 and judge.optimiser_steps == first["steps"] + again["steps"]


def test_passes_end_at_the_ceiling_on_what_cannot_be_told_apart() -> None:
    judge = adversary(target_accuracy=0.99, max_passes=3)
    info = judge.update(textures(16, 0), textures(16, 1), step=0)
    assert info["passes"] == 3 and info["accuracy"] < 0.99


def test_steps_per_update_is_exact_and_unequal_counts_make_pairs() -> None:
    judge = adversary(steps_per_update=5)
    info = judge.update(textures(10, 0), textures(24, 1, width=5), step=0)
    assert info["steps"] == 5 and info["passes"] == 2 and info["buffer"] == 24
    held = {row.numpy().tobytes() for row in judge.buffer.real}
    assert len(held) == 10  # every real picture was paired


def test_a_trigger_that_is_off_leaves_the_detector_alone() -> None:
    judge = adversary(schedule=when_above(0.6))
    before = judge.state_dict()
    real, fake = textures(8, 0), textures(8, 1)
    info = judge.update(real, fake, step=3, mean_reward=0.5)
    assert info["updated"] == 0 and info["train_generator"] == 1 and info["steps"] == 0
    assert info["fake_mean"] == 0.5
    assert info["real_mean"] == pytest.approx(float(judge.score(real).mean()))
    after = judge.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert judge.update(real, fake, step=4, mean_reward=0.7)["updated"] == 1


def test_generator_that_leads_is_noticed_from_the_scores() -> None:
    judge = adversary(schedule=when_generator_leads(share_samples=False), steps_per_update=40, ema_decay=0.5)
    real, fake = textures(24, 0), textures(24, 1, width=5)
    leading = (real, fake) if judge.score(real).mean() < judge.score(fake).mean() else (fake, real)
    info = judge.update(*leading, step=0)
    assert (info["updated"], info["train_generator"]) == (1, 0)
    info = judge.update(*leading, step=1)
    assert (info["updated"], info["train_generator"]) == (0, 1)


def test_score_is_the_average_with_warm_up() -> None:
    judge = adversary(steps_per_update=1, ema_decay=0.99)
    key = "head.weight"
    start = judge.detector.state_dict()[key].clone()
    judge.update(textures(8, 0), textures(8, 1, width=5), step=0)
    now = judge.detector.state_dict()[key]
    assert not torch.equal(now, start)
    # After the first optimiser step the decay is (1 + 1) / (10 + 1).
    assert torch.allclose(judge.ema.state_dict()[key], start * 2 / 11 + now * 9 / 11, atol=1e-6)
    pictures = textures(6, 5)
    eight_bit = (pictures * 255).round() / 255
    assert torch.equal(judge.score(pictures), p_real(judge.ema, eight_bit))
    assert torch.allclose(judge.score(pictures[2:3]), judge.score(pictures)[2:3], atol=1e-5)


def test_first_step_minimises_the_soft_cross_entropy_plus_the_extra_loss() -> None:
    real, fake = textures(8, 0), textures(8, 1, width=5)
    judge = adversary(steps_per_update=1, corrupted=0.0, augment_both=False, extra_loss=lambda model: torch.tensor(2.0))
    with torch.no_grad():
        logits = [judge.detector((part * 255).round() / 255).log_softmax(1) for part in (real, fake)]
    expected = -0.5 * sum((0.95 * part[:, own] + 0.05 * part[:, 1 - own]).mean() for own, part in enumerate(logits))
    assert judge.update(real, fake, step=0)["loss"] == pytest.approx(float(expected) + 2.0, abs=1e-5)


def test_every_minibatch_is_joined_by_as_many_replayed_pairs() -> None:
    judge = adversary(steps_per_update=1, corrupted=0.0, augment_both=False)
    old, new = [[textures(8, seed), textures(8, seed + 1, width=5)] for seed in (0, 2)]
    judge.update(*old, step=0)
    with torch.no_grad():
        both = [(torch.cat(parts) * 255).round() / 255 for parts in zip(new, old, strict=True)]
        logits = [judge.detector(part).log_softmax(1) for part in both]
        alone = judge.detector((new[0] * 255).round() / 255).log_softmax(1)
    expected = -0.5 * sum((0.95 * part[:, own] + 0.05 * part[:, 1 - own]).mean() for own, part in enumerate(logits))
    assert not torch.allclose(alone.mean(0), logits[0].mean(0), atol=1e-3)
    # The minibatch holds all 8 new pairs and the buffer all 8 old ones, so the loss is that over both.
    assert judge.update(*new, step=1)["loss"] == pytest.approx(float(expected), abs=1e-5)


def test_corrupted_negatives_stay_fake_while_the_game_goes_on() -> None:
    from guerdon.models.detectors.corruptions import noise

    scores = {}
    real, fake = textures(48, 0), textures(48, 1, width=5)
    for share in (0.0, 0.5):
        judge = adversary(corrupted=share, steps_per_update=60, augment_both=False, ema_decay=0.5)
        judge.update(real, fake, step=0)
        scores[share] = float(judge.score(noise(textures(24, 5), 0.15, generator())).mean())
    assert scores[0.5] < 0.35 and scores[0.5] < scores[0.0] - 0.2


def test_resume_gives_the_same_numbers() -> None:
    real, fakes = textures(16, 0), [textures(16, seed, width=5) for seed in range(4)]

    def run(judge: AdversarialDetector, steps: range) -> list[dict[str, float]]:
        return [judge.update(real, fakes[step], step=step) for step in steps]

    whole = adversary(buffer_size=24, steps_per_update=3)
    expected = run(whole, range(4))
    half = adversary(buffer_size=24, steps_per_update=3)
    run(half, range(2))
    state = copy.deepcopy(half.state_dict())
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    resumed = adversary(buffer_size=24, steps_per_update=3, seed=9)
    resumed.load_state_dict(state)
    assert run(resumed, range(2, 4)) == expected[2:]
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_state_survives_safetensors(tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    judge = adversary(steps_per_update=2)
    judge.update(textures(8, 0), textures(8, 1, width=5), step=0)
    save_file(judge.state_dict(), tmp_path / "judge.safetensors")
    fresh = adversary(steps_per_update=2)
    fresh.load_state_dict(load_file(tmp_path / "judge.safetensors"))
    pictures = textures(4, 3)
    assert torch.equal(fresh.score(pictures), judge.score(pictures))
    next_pair = textures(8, 4), textures(8, 5, width=5)
    assert fresh.update(*next_pair, step=1) == judge.update(*next_pair, step=1)


def test_a_state_that_does_not_fit_is_refused() -> None:
    judge = adversary(steps_per_update=1)
    judge.update(textures(8, 0), textures(8, 1), step=0)
    state = judge.state_dict()
    with pytest.raises(GuerdonError, match="'generator' is missing"):
        adversary().load_state_dict({key: value for key, value in state.items() if key != "generator"})
    with pytest.raises(GuerdonError, match=r"\(ema\): weight 'head.bias' is missing"):
        adversary().load_state_dict({key: value for key, value in state.items() if key != "ema.head.bias"})
    with pytest.raises(GuerdonError, match="holds 8 pairs, buffer_size is 4"):
        adversary(buffer_size=4).load_state_dict(state)


def test_only_named_parameters_are_trained() -> None:
    judge = adversary(trainable=("head",), steps_per_update=2)
    before = copy.deepcopy(judge.detector.state_dict())
    judge.update(textures(8, 0), textures(8, 1), step=0)
    changed = {key for key, value in judge.detector.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"head.weight", "head.bias"}
    with pytest.raises(GuerdonError, match=r"\['experts'\]"):
        adversary(trainable=("experts",))


def test_mistakes_are_named() -> None:
    with pytest.raises(GuerdonError, match=r"ema_decay must lie in \[0, 1\)"):
        adversary(ema_decay=1.0)
    with pytest.raises(GuerdonError, match="at least 1"):
        adversary(steps_per_update=0)
    with pytest.raises(GuerdonError, match="fake images: need at least 1, got 0"):
        adversary().update(textures(4, 0), textures(0, 0), step=0)
