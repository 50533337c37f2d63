"""Claim checks: the arithmetic of a verdict, the worlds that the experiments run in, and each experiment made tiny."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch.testing import assert_close

from guerdon.claims import adv_grpo, flow_grpo, realgen, textures
from guerdon.claims.experiment import (
    Arm,
    Check,
    ClaimResult,
    Effect,
    above,
    arms_section,
    below,
    control_fails,
    difference,
    effect_of,
    judged,
)
from guerdon.claims.tiny_flow import TinyFlow, pretrain
from guerdon.core.errors import GuerdonError
from guerdon.policies.rollout import keyed_generator, rollout
from guerdon.trainers.watch import HackingWatch

# Verdicts


def test_t_interval() -> None:
    found = effect_of([1.0, 2.0, 3.0])
    # t(0.975, 2) = 4.30265 and s / sqrt(3) = 0.57735
    assert found.value == 2.0 and found.low == pytest.approx(2 - 2.48414, abs=1e-4)
    assert found.high == pytest.approx(2 + 2.48414, abs=1e-4)


def test_two_seeds_have_no_interval() -> None:
    found = effect_of([1.0, 1.0])
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert above("x", found).outcome == "unclear"


def test_effect_needs_finite_values() -> None:
    with pytest.raises(GuerdonError, match="finite"):
        effect_of([1.0, math.nan])


def test_differences_are_paired_by_seed() -> None:
    first, second = Arm("a", {"m": [1.0, 5.0, 9.0]}), Arm("b", {"m": [0.9, 4.9, 8.9]})
    found = difference(first, second, "m")
    assert found.value == pytest.approx(0.1) and found.high - found.low < 1e-9
    with pytest.raises(GuerdonError, match="did you mean 'm'"):
        difference(first, second, "mm")
    second.add({"m": 1.0})
    with pytest.raises(GuerdonError, match="3 and 4"):
        difference(first, second, "m")


@pytest.mark.parametrize(
    "effect, up, down",
    [
        (Effect(1.0, 0.5, 1.5), "passed", "failed"),
        (Effect(0.1, -0.5, 0.7), "unclear", "unclear"),
        (Effect(-1.0, -1.5, -0.5), "failed", "passed"),
    ],
)
def test_checks_read_the_whole_interval(effect: Effect, up: str, down: str) -> None:
    assert above("x", effect).outcome == up and below("x", effect).outcome == down


@pytest.mark.parametrize(
    "shown, gap, outcome",
    [
        (Effect(0.0, -0.1, 0.1), Effect(1.0, 0.8, 1.2), "passed"),
        (Effect(0.6, 0.5, 0.7), Effect(0.4, 0.3, 0.5), "failed"),  # the control shows most of it
        (Effect(0.0, -0.1, 0.1), Effect(1.0, -0.1, 2.1), "unclear"),
        (Effect(0.1, 0.0, 0.2), Effect(-0.3, -0.4, -0.2), "failed"),  # no effect at all to be shown
    ],
)
def test_negative_control(shown: Effect, gap: Effect, outcome: str) -> None:
    effect = Effect(shown.value + gap.value, 0, 0)
    assert control_fails("x", effect, shown, gap).outcome == outcome


@pytest.mark.parametrize(
    "outcomes, verdict",
    [
        (["passed", "passed"], "holds"),
        (["passed", "unclear"], "inconclusive"),
        (["unclear", "failed"], "fails"),
        ([], "inconclusive"),
    ],
)
def test_the_worst_check_decides(outcomes: list, verdict: str) -> None:
    assert judged([Check("x", outcome, "") for outcome in outcomes]) == verdict


def a_result(seeds: list[int], outcome="passed") -> ClaimResult:
    arm = Arm("a", {"m": [1.0] * len(seeds)})
    return ClaimResult(
        "x", "a claim", "m", effect_of(arm.values("m")), 0.0, [Check("c", outcome, "d")], [arm], seeds, 1.26,
        [arms_section("t", [arm, Arm("other", {"n": [2.0]})], ["m"])], ["a note"],
    )  # fmt: skip


def test_result_as_json_and_as_a_table() -> None:
    result = a_result([1, 2, 3])
    found = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert list(found) == ["slug", "verdict", "effect", "interval", "control", "seeds", "seconds", "details"]
    assert found["verdict"] == "holds" and found["interval"] == [1.0, 1.0] and found["seeds"] == [1, 2, 3]
    console = Console(width=120, record=True, file=open("/dev/null", "w"))
    console.print(result.table())
    text = console.export_text()
    assert all(piece in text for piece in ("a claim", "passed", "a note", "holds", "1.000 ± 0.000", "other"))


def test_fewer_than_three_seeds_never_hold() -> None:
    result = a_result([1, 2])
    assert result.verdict == "inconclusive" and result.to_json()["interval"] == [None, None]
    assert a_result([1, 2], "failed").verdict == "fails"


# Worlds


def test_exact_velocity_is_the_conditional_mean() -> None:
    """The closed form against a regression of x_1 - x_0 on x_t over samples."""
    generator, t = torch.Generator().manual_seed(0), 0.6
    x0 = flow_grpo.MEAN + flow_grpo.SPREAD * torch.randn(200_000, generator=generator)
    x1 = torch.randn(200_000, generator=generator)
    x, v = (1 - t) * x0 + t * x1, x1 - x0
    slope = ((x - x.mean()) * (v - v.mean())).mean() / x.var()
    points = torch.tensor([0.0, 1.0])
    fitted = v.mean() + slope * (points - x.mean())
    assert_close(flow_grpo.exact_velocity(points, t), fitted, atol=0.01, rtol=0)


CARD = {"ODE": (0.431, 0.493, 0.5), "SDE a=0.7": (0.478, 0.499, 0.502), "SDE a=0.9": (0.488, 0.499, 0.502),
        "Dance 0.3": (0.441, 0.495, 0.5), "CPS a=0.8": (0.352, 0.394, 0.404)}  # fmt: skip


@pytest.mark.parametrize("name, kind, noise", flow_grpo.SAMPLERS)
def test_marginals_of_the_card(name: str, kind, noise: float) -> None:
    """The exact spreads in 10, 100 and 1000 steps against the card's sampled ones, and against drawn points."""
    mean, spread = flow_grpo.final_moments(name, kind, noise, 10)
    assert mean == pytest.approx(1.5, abs=1e-9)
    assert flow_grpo.sampled_spread(name, kind, noise, 10, 50_000, 11) == pytest.approx(spread, abs=0.01)
    if name.startswith("no score"):
        assert spread > 0.7
        return
    found = [spread, *(flow_grpo.final_moments(name, kind, noise, steps)[1] for steps in (100, 1000))]
    assert found == pytest.approx(CARD[name], abs=0.005)


