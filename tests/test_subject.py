"""Whoever is judged: models, rewards, judges and files of scores give one value a row, or a counted reason."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from chat_server import Server
from guerdon.core.dialogues import embedded_pairs
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.preferences import text_of
from guerdon.models.baselines import LengthBaseline
from guerdon.models.scalar.head import HeadConfig
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone
from guerdon.rewards.outcomes import Outcomes, problem_kind
from guerdon.rewards.score_file import ScoresFile
from guerdon.rewards.subject import (
    JudgeSubject,
    RewardSubject,
    ScalarSubject,
    load_subject,
    subject_of_spec,
)


def asked(answer: Any, prompt: str = "What is a saw for?") -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def words(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    """Module level, so that ``file.py:words`` finds it."""
    return [float(len(completion.split())) for completion in completions]


@pytest.fixture(scope="module")
def model() -> ScalarRewardModel:
    texts = [text_of(pair.conversation("chosen")) for pair in embedded_pairs(30, 0)]
    backbone, tokenizer = tiny_backbone(texts, hidden=32, vocab=400)
    return ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer, head=HeadConfig(), max_length=64, name="tiny")


# Outcomes


def test_outcomes_are_numbers_or_reasons() -> None:
    found = Outcomes.of([1.5, None, Failed("no rating", "unparseable"), Failed("gone", "unavailable")])
    assert found.values[0] == 1.5 and np.isnan(found.values[1:]).all()
    assert found.problems == {1: "does not apply", 2: "unparsable: no rating", 3: "failed: gone"}
    assert found.counts() == {"does not apply": 1, "unparsable": 1, "failed": 1}
    assert found.count("unparsable") == 1 and found.count("nonsense") == 0


def test_a_score_that_is_not_finite_is_a_counted_failure() -> None:
    found = Outcomes(np.array([1.0, np.nan, np.inf, -np.inf]))
    assert found.count("failed") == 3 and np.isnan(found.values[1:]).all()


def test_a_row_with_a_problem_has_no_number() -> None:
    assert np.isnan(Outcomes(np.array([3.0]), {0: "failed: late"}).values[0])


def test_outcomes_of_impossible_shape_are_refused() -> None:
    with pytest.raises(GuerdonError, match="one value a row"):
        Outcomes(np.zeros((2, 2)))
    with pytest.raises(GuerdonError, match="row 5"):
        Outcomes(np.zeros(2), {5: "failed: x"})


def test_kinds_of_problems() -> None:
    assert [problem_kind(one) for one in ("unparsable: a: b", "does not apply", "")] == [
        "unparsable", "does not apply", "failed",
    ]  # fmt: skip


# Models


def test_a_baseline_is_a_subject() -> None:
    subject = ScalarSubject(LengthBaseline())
    found = subject.score([asked("ab"), asked("abcd")])
    assert found.values[1] > found.values[0] and not found.problems
    assert subject.name == "length" and subject.modes == {"score"} and "#" in subject.identity


def test_a_reward_model_gives_the_scores_it_gives_itself(model: ScalarRewardModel) -> None:
    conversations = [pair.conversation("chosen") for pair in embedded_pairs(6, 1)]
    subject = ScalarSubject(model)
    assert subject.score(conversations).values == pytest.approx(model.score(conversations).numpy(), abs=1e-6)
    assert subject.identity == model.identity()


def test_a_conversation_that_cannot_be_read_fails_alone(model: ScalarRewardModel) -> None:
    subject = ScalarSubject(model)
    rows = [asked("Sawing."), [], asked("Cutting wood.")]
    found = subject.score(rows)
    assert list(found.problems) == [1] and found.count("failed") == 1
    assert found.values[[0, 2]] == pytest.approx(model.score([rows[0], rows[2]]).numpy(), abs=1e-5)


def test_nothing_to_score() -> None:
    for subject in (ScalarSubject(LengthBaseline()), RewardSubject(words)):
        assert len(subject.score([])) == 0


def test_what_cannot_score_is_no_scalar_model() -> None:
    with pytest.raises(GuerdonError, match="no score"):
        ScalarSubject(object())


# Rewards


def test_a_reward_sees_plain_conversations_as_text_and_others_as_messages() -> None:
    seen: list[Any] = []

    def reward(prompts: Any, completions: Any, **columns: Any) -> list[float]:
        seen.extend(zip(prompts, completions))
        return [0.0] * len(completions)

    long = [{"role": "system", "content": "Be brief."}, *asked("Sawing.")]
    RewardSubject(reward).score([asked("Cutting."), long])
    assert seen[0] == ("What is a saw for?", "Cutting.")
    assert seen[1] == (long[:2], long[2:])


def test_the_form_can_be_insisted_on() -> None:
    assert RewardSubject(lambda completions: [len(c) for c in completions], form="text").score(
        [[{"role": "system", "content": "x"}, *asked("four")]]
    ).values == [4]
    assert RewardSubject(lambda completions: [len(c) for c in completions], form="messages").score(
        [asked("four")]
    ).values == [1]
    with pytest.raises(GuerdonError, match="did you mean 'text'"):
        RewardSubject(words, form="txt")  # type: ignore[arg-type]


def test_rewards_failures_and_refusals_are_counted_row_by_row() -> None:
    def reward(completions: Any, solution: Any) -> list[Any]:
        if "crash" in completions:
            raise ValueError("no")
        return [None if said == "pass" else float(said == right) for said, right in zip(completions, solution)]

    found = RewardSubject(reward).score(
        [asked("4"), asked("pass"), asked("crash"), asked("5")], columns={"solution": ["4", "4", "4", "4"]}
    )
    assert found.values[[0, 3]].tolist() == [1, 0]
    assert found.counts() == {"does not apply": 1, "failed": 1} and "no" in found.problems[2]


def test_every_row_may_fail() -> None:
    def broken(completions: Any) -> list[float]:
        raise RuntimeError("down")

    assert RewardSubject(broken).score([asked("a")] * 30).count("failed") == 30


def test_a_column_that_a_reward_needs_is_named() -> None:
    with pytest.raises(GuerdonError, match="solution"):
        RewardSubject(lambda completions, solution: [0.0]).score([asked("a")], columns={"solutions": ["4"]})


# Judges


class Chat:
    """Replies by the question's text."""

    name = "made"

    def __init__(self, reply: Any) -> None:
        self.reply, self.asked = reply, []  # type: ignore[var-annotated]

    def __call__(self, messages: Any, *, temperature: Any = None, seed: Any = None) -> Any:
        self.asked.append(messages[-1]["content"])
        return self.reply(messages[-1]["content"]) if callable(self.reply) else self.reply


