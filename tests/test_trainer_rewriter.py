from __future__ import annotations

import copy
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.reward import reward
from guerdon.core.runs import RunFolder
from guerdon.policies.rewriter import PromptRewriter
from guerdon.policies.tiny_rewriter import StylePhrases, cold_start, synthetic_pairs, tiny_rewriter, user_prompts
from guerdon.rewards.bank import RewardBank
from guerdon.trainers.keyed_grpo import COMPLETE, latest_complete, prompt_plan
from guerdon.trainers.rewriter import RewriterTrainingConfig, train_rewriter
from guerdon.trainers.rewriter_env import PromptRewriterEnv, latent_seed

SUBJECTS = ("grass", "a coin", "stars")
GOOD, BAD = StylePhrases().good, StylePhrases().bad
PROMPTS = user_prompts(subjects=SUBJECTS)
Toy = tuple[list[tuple[str, int]], Any]


def toy_draw(texts: list[str], seeds: list[int]) -> Tensor:
    """4x4 pictures: red tells how sharp the words are, green which subject was drawn, blue is the seed's noise."""
    images = torch.zeros(len(texts), 3, 4, 4)
    for image, text, seed in zip(images, texts, seeds, strict=True):
        words = text.split()
        quality = 0.5 + 0.4 * any(w in GOOD for w in words) - 0.4 * any(w in BAD for w in words)
        image[0] = quality + 0.02 * (random.Random(seed).random() - 0.5)
        image[1] = next((0.3 * (i + 1) for i, s in enumerate(SUBJECTS) if text.endswith(s)), 0.0)
        image[2] = random.Random(seed).random()
    return images


@reward(name="realism", range=(0.0, 1.0))
def realism(prompts: list[str], completions: Tensor, **columns: Any) -> list[float]:
    return completions[:, 0].mean(dim=(1, 2)).tolist()


@reward(name="alignment", range=(0.0, 1.0))
def alignment(prompts: list[str], completions: Tensor, **columns: Any) -> list[float]:
    wanted = [next(0.3 * (i + 1) for i, s in enumerate(SUBJECTS) if p.endswith(s)) for p in prompts]
    return [float(abs(image[1].mean() - w) < 0.05) for image, w in zip(completions, wanted, strict=True)]


def toy_env(**options: Any) -> PromptRewriterEnv:
    bank = RewardBank({"realism": (realism, 1.0), "alignment": (alignment, 1.0)}, **options.pop("bank", {}))
    return PromptRewriterEnv(toy_draw, bank, **options)


def says(answer: str) -> str:
    return f"<think>x</think><answer>{answer}</answer>"


def at_step(step: int) -> Any:
    return SimpleNamespace(global_step=step)


@pytest.fixture(scope="module")
def taught() -> PromptRewriter:
    made = tiny_rewriter(subjects=SUBJECTS, hidden=64)
    pairs = synthetic_pairs(1000, subjects=SUBJECTS)
    cold_start(made.model, made.tokenizer, pairs, 110, learning_rate=6e-3, batch_size=24)
    return made


def pupil(taught: PromptRewriter) -> PromptRewriter:
    return PromptRewriter(copy.deepcopy(taught.model), taught.tokenizer, taught.config)


# The environment


