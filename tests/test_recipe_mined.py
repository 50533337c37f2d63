"""Tuning on pairs of a policy's own samples: what is mined, resumption to the number, the end at an alarm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.reward import reward
from guerdon.core.runs import RunFolder
from guerdon.policies.reasoner import new_reasoner, problem_rows, reasoner_tokenizer, split_problems
from guerdon.recipes import _mined
from guerdon.recipes._mined import Method, Mining, train_on_mined
from guerdon.rewards.text.final_answer import rule_verifier
from guerdon.trainers.hack_alarm import HackAlarm
from guerdon.trainers.keyed_grpo import latest_complete
from guerdon.trainers.language import LanguageResult, LanguageTrainingConfig
from guerdon.trainers.language_watch import LanguageWatch

CONFIG = LanguageTrainingConfig(
    prompts_per_step=2, learning_rate=1e-3, max_completion_length=8, save_every=2, watch_every=2
)
ROWS = problem_rows(split_problems(6, 1))


@reward(name="letters", range=(0.0, 1.0))
def letters(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [min(1.0, len(one) / 100) for one in completions]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return reasoner_tokenizer()


def watching(folder: Path, **more: Any) -> LanguageWatch:
    return LanguageWatch(
        ROWS[:3], rule_verifier, {"letters": (rule_verifier, 1.0)}, folder, samples=2, max_new_tokens=8, **more
    )


def tuned(
    tokenizer: Any, place: Path, *, resume: bool = False, watch: LanguageWatch | None = None, scored: Any = letters,
    config: LanguageTrainingConfig = CONFIG, **mining: Any,
) -> tuple[LanguageResult, RunFolder]:  # fmt: skip
    folder = RunFolder.open(place, {"a": 1}, resume=resume)
    model = new_reasoner(tokenizer, hidden=16, layers=1, heads=2, seed=3)
    return train_on_mined(
        model, tokenizer, ROWS, {"letters": (scored, 1.0)}, config, folder, mining=Mining(**{"k": 4, **mining}),
        watch=watch or watching(place / "looks"), resume=resume,
    ), folder  # fmt: skip


@pytest.mark.parametrize(("method", "rows"), [("dpo", 6), ("kto", 12), ("sft", 6)])
def test_each_method_tunes_on_the_best_against_the_worst(
    tokenizer: Any, tmp_path: Path, method: Method, rows: int
) -> None:
    result, folder = tuned(tokenizer, tmp_path, method=method, epochs=2)
    pairs = folder.stage_result("mined")
    assert len(pairs) == 6 and all(len(row["chosen"]) > len(row["rejected"]) for row in pairs)
    assert result.last_step == result.kept_step == rows
    told = [row["step"] for row in folder.metrics(stage="policy") if "judge/rule_verifier/held-out" in row]
    assert told == list(range(0, rows + 1, 2))
    untouched = new_reasoner(tokenizer, hidden=16, layers=1, heads=2, seed=3).state_dict()
    assert any(not value.equal(untouched[name]) for name, value in result.model.state_dict().items())


def test_the_likelihood_of_the_chosen_can_be_added(tokenizer: Any, tmp_path: Path) -> None:
    weights = [
        tuned(tokenizer, tmp_path / str(weight), sft_weight=weight)[0].model.state_dict() for weight in (0.0, 1.0)
    ]
    told = [[row["loss"] for row in RunFolder(tmp_path / str(one)).metrics() if "loss" in row] for one in (0.0, 1.0)]
    # At the first step both margins are 0, so that all of the difference is the mean surprise at the chosen text.
    assert told[0][0] == pytest.approx(0.6931, abs=1e-3) and told[1][0] - told[0][0] > 1.0
    assert any(not value.equal(weights[1][name]) for name, value in weights[0].items())


def test_a_stopped_run_goes_on_to_the_same_weights_and_mines_once(tokenizer: Any, tmp_path: Path) -> None:
    whole, folder = tuned(tokenizer, tmp_path / "whole", epochs=2)
    watch = watching(tmp_path / "cut" / "looks")
    measure = watch.measure

    def dies(model: Any, tokens: Any, step: int) -> dict[str, float]:
        if step == 6:
            raise KeyboardInterrupt
        return measure(model, tokens, step)

    watch.measure = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        tuned(tokenizer, tmp_path / "cut", watch=watch, epochs=2)
    assert latest_complete(tmp_path / "cut" / "dpo" / "policy") == tmp_path / "cut" / "dpo" / "policy" / "checkpoint-4"
    again, cut = tuned(tokenizer, tmp_path / "cut", resume=True, epochs=2)
    for name, value in whole.model.state_dict().items():
        assert value.equal(again.model.state_dict()[name]), name
    steps = [[row["step"] for row in one.metrics(stage="policy")] for one in (folder, cut)]
    assert steps[0] == steps[1] and cut.stage_result("mined") == folder.stage_result("mined")
    with pytest.raises(GuerdonError, match="other rows, rewards or settings"):
        tuned(tokenizer, tmp_path / "cut", resume=True, epochs=2, beta=0.5)


def test_an_alarm_ends_the_tuning(tokenizer: Any, tmp_path: Path) -> None:
    watch = watching(
        tmp_path / "looks", alarm=lambda proxy, judge: HackAlarm(0, 0.5, 0.25) if len(judge) == 2 else None
    )
    result, _ = tuned(tokenizer, tmp_path, watch=watch, config=CONFIG.model_copy(update={"stop_on": "hack"}))
    assert (result.kept_step, result.last_step) == (0, 2) and "fell by 0.500" in result.reason


def test_settings_of_trl_go_to_the_method_and_nothing_is_cut(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    trainer, settings = _mined._TRAINERS["dpo"]

    def spied(**given: Any) -> Any:
        seen.append(given["args"])
        return trainer(**given)

    monkeypatch.setitem(_mined._TRAINERS, "dpo", (spied, settings))
    tuned(tokenizer, tmp_path / "a", config=CONFIG.model_copy(update={"trl": {"weight_decay": 0.5}}))
    assert seen[0].weight_decay == 0.5 and seen[0].max_length is None
    with pytest.raises(GuerdonError, match="setting of TRL's DPOConfig 'use_vllm'"):
        tuned(tokenizer, tmp_path / "b", config=CONFIG.model_copy(update={"trl": {"use_vllm": True}}))


def test_no_pair_is_one_error(tokenizer: Any, tmp_path: Path) -> None:
    def same(prompts: Any, completions: Any, **columns: Any) -> list[float]:
        return [1.0] * len(completions)

    with pytest.raises(GuerdonError, match="no pair could be mined from 6 prompts"):
        tuned(tokenizer, tmp_path, scored=same)