def test_pretraining_finds_the_ring() -> None:
    size = flow_grpo.Size(drawn=400)
    points, mode = flow_grpo.ring(4000, keyed_generator(1))
    assert sorted(mode.unique().tolist()) == list(range(8)) and float(points.flatten(1).norm(dim=1).std()) < 0.15
    torch.manual_seed(0)
    policy = TinyFlow(flow_grpo.RingNet(), [flow_grpo.PROMPT], (2, 1, 1), gain=None)
    before = flow_grpo.measured(policy, size, 20, 1)["on_ring"]
    pretrain(policy, points, torch.zeros(4000, dtype=torch.long), steps=700, batch=256, lr=5e-3, seed=1, decay=0.9)
    after = flow_grpo.measured(policy, size, 20, 1)
    assert after["on_ring"] > before + 0.1 and after["entropy"] > 2.5


def test_tiny_flow_is_a_policy() -> None:
    torch.manual_seed(0)
    policy = TinyFlow(textures.TextureNet(), textures.PROMPTS, (3, 16, 16), gain=textures.GAIN)
    torch.nn.init.normal_(policy.net.out.weight, std=0.02)
    policy.rebase()
    cond = policy.encode(textures.USER_PROMPTS)
    path = rollout(policy, cond, num_steps=4, noise_level=0.7, window=(1, 3), generator=keyed_generator(1))
    assert path.images.shape == (6, 3, 16, 16) and path.log_probs.shape == (2, 6)
    assert float(path.images.min()) >= 0 and float(path.images.max()) <= 1
    x = policy.initial_noise(6, keyed_generator(2))
    before = policy.velocity(x, 0.5, cond)
    assert not torch.equal(before[0], policy.velocity(x, 0.5, policy.encode([textures.PROMPTS[-1]] * 6))[0])
    with torch.no_grad():
        policy.net.out.weight.mul_(2)
    assert not torch.equal(policy.velocity(x, 0.5, cond), before)
    with policy.reference():
        assert_close(policy.velocity(x, 0.5, cond), before)
    with pytest.raises(GuerdonError, match="unknown prompt"):
        policy.encode(["a red fibre"])