def test_malformed_completions_cost_no_picture_and_get_the_floor() -> None:
    drawn: list[str] = []

    def draw(texts: list[str], seeds: list[int]) -> Tensor:
        drawn.extend(texts)
        return toy_draw(texts, seeds)

    bank = RewardBank({"realism": (realism, 2.0)})
    env = PromptRewriterEnv(draw, bank, combine="weighted", floor=-3.0, format_weight=0.5)
    completions = [
        says("a raw photo of grass"),
        "no tags",
        says(" "),
        "<answer>no thought</answer>",
        [{"content": says("x")}],
    ]
    result = env.scores(["ask"] * 5, completions, user_prompt=["grass"] * 5)
    assert drawn == ["a raw photo of grass", "x"]
    assert result.values[[1, 2, 3]].tolist() == [-3.0] * 3 and result.valid.all()
    np.testing.assert_allclose(result.values[[0, 4]], [0.5 + 2 * 0.9, 0.5 + 2 * 0.5], atol=0.05)
    assert result.parts["format"].tolist() == [1, 0, 0, 0, 1] and np.isnan(result.parts["realism"][1:4]).all()
    loose = PromptRewriterEnv(draw, bank, require_think=False)
    assert loose.scores(["ask"] * 5, completions, user_prompt=["grass"] * 5).parts["format"].tolist() == [1, 0, 0, 1, 1]
    nothing = env.scores(["ask"] * 2, ["a", "b"], user_prompt=["grass"] * 2)
    assert nothing.values.tolist() == [-3.0, -3.0]


def test_one_group_shares_its_random_numbers() -> None:
    asked: list[tuple[str, int]] = []

    def draw(texts: list[str], seeds: list[int]) -> Tensor:
        asked.extend(zip(texts, seeds, strict=True))
        return toy_draw(texts, seeds)

    env = PromptRewriterEnv(draw, RewardBank({"realism": (realism, 1.0)}), images_per_rewrite=2)

    def seeds_of(users: list[str], step: int) -> dict[str, set[int]]:
        asked.clear()
        texts = [f"{user} {i}" for i, user in enumerate(users)]
        env.scores(users, [says(t) for t in texts], user_prompt=users, trainer_state=at_step(step))
        found: dict[str, set[int]] = {}
        for text, seed in asked:
            found.setdefault(text.rpartition(" ")[0], set()).add(seed)
        assert len(asked) == 2 * len(users)
        return found

    first = seeds_of(["grass", "grass", "stars", "stars"], 7)
    assert all(len(seeds) == 2 for seeds in first.values()) and not first["grass"] & first["stars"]
    assert seeds_of(["stars", "grass"], 7) == first  # neither order nor group size matters
    assert not seeds_of(["grass"], 8)["grass"] & first["grass"]
    assert first["grass"] == {latent_seed(0, 7, "grass", j) for j in range(2)}
    assert all(0 <= latent_seed(s, 0, "p", 0) < 2**31 for s in range(100))


def test_equal_pictures_are_drawn_once_and_scores_are_means_over_pictures() -> None:
    calls: list[int] = []

    def draw(texts: list[str], seeds: list[int]) -> Tensor:
        calls.append(len(texts))
        return toy_draw(texts, seeds)

    @reward(name="noise")
    def noise(prompts: list[str], completions: Tensor, **columns: Any) -> list[float]:
        return completions[:, 2].mean(dim=(1, 2)).tolist()

    env = PromptRewriterEnv(draw, RewardBank({"noise": (noise, 1.0)}), images_per_rewrite=3)
    result = env.scores(["ask"] * 3, [says("a"), says("a"), says("b")], user_prompt=["grass"] * 3)
    assert calls == [6]
    expected = np.mean([random.Random(latent_seed(0, 0, "grass", j)).random() for j in range(3)])
    np.testing.assert_allclose(result.parts["noise"], expected, rtol=1e-5)


def test_pictures_are_judged_against_the_users_prompt() -> None:
    seen: dict[str, Any] = {}

    @reward(name="spy")
    def spy(
        prompts: list[str], completions: Tensor, rewrite: list[str], topic: list[str], **columns: Any
    ) -> list[float]:
        seen.update(prompts=prompts, rewrite=rewrite, topic=topic, step=columns["trainer_state"].global_step)
        return [0.0] * len(prompts)

    env = PromptRewriterEnv(toy_draw, RewardBank({"spy": (spy, 1.0)}), images_per_rewrite=2)
    columns = {"user_prompt": ["grass", "stars", "a coin"], "topic": ["g", "s", "c"], "trainer_state": at_step(4)}
    env.scores(["1", "2", "3"], [says("lawn"), "malformed", says("money")], **columns)
    assert seen["prompts"] == ["grass", "grass", "a coin", "a coin"]
    assert seen["rewrite"] == ["lawn", "lawn", "money", "money"] and seen["topic"] == ["g", "g", "c", "c"]
    assert seen["step"] == 4
    dropped = toy_env(combine="weighted").scores(
        ["ask"] * 2, [says("a raw photo of grass"), says("a raw photo of stars")], user_prompt=["grass"] * 2
    )
    assert dropped.parts["alignment"].tolist() == [1.0, 0.0]