def test_a_judge_rates() -> None:
    subject = JudgeSubject(Chat(lambda text: "Fine.\n9" if "Cutting" in text else "Bad.\n2"))
    found = subject.score([asked("Cutting wood."), asked("Eating.")])
    assert found.values.tolist() == [9, 2] and subject.modes == {"rate"}
    assert found.details[0]["reply"] == "Fine.\n9"


def test_a_judge_that_answers_nonsense_is_counted_and_its_words_are_kept() -> None:
    found = JudgeSubject(Chat("I would rather not.")).score([asked("a")])
    assert found.count("unparsable") == 1 and np.isnan(found.values[0])
    assert found.details[0]["reply"] == "I would rather not."


def test_a_judge_that_is_away_failed() -> None:
    found = JudgeSubject(Chat(Failed("timeout", "unavailable"))).score([asked("a")])
    assert found.count("failed") == 1 and not found.details


def test_a_judge_ranks_answers_in_the_order_given() -> None:
    subject = JudgeSubject(Chat("Because.\n[[B]]"), mode="rank")
    found = subject.rank([asked("x")[:1]], [["Eating.", "Cutting.", "Sleeping."]])
    assert found.values.tolist() == [1] and subject.modes == {"rank"}
    text = subject.judge.chat.asked[0]
    assert text.index("Eating.") < text.index("Cutting.") < text.index("Sleeping.")