def test_content_error_sees_content_and_not_sharpness() -> None:
    prompts = textures.many(textures.USER_PROMPTS, 120)
    sharp = textures.real_textures(prompts, keyed_generator(1))
    smooth = textures.smoothed_textures([prompt + ", soft" for prompt in prompts], keyed_generator(1))
    right = textures.content_error(prompts, sharp).mean()
    assert abs(textures.content_error(prompts, smooth).mean() - right) < 0.15
    turned = textures.content_error(prompts, sharp.transpose(2, 3)).mean()
    other = textures.content_error(prompts[2:] + prompts[:2], sharp).mean()
    assert turned > right + 0.2 and other > right + 1.0
    reward = textures.alignment(prompts=prompts, completions=sharp)
    assert_close(torch.tensor(reward).mean(), -right)
    assert sum(textures.smoothness(None, smooth)) > sum(textures.smoothness(None, sharp))


def fine(images: torch.Tensor) -> torch.Tensor:
    """Grain by mixed second differences, which stripes along an axis do not have, in units of GRAIN; [N]."""
    rows = images[..., 1:, :] - images[..., :-1, :]
    return ((rows[..., 1:] - rows[..., :-1]).square().mean((1, 2, 3)) / 4).sqrt() / textures.GRAIN


def test_smoothed_textures_have_less_grain_than_real_and_corrupted_ones_more_or_none() -> None:
    prompts = textures.many(textures.USER_PROMPTS, 300)
    real = textures.real_textures(prompts, keyed_generator(1))
    low, high = textures.REAL_GRAIN
    assert low < fine(real).min() + 0.1 and fine(real).max() < high + 0.1 and fine(real).std() > 0.08
    grain = [float(fine(textures.smoothed_textures([p + style for p in prompts], keyed_generator(1))).mean())
             for style in (", soft", "", ", raw photo")]  # fmt: skip
    assert sorted(grain) == grain and grain[-1] < low + 0.05
    bad = fine(textures.corrupted(real, keyed_generator(1)))
    outside = (bad < low - 0.05) | (bad > high + 0.05)
    assert outside.float().mean() > 0.75 and (bad > high).any() and (bad < low).any()


def test_random_rewards_know_nothing_but_the_bits() -> None:
    images = textures.real_textures(textures.USER_PROMPTS, keyed_generator(1))
    assert textures.random_reward(None, images) == textures.random_reward(None, images)
    assert len(set(textures.random_reward(None, images))) == 6


def test_the_plane_of_the_card() -> None:
    end, nearest = adv_grpo.plane(None, 0, 11, 120)
    assert end > 4 and nearest < 0.5  # runs through the references and away
    end, _ = adv_grpo.plane(adv_grpo.always(), 10, 11, 120)
    assert end < 0.5
    assert 2 < adv_grpo.undirected(11, 120) < 4


def test_gold_is_small_for_references_and_large_for_smooth_ones() -> None:
    prompts = textures.many(textures.USER_PROMPTS, 60)
    generator = keyed_generator(1)
    gold = adv_grpo.Gold(textures.real_textures(prompts, generator))
    same = gold(textures.real_textures(prompts, generator))
    assert gold(textures.smoothed_textures([p + ", soft" for p in prompts], generator)) > same + 0.3


def test_random_features_point_away_from_references_on_both_sides_of_their_grain() -> None:
    prompts = textures.many(textures.USER_PROMPTS, 120)
    references = textures.real_textures(prompts, keyed_generator(1))
    backbone = adv_grpo.RandomFeatures(1, references)
    head = adv_grpo.FoundationHead(backbone, hidden=8)
    assert head.tokens(references[:5]).shape == (5, 1 + 16, 49)
    pole = head.cls_features(references).mean(0)
    shown = (
        textures.textures(prompts, torch.full((120,), grain), keyed_generator(2)) for grain in (0.3, 0.6, 1, 1.5, 2.5)
    )
    near = [float((head.cls_features(images) @ pole).mean()) for images in shown]
    assert near[0] < near[1] < near[2] > near[3] > near[4]
    assert not list(backbone.parameters())