def coded(one: list[float], two: list[float]) -> PromptRewriterEnv:
    """Rewrites "0", "1", ... whose pictures score one[i] and two[i]."""

    def draw(texts: list[str], seeds: list[int]) -> Tensor:
        images = torch.zeros(len(texts), 3, 2, 2)
        for image, text in zip(images, texts, strict=True):
            image[0], image[1] = one[int(text)], two[int(text)]
        return images

    def channel(index: int) -> Any:
        @reward(name=f"channel{index}", on_failure="drop_sample")
        def read(prompts: list[str], completions: Tensor, **columns: Any) -> list[Any]:
            means = completions[:, index].double().mean(dim=(1, 2)).tolist()
            return [Failed("too dark", "test") if m == 0 else m for m in means]

        return read

    return PromptRewriterEnv(draw, RewardBank({"one": (channel(0), 1.0), "two": (channel(1), 1.0)}), format_weight=0.0)


def test_per_reward_advantages_of_the_card() -> None:
    env = coded([0.1, 0.2, 0.3, 0.4], [0.9, 0.1, 0.1, 0.1])
    assert env.scale_rewards == "none"
    values = env(["ask"] * 4, [says(str(i)) for i in range(4)], user_prompt=["grass"] * 4)
    assert values == pytest.approx([0.1956, -0.5120, -0.0652, 0.3816], abs=5e-4)


def test_a_failed_picture_drops_its_sample_from_the_group() -> None:
    n = 12
    scores = [0.0] + [0.05 * i for i in range(1, n)]
    env = coded(scores, [0.5] * n)
    values = env(["ask"] * n, [says(str(i)) for i in range(n)], user_prompt=["grass"] * n)
    assert values[0] is None
    rest = coded(scores, [0.5] * n)(
        ["ask"] * (n - 1), [says(str(i)) for i in range(1, n)], user_prompt=["grass"] * (n - 1)
    )
    assert values[1:] == pytest.approx(rest)
    failed = env.scores(["ask"] * n, [says(str(i)) for i in range(n)], user_prompt=["grass"] * n).failures
    assert set(failed) == {0} and failed[0].cause == "one: too dark"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1), st.booleans()), min_size=2, max_size=8),
    st.floats(0.1, 3),
)
def test_malformed_never_beats_well_formed(rows: list[tuple[float, float, bool]], format_weight: float) -> None:
    env = coded([a for a, _, _ in rows], [b for _, b, _ in rows])
    env.format_weight = format_weight
    completions = [says(str(i)) if formed else "malformed" for i, (_, _, formed) in enumerate(rows)]
    values = env(["ask"] * len(rows), completions, user_prompt=["grass"] * len(rows))
    assert None not in values and abs(sum(values)) < 1e-3
    formed = [v for v, (_, _, ok) in zip(values, rows, strict=True) if ok]
    malformed = [v for v, (_, _, ok) in zip(values, rows, strict=True) if not ok]
    if formed and malformed:
        assert max(malformed) < min(formed)
        assert max(malformed) - min(malformed) < 1e-6
    elif malformed:
        assert values == [0.0] * len(rows)


