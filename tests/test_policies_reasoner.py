"""The embedded reasoner: what it is, that it solves problems it never saw, and that it has room to learn."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guerdon.core.arithmetic import TEMPLATES, word_problem
from guerdon.core.errors import GuerdonError
from guerdon.policies.continuation import CheckpointPolicy
from guerdon.policies.reasoner import (
    LONGEST,
    embedded_reasoner,
    new_reasoner,
    problem_rows,
    split_of,
    split_problems,
    worked_text,
)
from guerdon.rewards.text.final_answer import rule_verifier


@pytest.fixture(scope="module")
def reasoner() -> tuple[Any, Any]:
    return embedded_reasoner()


def answered(reasoner: tuple[Any, Any], told: list[str], temperature: float, seed: int = 0) -> list[str]:
    model, tokenizer = reasoner
    policy = CheckpointPolicy(
        model, tokenizer, chat=True, temperature=temperature, top_p=1.0, top_k=len(tokenizer), max_new_tokens=LONGEST,
        batch_size=128,
    )  # fmt: skip
    return policy(told, seed)


def test_it_is_a_small_model_of_a_real_architecture(reasoner: tuple[Any, Any]) -> None:
    model, tokenizer = reasoner
    assert type(model).__name__ == "Qwen3ForCausalLM" and not model.training
    assert str(next(model.parameters()).dtype) == "torch.float32"
    folder = Path(model.config._name_or_path)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2 * 2**20
    assert tokenizer.pad_token_id != tokenizer.eos_token_id and tokenizer.padding_side == "left"


@pytest.mark.parametrize(
    "text", ["Ada has 12 boxes.", "Ein Drache über München 🐉", "\\boxed{18}", "  tabs\tand\nlines ", "龍", ""]
)
def test_the_tokenizer_loses_nothing(reasoner: tuple[Any, Any], text: str) -> None:
    tokenizer = reasoner[1]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_digit_is_always_one_token(reasoner: tuple[Any, Any]) -> None:
    tokenizer = reasoner[1]
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("9876 * 12 = 118512, $1,000")["input_ids"])
    assert all(len(piece) == 1 for piece in pieces if re.search(r"\d", piece))


def test_the_chat_template(reasoner: tuple[Any, Any]) -> None:
    tokenizer = reasoner[1]
    turns = [{"role": "user", "content": "How many?"}]
    asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert asked == "<|user|>How many?<|end|><|assistant|>"
    whole = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": "Two."}], tokenize=False)
    assert whole == asked + "Two.<|end|>"
    assert tokenizer(whole)["input_ids"][-1] == tokenizer.eos_token_id


def test_it_solves_some_problems_it_never_saw_and_could_solve_more(reasoner: tuple[Any, Any]) -> None:
    rows = problem_rows(split_problems(40, 5, "held_out"), chat=False)
    told, solution = [row["prompt"] for row in rows], [row["solution"] for row in rows]
    greedy = float(np.mean(rule_verifier(told, answered(reasoner, told, 1e-4), solution=solution)))
    tries = answered(reasoner, told * 4, 1.0)
    sampled = np.array(rule_verifier(told * 4, tries, solution=solution * 4), dtype=float).reshape(4, 40)
    assert 0.5 < greedy < 0.9
    assert 0.1 < sampled.mean() < greedy - 0.2
    assert sampled.max(axis=0).mean() > sampled.mean() + 0.2
    # A group in which some are right and some wrong is what GRPO learns from.
    assert ((sampled.max(axis=0) > 0) & (sampled.min(axis=0) < 1)).mean() > 0.4


def test_it_answers_the_same_for_the_same_seed_and_says_what_was_sampled(reasoner: tuple[Any, Any]) -> None:
    told = [row["prompt"] for row in problem_rows(split_problems(6, 5, "held_out"), chat=False)]
    assert answered(reasoner, told, 1.0) == answered(reasoner, told, 1.0) != answered(reasoner, told, 1.0, seed=1)


def test_a_split_is_of_the_story_and_its_numbers_whoever_tells_it() -> None:
    held_out, train = split_problems(200, 2, "held_out"), split_problems(200, 2)
    assert {split_of(one) for one in held_out} == {"held_out"} and {split_of(one) for one in train} == {"train"}

    def stories(problems: Any) -> set[Any]:
        return {(one.template, tuple(sorted(one.numbers.items()))) for one in problems}

    assert not stories(held_out) & stories(train)
    share = np.mean([split_of(word_problem(9, place)) == "held_out" for place in range(2000)])
    assert 0.09 < share < 0.16  # one in eight
    assert {one.template for one in held_out} == set(TEMPLATES)
    assert len({one.question for one in held_out}) == 200


def test_split_problems_names_what_it_cannot_do() -> None:
    with pytest.raises(GuerdonError, match="held_out"):
        split_problems(3, 0, "heldout")  # type: ignore[arg-type]
    with pytest.raises(GuerdonError, match="sharing"):
        split_problems(3, 0, templates=["sharin"])
    assert [one.template for one in split_problems(3, 0, templates=["bus"])] == ["bus"] * 3


def test_rows_for_a_trainer() -> None:
    problem = split_problems(1, 0)[0]
    (row,) = problem_rows([problem])
    assert row["prompt"] == [{"role": "user", "content": problem.question}]
    assert row["solution"] == str(problem.answer) and row["template"] == problem.template
    (plain,) = problem_rows([problem], form="paraphrase", chat=False)
    assert plain["prompt"] == plain["question"] == problem.paraphrase
    with pytest.raises(GuerdonError, match="paraphrase"):
        problem_rows([problem], form="paraphrased")  # type: ignore[arg-type]


def test_worked_texts_are_wrong_as_often_as_asked() -> None:
    rng = np.random.default_rng(0)
    problems = [word_problem(3, place) for place in range(400)]
    shares = {}
    for wrong in (0.0, 0.35, 1.0):
        texts = [worked_text(one, rng, wrong=wrong) for one in problems]
        scores = rule_verifier([""] * 400, texts, solution=[str(one.answer) for one in problems])
        shares[wrong] = float(np.mean(scores))
    assert shares[0.0] > 0.93  # a few state no answer at all
    assert 0.55 < shares[0.35] < 0.7
    assert shares[1.0] < 0.02


def test_worked_texts_have_several_manners() -> None:
    rng = np.random.default_rng(1)
    texts = [worked_text(word_problem(3, place), rng) for place in range(400)]
    seen = Counter(
        mark
        for text in texts
        for mark in ("First, ", "Then ", "Therefore ", "Let me check", "Wait,", "####", "\\boxed{")
        if mark in text
    )
    assert len(seen) == 7 and min(seen.values()) >= 4
    assert any("\n" not in text for text in texts)


def test_a_folder_without_a_reasoner_is_named(tmp_path: Path) -> None:
    with pytest.raises(GuerdonError, match=str(tmp_path)):
        embedded_reasoner(tmp_path)


def test_a_new_reasoner_is_the_same_for_the_same_seed(reasoner: tuple[Any, Any]) -> None:
    tokenizer = reasoner[1]
    first, twin, other = (new_reasoner(tokenizer, hidden=32, layers=1, seed=seed) for seed in (0, 0, 1))
    weights = [model.model.embed_tokens.weight for model in (first, twin, other)]
    assert weights[0].equal(weights[1]) and not weights[0].equal(weights[2])
    with pytest.raises(GuerdonError, match="heads"):
        new_reasoner(tokenizer, hidden=30)