def test_the_latest_checkpoint_that_is_not_clearly_worse_is_kept() -> None:
    world = textures.new_world(1, base_steps=1, images=24, detector_steps=1)
    size = realgen.Size(watch_every=1, patience=2, tolerance=0.05)
    game = realgen.Game("safeguarded", world, size, 1)
    game.adversaries, trainer = [], SimpleNamespace(best_step=0)
    scores = iter([0.1, 0.5, 0.47, 0.3, 0.6, 0.2, 0.2])
    game.watch = HackingWatch(
        lambda: world.test[:12], [0] * 12, {"judge": lambda images: torch.full((12,), next(scores))},
        {"judge": "validation"}, patience=None,
    )  # fmt: skip
    game.watch.measure(0)
    found = []
    for step in range(1, 7):
        found.append(game.on_step_end(trainer, step, {}))
        trainer.best_step = step if found[-1] == "best" else trainer.best_step
    assert found == ["best", "best", None, "best", None, "stop"]


def test_an_arena_of_one_order_is_biased() -> None:
    found = realgen.arena(1)
    assert found["one order"] == pytest.approx(0.6, abs=0.03) and found["both orders"] == pytest.approx(0.5, abs=0.03)


# Experiments, tiny: the whole path runs, and the result is made of what was measured

SEEDS = (1, 2)


def test_flow_grpo_tiny() -> None:
    size = flow_grpo.Size(points=500, grids=(5, 10), base_steps=150, steps=8, group=8, groups=2, drawn=200, lr=3e-3)
    result = flow_grpo.run(SEEDS, size=size)
    found = result.to_json()
    assert found["slug"] == "flow-grpo" and found["verdict"] in ("inconclusive", "fails")  # two seeds cannot hold
    arms = found["details"]["arms"]
    gains = [a - b for a, b in zip(arms["Flow-GRPO"]["reward"], arms["base"]["reward"])]
    assert found["effect"] == pytest.approx(sum(gains) / 2) and found["effect"] > 0.02
    assert arms["no score term a=0.7"]["std N=10"][0] > arms["SDE a=0.7"]["std N=10"][0]
    assert flow_grpo.run(SEEDS[:1], size=size).to_json()["details"]["arms"]["Flow-GRPO"]["reward"] == [
        arms["Flow-GRPO"]["reward"][0]
    ]


def test_realgen_tiny() -> None:
    size = realgen.Size(
        base_steps=10, images=24, detector_steps=8, steps=4, group=4, groups=2, watch_every=2, patience=1, watched=12,
        drawn=24, fresh_steps=4, rewriter_steps=2,
    )  # fmt: skip
    result = realgen.run(SEEDS[:1], size=size)
    arms = {arm.name: arm for arm in result.arms}
    assert {*realgen.ARMS, "base", "rewriter, base frozen"} <= set(arms)
    assert result.effect.value == pytest.approx(arms["safeguarded"].mean("held-out") - arms["base"].mean("held-out"))
    assert result.verdict != "holds"
    assert arms["smoothness"].mean("kept step") == 4 and arms["safeguarded"].mean("kept step") in (0, 2, 4)
    # Every arm but the base was drawn by a policy that moved.
    assert arms["frozen, naive"].mean("content") != arms["base"].mean("content")


def test_adv_grpo_tiny() -> None:
    size = adv_grpo.Size(updates=20, base_steps=10, references=24, head_steps=5, steps=3, group=4, groups=2, drawn=24)
    result = adv_grpo.run(SEEDS[:1], size=size)
    arms = {arm.name: arm for arm in result.arms}
    assert set(adv_grpo.ARMS) <= set(arms)
    gap = arms["frozen"].mean("MMD") - arms["adversarial"].mean("MMD")
    assert result.effect.value == pytest.approx(gap)
    # A frozen head scores the references alike in every arm; the adversarial one has learnt.
    assert arms["frozen"].mean("reference reward") == arms["frozen + KL"].mean("reference reward")
    assert arms["adversarial"].mean("reference reward") != arms["frozen"].mean("reference reward")


VERDICTS = {
    "flow-grpo": ("holds",), "realgen": ("holds", "inconclusive"), "adv-grpo": ("holds", "inconclusive"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("claim", [flow_grpo, realgen, adv_grpo], ids=lambda module: module.SLUG)
def test_full_claim(claim) -> None:
    """The claim at full size. With three seeds single checks of the two games stay unclear (README); none may fail."""
    result = claim.run()
    assert result.effect.low > 0 and result.verdict in VERDICTS[claim.SLUG], "\n".join(
        f"{c.outcome}: {c.name}: {c.detail}" for c in result.checks
    )