def test_parts_and_diversity_are_logged() -> None:
    logged: dict[str, float] = {}
    tables: dict[str, list[str]] = {}
    completions = [says("a raw photo of grass"), says("a soft photo of grass"), "malformed"]
    toy_env()(
        ["ask"] * 3, completions, user_prompt=["grass"] * 3, log_metric=logged.__setitem__, log_extra=tables.__setitem__
    )
    assert logged["rewriter/format"] == pytest.approx(2 / 3) and logged["rewriter/alignment"] == 1.0
    assert logged["rewriter/realism"] == pytest.approx(0.5, abs=0.02)
    assert logged["rewriter/weighted"] == pytest.approx(logged["rewriter/realism"] + 1.0)
    assert logged["rewriter/words"] == 5 and logged["rewriter/distinct_2"] == pytest.approx(6 / 8)
    assert tables == {"rewrite": ["a raw photo of grass", "a soft photo of grass", ""]}


def test_texts_can_be_scored_without_a_language_model() -> None:
    scores = toy_env().score_texts(["a raw photo of grass", "grass"], ["grass", "grass"], step=3)
    assert scores["alignment"].tolist() == [1.0, 1.0]
    assert scores["realism"][0] - scores["realism"][1] == pytest.approx(0.4, abs=1e-5)  # one seed, two texts


def test_environment_mistakes_are_named() -> None:
    completions, columns = [says("grass")], {"user_prompt": ["grass"]}
    with pytest.raises(GuerdonError, match="did you mean 'user_promt'"):
        toy_env().scores(["ask"], completions, user_promt=["grass"])
    with pytest.raises(GuerdonError, match="floor 5.0 is above 1"):
        toy_env(combine="weighted", floor=5.0)
    with pytest.raises(GuerdonError, match="images_per_rewrite"):
        toy_env(images_per_rewrite=0)
    bank = RewardBank({"realism": (realism, 1.0)})
    for draw, match in (
        (lambda texts, seeds: torch.zeros(2, 3, 4, 4), r"\[1, 3, H, W\], got \[2, 3, 4, 4\]"),
        (lambda texts, seeds: [0], "got list"),
        (lambda texts, seeds: torch.full((1, 3, 4, 4), 255.0), r"in \[0, 1\]"),
        (lambda texts, seeds: torch.full((1, 3, 4, 4), torch.nan), r"finite"),
    ):
        with pytest.raises(GuerdonError, match=match):
            PromptRewriterEnv(draw, bank).scores(["ask"], completions, **columns)


# The trainer


def test_the_plan_of_prompts_is_keyed_by_pass() -> None:
    plan = prompt_plan(["a", "b", "c"], 8, 0)
    assert sorted(plan[:3]) == sorted(plan[3:6]) == ["a", "b", "c"] and len(plan) == 8
    assert plan[:5] == prompt_plan(["a", "b", "c"], 5, 0)
    assert any(prompt_plan(["a", "b", "c"], 12, seed) != prompt_plan(["a", "b", "c"], 12, 0) for seed in range(1, 4))


SMALL = RewriterTrainingConfig(
    steps=6, prompts_per_step=2, num_generations=4, learning_rate=1e-3, beta=0.1, save_every=3, micro_batch=4
)


def rewards_of(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "step_time"} for row in metrics]


class Killed(Exception):
    pass


def killed_after(step: int) -> Any:
    def stop(now: int, row: dict[str, Any]) -> None:
        if now == step:
            raise Killed

    return stop


