"""Training a language model on rewards: the watch, resumption to the number, the end at an alarm, the recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.reward import reward
from guerdon.core.runs import RunFolder
from guerdon.policies.reasoner import new_reasoner, problem_rows, reasoner_tokenizer, split_problems
from guerdon.recipes import (
    _language,
    co_reward,
    hybrid_multi_aspect,
    language,
    noisy_rewards_rpr,
    regularized_relevance_reward,
    self_aligned_reward,
)
from guerdon.recipes._language import problems_of
from guerdon.rewards.text.agreement import CrossViewReward
from guerdon.rewards.text.final_answer import rule_verifier
from guerdon.trainers.hack_alarm import HackAlarm
from guerdon.trainers.keyed_grpo import latest_complete
from guerdon.trainers.language import LanguageTrainingConfig, train_language
from guerdon.trainers.language_watch import LanguageWatch, meters, sample, surprise

TINY = dict(
    steps=4, prompts_per_step=2, num_generations=2, learning_rate=1e-3, max_completion_length=12, save_every=2,
    watch_every=2, watch_samples=2,
)  # fmt: skip
ROWS = problem_rows(split_problems(6, 1))


@reward(name="letters", range=(0.0, 1.0))
def letters(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [min(1.0, len(one[-1]["content"]) / 100) for one in completions]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return reasoner_tokenizer()


def fresh(tokenizer: Any) -> Any:
    return new_reasoner(tokenizer, hidden=16, layers=1, heads=2, seed=3)


def watching(folder: Path, **more: Any) -> LanguageWatch:
    return LanguageWatch(
        ROWS[:3], rule_verifier, {"letters": (letters, 1.0)}, folder, samples=2, max_new_tokens=12, **more
    )


def trained(
    tokenizer: Any, place: Path, resume: bool = False, watch: LanguageWatch | None = None, **more: Any
) -> tuple[Any, RunFolder]:
    config = LanguageTrainingConfig(**{**TINY, **more})
    folder = RunFolder.open(place, {"a": 1}, resume=resume)
    watch = watch or watching(place / "looks")
    model = fresh(tokenizer)
    return train_language(
        model, tokenizer, ROWS, {"letters": (letters, 1.0)}, config, folder, watch=watch, resume=resume
    ), folder  # fmt: skip


def test_samples_depend_on_the_seed_and_the_prompt_alone(tokenizer: Any) -> None:
    model = fresh(tokenizer)
    prompts = [row["prompt"] for row in ROWS]
    options: dict[str, Any] = dict(count=2, max_new_tokens=10)
    once = sample(model, tokenizer, prompts, seed=1, **options)
    other = sample(model, tokenizer, prompts[::-1], seed=1, batch_size=3, **options)
    assert once.grouped() == other.grouped()[::-1]
    assert once.texts != sample(model, tokenizer, prompts, seed=2, **options).texts
    assert once.lengths.max() <= 10 and len(once.texts) == 12


def test_what_the_meters_say(tokenizer: Any) -> None:
    found = sample(fresh(tokenizer), tokenizer, [ROWS[0]["prompt"]], count=4, max_new_tokens=8)
    texts = ["The answer is 3.", "The answer is 3.0", "The answer is 4.", "one two " * 20]
    said = meters(type(found)(texts, np.array([5, 5, 5, 40]), np.array([True, True, True, False]), 4))
    assert said["ended"] == 0.75 and said["stated"] == 0.75 and said["length"] == 13.75
    assert said["vote_share"] == pytest.approx(2 / 3) and said["repetition"] > 0.2
    other = meters(type(found)(texts, np.array([5, 5, 5, 40]), np.array([True] * 4), 4), lambda text: text[:3] or None)
    assert other["stated"] == 1.0 and other["vote_share"] == 0.75
    found = type(found)(["yes", "yes", "no", "what"], np.ones(4, int), np.ones(4, bool), 4)
    drift = meters(found, kind=lambda text: text if text in ("yes", "no") else None)
    assert {name: value for name, value in drift.items() if "says" in name} == {"says no": 0.25, "says yes": 0.5}


def test_the_entropy_of_a_policy_is_the_mean_surprise_at_its_samples(tokenizer: Any) -> None:
    model = fresh(tokenizer)
    found = sample(model, tokenizer, [row["prompt"] for row in ROWS], count=8, max_new_tokens=6)
    # An untrained model is nearly uniform over its vocabulary.
    assert surprise(model, tokenizer, found) == pytest.approx(np.log(len(tokenizer)), rel=0.02)
    greedy = sample(model, tokenizer, [ROWS[0]["prompt"]], temperature=1e-4, max_new_tokens=6)
    assert surprise(model, tokenizer, greedy, temperature=1e-4) == pytest.approx(0.0, abs=1e-4)
    assert model.training and found.asked[0] == found.asked[7]


def test_a_stopped_run_goes_on_to_the_same_numbers(tokenizer: Any, tmp_path: Path) -> None:
    whole, folder = trained(tokenizer, tmp_path / "whole")
    rows = folder.metrics(stage="policy")
    looks = [row["step"] for row in rows if "judge/rule_verifier/held-out" in row]
    assert looks == [0, 2, 4] and whole.kept_step == whole.last_step == 4 and whole.reason == ""
    assert all(f"drift/{name}" in rows[0] for name in ("length", "ended", "stated", "repetition", "vote_share"))

    watch = watching(tmp_path / "cut" / "looks")
    measure = watch.measure

    def dies(model: Any, tokens: Any, step: int) -> dict[str, float]:
        if step == 4:
            raise KeyboardInterrupt
        return measure(model, tokens, step)

    watch.measure = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trained(tokenizer, tmp_path / "cut", watch=watch)
    assert latest_complete(tmp_path / "cut" / "grpo" / "policy") is not None
    again, cut = trained(tokenizer, tmp_path / "cut", resume=True)
    for name, value in whole.model.state_dict().items():
        assert value.equal(again.model.state_dict()[name]), name

    def timeless(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{key: value for key, value in line.items() if "time" not in key} for line in lines]

    assert timeless(cut.metrics(stage="policy")) == timeless(rows)
    with pytest.raises(GuerdonError, match="made with other rows, rewards or settings"):
        trained(tokenizer, tmp_path / "cut", resume=True, learning_rate=2e-3)


def test_an_alarm_ends_the_run_and_keeps_the_best_look(tokenizer: Any, tmp_path: Path) -> None:
    def alarm(proxy: Any, judge: Any) -> HackAlarm | None:
        return HackAlarm(0, 0.5, 0.25) if len(judge) == 2 else None

    watch = watching(tmp_path / "run" / "looks", alarm=alarm)
    result, folder = trained(tokenizer, tmp_path / "run", watch=watch, stop_on="hack", steps=8)
    assert (result.kept_step, result.last_step) == (0, 2) and "fell by 0.500 since step 0" in result.reason
    for name, value in fresh(tokenizer).state_dict().items():
        assert value.equal(result.model.state_dict()[name]), "the weights of step 0"
    again, _ = trained(tokenizer, tmp_path / "run", resume=True, stop_on="hack", steps=8)
    assert again.reason == result.reason and again.kept_step == 0
    unstopped, _ = trained(tokenizer, tmp_path / "other", watch=watching(tmp_path / "other" / "looks", alarm=alarm))
    assert unstopped.last_step == 4, "without stop_on it only watches"


def test_what_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(GuerdonError, match="temperatur.*did you mean 'temperature'"):
        LanguageTrainingConfig(temperatur=1.0)  # type: ignore[call-arg]
    with pytest.raises((ValueError, GuerdonError), match="GRPOConfig 'use_vlm'.*'use_vllm'"):
        LanguageTrainingConfig(trl={"use_vlm": True})
    with pytest.raises(ValueError, match="trl.learning_rate is set by the training itself"):
        LanguageTrainingConfig(trl={"learning_rate": 1.0})
    with pytest.raises(ValueError, match="micro_batch 3 does not divide"):
        LanguageTrainingConfig(prompts_per_step=2, num_generations=2, micro_batch=3)
    folder = RunFolder.open(tmp_path / "run", {"a": 1})
    config = LanguageTrainingConfig(**TINY)  # type: ignore[arg-type]
    for rows, said in (
        ([], "got 0 rows"),
        ([{"x": 1}], "no 'prompt'"),
        ([ROWS[0], {"prompt": "x"}], "differ in their"),
    ):
        with pytest.raises(GuerdonError, match=said):
            train_language(fresh(tokenizer), tokenizer, rows, {"letters": (letters, 1.0)}, config, folder)
    with pytest.raises(GuerdonError, match="at least one problem"):
        LanguageWatch([], rule_verifier, {}, tmp_path)


def written(path: Path, count: int = 12) -> Path:
    rows = [{"question": f"What is {n} + 1?", "answer": f"{n} + 1 = {n + 1}\n#### {n + 1}"} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "recipe",
    [language, noisy_rewards_rpr, self_aligned_reward, hybrid_multi_aspect, regularized_relevance_reward],
)
def test_a_recipe_from_start_to_summary(recipe: Any, tokenizer: Any, tmp_path: Path) -> None:
    model = fresh(tokenizer)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    preset = recipe.PRESETS["tiny"]
    config = recipe.CONFIG(
        data=str(written(tmp_path / "data.jsonl")), model=str(tmp_path / "model"), watched=2, tested=3, samples=2,
        training={**preset["training"], **TINY, "steps": 1, "watch_every": 1},
    )  # fmt: skip
    folder = RunFolder.open(tmp_path / "run", config)
    summary = recipe.run(config, folder)
    assert summary["rows"] == {"training": 7, "watched": 2, "tested": 3}
    assert [row[1] for row in summary["tables"][0]["rows"]] == ["sampled", "greedy", "majority vote", "any sample"]
    assert (folder.path / "model" / "model.safetensors").is_file() and len(summary["verdicts"]) == 3
    assert recipe.run(config, folder, True)["tables"] == summary["tables"], "resumed at its end it says the same"


def test_problems_beyond_the_rule_verifier_are_kept_for_a_judge_that_reads_them(tmp_path: Path) -> None:
    path = written(tmp_path / "data.jsonl")
    more = [{"question": f"Expand {n}(x + 1).", "answer": f"#### {n}x + {n}"} for n in range(2, 5)]
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in more)
    config = language.CONFIG(data=str(path), watched=2, tested=2)
    folder = RunFolder.open(tmp_path / "run", config)
    assert len(problems_of(config, folder).train) == 8
    assert len(problems_of(config.model_copy(update={"judge": "symbolic_verifier"}), folder).train) == 11


def test_problems_are_set_apart(tmp_path: Path) -> None:
    config = language.CONFIG(data=str(written(tmp_path / "data.jsonl")), watched=3, tested=4)
    folder = RunFolder.open(tmp_path / "run", config)
    found = problems_of(config, folder)
    parts = [{json.dumps(row["prompt"]) for row in part} for part in (found.train, found.watched, found.tested)]
    assert [len(part) for part in parts] == [5, 3, 4] and not parts[0] & parts[1] | parts[0] & parts[2] | parts[
        1
    ] & parts[2]
    with pytest.raises(GuerdonError, match="12 different problems are too few"):
        problems_of(config.model_copy(update={"tested": 9}), folder)
    with pytest.raises(GuerdonError, match="instruction goes with data"):
        problems_of(language.CONFIG(instruction="Box it."), folder)
    embedded = problems_of(language.CONFIG(problems=8, watched=4, tested=4), folder)
    assert len(embedded.other) == 4 and embedded.other[0]["solution"] == embedded.tested[0]["solution"]


def test_two_wordings_of_a_problem_go_together(tokenizer: Any, tmp_path: Path) -> None:
    config = co_reward.CONFIG(
        **co_reward.PRESETS["tiny"] | {"problems": 6, "watched": 2, "tested": 2, "samples": 2, "training": TINY}
    )
    calls: list[list[Any]] = []

    class Recording(CrossViewReward):
        def __call__(self, prompts: Any, completions: Any, **columns: Any) -> Any:
            calls.append(list(columns["pair"]))
            return super().__call__(prompts, completions, **columns)

    problems = problems_of(config, RunFolder.open(tmp_path / "run", config))
    rows = co_reward._paired(problems.train, config, RunFolder(tmp_path / "run"), "train")
    assert [row["view"] for row in rows] == [0, 1] * 6 and rows[0]["prompt"] != rows[1]["prompt"]
    settings = LanguageTrainingConfig(**TINY)  # type: ignore[arg-type]
    given = {"cross_view": (Recording(), 1.0)}
    watch = LanguageWatch(rows[:4], rule_verifier, given, tmp_path / "looks", samples=2, views=2, max_new_tokens=8)
    folder = RunFolder.open(tmp_path / "more", {"a": 1})
    train_language(fresh(tokenizer), tokenizer, rows, given, settings, folder, watch=watch, views=2)
    assert calls and all(set(map(pairs.count, pairs)) == {4} for pairs in calls), "two completions of both wordings"
    assert all(row["scored/cross_view"] == 1.0 for row in folder.metrics() if "scored/cross_view" in row)
    with pytest.raises(GuerdonError, match="whole sets of 2 views"):
        train_language(fresh(tokenizer), tokenizer, rows[:3], given, settings, folder, views=2)
    with pytest.raises(GuerdonError, match="name a rephraser"):
        co_reward.run(co_reward.CONFIG(data="x.jsonl"), folder)


def test_rows_of_any_columns(tmp_path: Path) -> None:
    rows = [{"prompt": f"Say {n}.", "wanted": str(n), "extra": {"a": n}} for n in range(8)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = language.CONFIG(data=str(path), layout="rows", watched=2, tested=2)
    found = problems_of(config, RunFolder.open(tmp_path / "run", config))
    assert len(found.train) == 4 and set(found.train[0]) == {"prompt", "wanted", "extra"}
    assert found.train[0]["prompt"][0]["role"] == "user"
    with pytest.raises(GuerdonError, match="rows hold the whole prompt"):
        problems_of(config.model_copy(update={"instruction": "x"}), RunFolder(tmp_path / "run"))


@pytest.mark.parametrize(("before", "after", "holds"), [(0, 0, True), (10, 30, True), (20, 19, None), (40, 10, False)])
def test_a_fall_that_may_be_chance_is_left_open(before: int, after: int, holds: bool | None) -> None:
    def graded(right: int) -> _language.Graded:
        values = np.array([1.0] * right + [0.0] * (50 - right))
        return _language.Graded(values, values, values, values, {})

    rows = _language._verdicts({"before": {"x": graded(before)}, "after": {"x": graded(after)}}, False)
    assert rows[1]["target"] == "no fall" and rows[1]["holds"] is holds