def test_many_workers_keep_the_order() -> None:
    subject = JudgeSubject(Chat(lambda text: text.split("answer-")[1].split()[0]), workers=4)
    assert subject.score([asked(f"answer-{n}") for n in (3, 1, 7, 9, 2)]).values.tolist() == [3, 1, 7, 9, 2]


def test_identity_tells_judges_apart() -> None:
    plain = JudgeSubject(Chat("1"))
    assert plain.identity == JudgeSubject(Chat("2")).identity
    assert plain.identity != JudgeSubject(Chat("1"), mode="rank").identity
    assert plain.identity != JudgeSubject(Chat("1"), reading="published").identity


# Scores computed elsewhere


def columns(*rows: tuple[str, int, int], subset: str = "") -> dict[str, list[Any]]:
    ids, places, counts = (list(part) for part in zip(*rows))
    return {"row_id": ids, "answer_index": places, "answer_count": counts, "subset": [subset] * len(rows)}


def scores_file(tmp_path: Any, rows: Any, name: str = "scores.jsonl") -> Any:
    path = tmp_path / name
    lines = "".join(json.dumps(row) + "\n" for row in rows) if name.endswith("l") else json.dumps(rows)
    path.write_text(lines, encoding="utf-8")
    return path


def test_scores_are_looked_up_by_id_and_place(tmp_path: Any) -> None:
    subject = ScoresFile(scores_file(tmp_path, [{"id": "b", "scores": [1, 2.5]}, {"id": "7", "scores": [3, None]}]))
    found = subject.score([[]] * 4, columns=columns(("7", 0, 2), ("b", 1, 2), ("7", 1, 2), ("z", 0, 2)))
    assert found.values[:2].tolist() == [3, 2.5] and found.count("failed") == 2
    assert "no score of answer 1" in found.problems[2] and "no row of id 'z'" in found.problems[3]


def test_one_score_a_line_and_columns_of_a_published_result_file(tmp_path: Any) -> None:
    lines = [{"id": "a", "answer": 1, "score": 5.0}, {"id": "a", "score": 4.0}]
    assert ScoresFile(scores_file(tmp_path, lines)).score(
        [[]] * 2, columns=columns(("a", 0, 2), ("a", 1, 2))
    ).values.tolist() == [4, 5]  # fmt: skip
    published = {"id": ["a", "b"], "scores": [[[1.0], [2.0]], [[3.0], [4.0]]], "subset": ["x", "y"], "model": "m"}
    found = ScoresFile(scores_file(tmp_path, published, "all.json")).score(
        [[]] * 2, columns=columns(("b", 0, 2), ("b", 1, 2), subset="y")
    )
    assert found.values.tolist() == [3, 4]


def test_equal_ids_of_two_subsets_are_told_apart(tmp_path: Any) -> None:
    rows = [{"id": 1, "subset": name, "scores": [value]} for name, value in (("x", 1.0), ("y", 2.0))]
    subject = ScoresFile(scores_file(tmp_path, rows))
    assert subject.score([[]], columns=columns(("1", 0, 1), subset="y")).values.tolist() == [2]


def test_another_number_of_answers_fails_the_row(tmp_path: Any) -> None:
    subject = ScoresFile(scores_file(tmp_path, [{"id": "a", "scores": [1, 2, 3]}]))
    found = subject.score([[]], columns=columns(("a", 0, 4)))
    assert "3 scores for the 4 answers" in found.problems[0]


@pytest.mark.parametrize(
    "row, told",
    [
        ({"id": "a"}, "'scores'"),
        ({"id": "a", "scores": []}, "list of numbers"),
        ({"id": "a", "scores": ["high"]}, "must hold numbers"),
        ({"id": "a", "score": "high"}, "must be a number"),
        ({"id": "a", "score": 1.0, "answer": "first"}, "the answer's number"),
        ({"score": 1.0}, "no column 'id'"),
    ],
)
def test_malformed_scores_are_one_error(tmp_path: Any, row: Any, told: str) -> None:
    with pytest.raises(GuerdonError, match=told):
        ScoresFile(scores_file(tmp_path, [row]))