@pytest.fixture(scope="module")
def straight(taught: PromptRewriter, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Six steps without interruption. What draws random numbers between the steps must not matter."""
    run = tmp_path_factory.mktemp("straight") / "run"
    return train_rewriter(pupil(taught), toy_env(), PROMPTS, SMALL, run, on_step=lambda *_: torch.rand(5)).metrics


@pytest.mark.parametrize("step", [2, 5])
def test_a_resumed_run_gives_the_numbers_of_an_uninterrupted_one(
    taught: PromptRewriter, straight: list[dict[str, Any]], tmp_path: Path, step: int
) -> None:
    run = tmp_path / "run"
    with pytest.raises(Killed):
        train_rewriter(pupil(taught), toy_env(), PROMPTS, SMALL, run, on_step=killed_after(step))
    torch.rand(step)
    other = tiny_rewriter(subjects=SUBJECTS, hidden=64, seed=5)  # its weights come from the run
    resumed = train_rewriter(other, toy_env(), PROMPTS, SMALL, run, resume=True)
    assert [row["step"] for row in resumed.metrics] == [1, 2, 3, 4, 5, 6]
    assert rewards_of(resumed.metrics) == rewards_of(straight)
    assert len({row["rewriter/weighted"] for row in straight}) == 6
    assert straight[-1]["kl"] > 0  # against the initial weights, also after resuming
    again = train_rewriter(pupil(taught), toy_env(), PROMPTS, SMALL, run, resume=True)
    assert again.metrics == resumed.metrics
    assert again.rewriter.rewrite(PROMPTS[:5]) == resumed.rewriter.rewrite(PROMPTS[:5])
    assert PromptRewriter.load(run / "final").rewrite(PROMPTS[:5]) == resumed.rewriter.rewrite(PROMPTS[:5])


def test_a_checkpoint_cut_off_while_saving_is_not_used(
    taught: PromptRewriter, straight: list[dict[str, Any]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train_rewriter(pupil(taught), toy_env(), PROMPTS, SMALL, run)
    last = run / "checkpoints" / "checkpoint-6"
    (last / COMPLETE).unlink()
    (last / "trainer_state.json").write_text("{", encoding="utf-8")
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 7, "rew')
    shutil.rmtree(run / "final")
    assert latest_complete(run / "checkpoints") == run / "checkpoints" / "checkpoint-3"
    resumed = train_rewriter(pupil(taught), toy_env(), PROMPTS, SMALL, run, resume=True)
    assert rewards_of(resumed.metrics) == rewards_of(straight)


def test_batches_used_twice_resume_too(taught: PromptRewriter, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"num_iterations": 2, "save_every": 2})
    whole = train_rewriter(pupil(taught), toy_env(), PROMPTS, config, tmp_path / "whole").metrics
    with pytest.raises(Killed):
        train_rewriter(pupil(taught), toy_env(), PROMPTS, config, tmp_path / "cut", on_step=killed_after(3))
    cut = train_rewriter(pupil(taught), toy_env(), PROMPTS, config, tmp_path / "cut", resume=True).metrics
    assert rewards_of(cut) == rewards_of(whole) and len(whole) == 6
    assert sum("reward" in row for row in whole) == 3


def test_adapters_train_and_resume(taught: PromptRewriter, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"lora_rank": 4, "steps": 4, "save_every": 2, "learning_rate": 1e-2})
    whole = train_rewriter(pupil(taught), toy_env(), PROMPTS, config, tmp_path / "whole")
    with pytest.raises(Killed):
        train_rewriter(pupil(taught), toy_env(), PROMPTS, config, tmp_path / "cut", on_step=killed_after(3))
    cut = train_rewriter(pupil(taught), toy_env(), PROMPTS, config, tmp_path / "cut", resume=True)
    assert rewards_of(cut.metrics) == rewards_of(whole.metrics) and whole.metrics[-1]["kl"] > 0
    loaded = PromptRewriter.load(tmp_path / "cut" / "final")
    assert loaded.rewrite(PROMPTS[:5]) == whole.rewriter.rewrite(PROMPTS[:5])


def test_a_run_folder_is_not_taken_over(taught: PromptRewriter, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"steps": 1, "save_every": 1})
    run = tmp_path / "run"
    train_rewriter(pupil(taught), toy_env(), PROMPTS, config, run)
    assert RunFolder(run).config()["learning_rate"] == config.learning_rate
    with pytest.raises(GuerdonError, match="already holds a run"):
        train_rewriter(pupil(taught), toy_env(), PROMPTS, config, run)
    changed = config.model_copy(update={"beta": 0.0})
    with pytest.raises(GuerdonError, match="beta = 0.1, but 0.0"):
        train_rewriter(pupil(taught), toy_env(), PROMPTS, changed, run, resume=True)
    with pytest.raises(GuerdonError, match="reward = "):
        train_rewriter(pupil(taught), toy_env(images_per_rewrite=2), PROMPTS, config, run, resume=True)
    with pytest.raises(GuerdonError, match="prompts_sha256"):
        train_rewriter(pupil(taught), toy_env(), PROMPTS[1:], config, run, resume=True)
    for prompts, match in (([], "at least one"), (["grass", ""], "prompt 1")):
        with pytest.raises(GuerdonError, match=match):
            train_rewriter(pupil(taught), toy_env(), prompts, config, tmp_path / "other")


def test_impossible_settings_are_refused() -> None:
    for settings_, match in (
        ({"micro_batch": 3, "prompts_per_step": 2, "num_generations": 4}, "does not divide"),
        ({"num_iterations": 3, "save_every": 4}, "multiple of num_iterations"),
        ({"num_generations": 1}, "greater than or equal to 2"),
        ({"learning_rat": 1.0}, "learning_rate"),
    ):
        with pytest.raises((ValidationError, GuerdonError), match=match):
            RewriterTrainingConfig(**settings_)


def test_training_raises_the_reward_over_untouched_prompts_and_a_random_reward(
    taught: PromptRewriter, tmp_path: Path
) -> None:
    config = RewriterTrainingConfig(
        steps=28, prompts_per_step=4, num_generations=8, learning_rate=6e-4, beta=0.02, max_completion_length=32
    )

    @reward(name="chance")
    def chance(prompts: list[str], completions: Tensor, rewrite: list[str], **columns: Any) -> list[float]:
        step = columns["trainer_state"].global_step
        return [random.Random(f"{step}/{i}/{text}").random() for i, text in enumerate(rewrite)]

    judge = toy_env()

    def drawn(rewriter: PromptRewriter | None) -> dict[str, float]:
        users = PROMPTS * 2
        texts = users if rewriter is None else [r.text for r in rewriter.rewrite(PROMPTS, n=2, seed=9)]
        users = users if rewriter is None else [p for p in PROMPTS for _ in range(2)]
        return {name: float(np.nanmean(row)) for name, row in judge.score_texts(texts, users).items()}

    learnt = train_rewriter(pupil(taught), toy_env(), PROMPTS, config, tmp_path / "learnt").rewriter
    control_env = PromptRewriterEnv(toy_draw, RewardBank({"chance": (chance, 1.0)}))
    control = train_rewriter(pupil(taught), control_env, PROMPTS, config, tmp_path / "control").rewriter
    untouched, before, after, random_ = drawn(None), drawn(taught), drawn(learnt), drawn(control)
    assert after["realism"] > untouched["realism"] + 0.12
    assert after["realism"] > before["realism"] + 0.12
    assert after["realism"] > random_["realism"] + 0.12
    assert after["alignment"] > 0.85
    rewrites = learnt.rewrite(PROMPTS, seed=9)
    assert sum(r.valid for r in rewrites) > 0.85 * len(rewrites)


@pytest.mark.slow
def test_resume_after_sigkill(taught: PromptRewriter, straight: list[dict[str, Any]], tmp_path: Path) -> None:
    start = taught.save(tmp_path / "start")
    script = textwrap.dedent(f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_trainer_rewriter import PROMPTS, SMALL, toy_env, train_rewriter, PromptRewriter

        def die(step, row):
            if step == 5:
                os.kill(os.getpid(), signal.SIGKILL)

        pupil = PromptRewriter.load({str(start)!r})
        train_rewriter(pupil, toy_env(), PROMPTS, SMALL, {str(tmp_path / "run")!r}, on_step=die)
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    resumed = train_rewriter(PromptRewriter.load(start), toy_env(), PROMPTS, SMALL, tmp_path / "run", resume=True)
    assert rewards_of(resumed.metrics) == rewards_of(straight)