def test_an_answer_scored_twice_and_a_file_that_is_not_there(tmp_path: Any) -> None:
    with pytest.raises(GuerdonError, match="scored twice"):
        ScoresFile(scores_file(tmp_path, [{"id": "a", "scores": [1]}, {"id": "a", "scores": [2]}]))
    with pytest.raises(GuerdonError, match="no file of scores"):
        ScoresFile(tmp_path / "none.jsonl")


def test_a_file_of_scores_stands_for_a_model_in_a_benchmark_only(tmp_path: Any) -> None:
    with pytest.raises(GuerdonError, match="in a benchmark only"):
        ScoresFile(scores_file(tmp_path, [{"id": "a", "score": 1}])).score([asked("x")])


# By name


def test_a_reward_by_name_and_by_file() -> None:
    named = load_subject(reward="answer_format")
    assert isinstance(named, RewardSubject) and named.name == "answer_format"
    own = load_subject(reward=f"{__file__}:words", settings=["form=text"])
    assert own.score([asked("three words here")]).values.tolist() == [3]


def test_a_saved_model_and_a_language_model_are_told_apart(tmp_path: Any, model: ScalarRewardModel) -> None:
    saved = model.save_pretrained(tmp_path / "rm", check=False)
    subject = load_subject(model=str(saved), settings=["rm.max_length=32"])
    assert isinstance(subject, ScalarSubject) and subject.name == "rm" and subject.model.max_length == 32
    writer = tmp_path / "writer"
    _language_model(writer)
    judge = load_subject(model=str(writer), settings=["max_tokens=4"])
    assert isinstance(judge, JudgeSubject) and judge.modes == {"rate"} and judge.name == "writer"
    assert judge.score([asked("Cutting.")]).counts() == {"unparsable": 1}  # an untrained model writes no rating
    assert load_subject(model=str(writer), mode="rank").modes == {"rank"}
    with pytest.raises(GuerdonError, match="head"):
        load_subject(model=str(writer), mode="score")


def _language_model(folder: Any) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    _, tokenizer = tiny_backbone(["a b c"], hidden=16, vocab=300)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=4096, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_an_endpoint_is_a_judge() -> None:
    server = Server("Good.\n8")
    try:
        subject = load_subject(model=server.url, judge_model="big", settings=["max_tokens=9", "workers=2"])
        assert subject.score([asked("a"), asked("b")]).values.tolist() == [8, 8]
        body = server.requests[0][2]
        assert body["model"] == "big" and body["max_tokens"] == 9 and body["temperature"] == 0
        assert subject_of_spec(f"{server.url}#other").name.startswith("other at")
    finally:
        server.close()


def test_one_word_names_any_subject(tmp_path: Any) -> None:
    path = scores_file(tmp_path, [{"id": "a", "scores": [1]}])
    assert isinstance(subject_of_spec(str(path)), ScoresFile)
    assert subject_of_spec("answer_present").name == "answer_present"
    assert isinstance(subject_of_spec(f"{__file__}:words"), RewardSubject)


@pytest.mark.parametrize(
    "given, told",
    [
        ({}, "one of --model, --reward, --scores; got none"),
        ({"model": "a/b", "reward": "x"}, "got --model and --reward"),
        ({"reward": "answer_formt"}, "did you mean 'answer_format'"),
        ({"reward": "answer_format", "mode": "rank"}, "is for judges"),
        ({"reward": "answer_format", "settings": ["shape"]}, "key=value"),
        ({"model": "http://127.0.0.1:1/v1"}, "--judge-model"),
        ({"model": "http://127.0.0.1:1/v1", "judge_model": "m", "mode": "score"}, "rate or rank"),
        ({"model": "http://127.0.0.1:1/v1", "judge_model": "m", "settings": ["tempratur=1"]}, "'temperature'"),
        ({"model": "./nowhere"}, "no folder"),
        ({"model": "./nowhere", "judge_model": "m"}, "must be its URL"),
        ({"model": "a/b", "mode": "scores"}, "did you mean 'score'"),
    ],
)
def test_what_is_named_wrongly_is_said(given: dict[str, Any], told: str) -> None:
    with pytest.raises(GuerdonError) as error:
        load_subject(**given)
    assert told in str(error.value)
