from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForTokenClassification, Qwen3Config, Qwen3ForTokenClassification

from guerdon.core.errors import GuerdonError
from guerdon.core.identity import identity
from guerdon.core.outcome import Failed
from guerdon.models.scalar.tiny import SPECIAL, tiny_tokenizer
from guerdon.models.step_scorer import SETTINGS, StepForm, StepScorer, load_step_scorer
from guerdon.rewards.process import ProcessReward
from guerdon.rewards.process import load as process_load
from guerdon.rewards.text.segment import SegmentReward
from guerdon.rewards.text.segment import load as segment_load
from guerdon.trainers.step_labels import StepTuningConfig, segment_accuracy, step_sequences, tune_step_scorer

GOOD, BAD = ("two and two are four", "five less one is four"), ("two and two are nine", "five less one is ten")
WORDS = [*GOOD, *BAD, "How many?", "a b c"]


def tiny(kind: str = "qwen3", labels: int = 2, seed: int = 0):
    tokenizer = tiny_tokenizer(WORDS, vocab=330, special=(*SPECIAL, "<step>"))
    size = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 64, "num_labels": labels, "pad_token_id": tokenizer.pad_token_id,
            "max_position_embeddings": 256}  # fmt: skip
    torch.manual_seed(seed)
    if kind == "bert":
        return BertForTokenClassification(BertConfig(**size)), tokenizer
    config = Qwen3Config(**size, num_key_value_heads=2, head_dim=16, bos_token_id=None)
    return Qwen3ForTokenClassification(config), tokenizer


def rows(count: int, seed: int) -> list[dict]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        labels = [bool(one) for one in rng.random(int(rng.integers(1, 4))) < 0.5]
        steps = [str(rng.choice(GOOD if one else BAD)) for one in labels]
        found.append({"prompt": "How many?", "completions": steps, "labels": labels})
    return found


@pytest.mark.parametrize("kind", ["qwen3", "bert"])
def test_a_score_belongs_to_its_solution_and_not_to_its_batch(kind):
    scorer = StepScorer(*tiny(kind))
    solutions = [list(GOOD), [BAD[0]], [*GOOD, *BAD, "a b c"], []]
    together = scorer(["How many?"] * 4, solutions)
    assert together[3] == [] and [len(one) for one in together] == [2, 1, 5, 0]
    for place, steps in enumerate(solutions):
        assert scorer(["How many?"], [steps])[0] == pytest.approx(together[place], abs=1e-5)
    small = StepScorer(scorer.model, scorer.tokenizer, token_budget=1)(["How many?"] * 4, solutions)
    assert all(a == pytest.approx(b, abs=1e-5) for a, b in zip(small, together))


def test_a_causal_model_scores_a_step_by_what_stands_before_it():
    scorer = StepScorer(*tiny())
    short, long = scorer(None, [[GOOD[0]], [GOOD[0], BAD[1]]])
    assert long[0] == pytest.approx(short[0], abs=1e-6)


def test_training_teaches_the_steps_and_beats_both_constants(tmp_path):
    scorer = StepScorer(*tiny())
    before = segment_accuracy(scorer, rows(60, 2))
    told = tune_step_scorer(
        scorer, rows(200, 1), StepTuningConfig(steps=60, learning_rate=5e-3, batch_size=16), tmp_path / "run"
    )
    after = segment_accuracy(scorer, rows(60, 2))
    assert told.steps == 60 and told.loss < 0.4 and not told.left_out
    assert after["accuracy"] > 0.95 > max(after["all_right"], after["all_wrong"], before["accuracy"])
    loaded = load_step_scorer(scorer.save(tmp_path / "saved"))
    assert identity(loaded) == identity(scorer)
    assert loaded(["How many?"], [list(GOOD)]) == scorer(["How many?"], [list(GOOD)])
    assert process_load(tmp_path / "saved", mode="delta").mode == "delta"
    assert segment_load(tmp_path / "saved", "step")([""], [GOOD[0]]) == [0.3]
    text = f"{GOOD[0]}\n{BAD[0]}"
    assert [s.value for s in SegmentReward(loaded, "step").dense(["How many?"], [text])[0]] == [0.3, -0.3]
    shaped = ProcessReward(loaded, mode="clip", eta=0.5, alpha=1.0).dense(["How many?"], [text])[0]
    assert shaped[0].value == 0 and shaped[1].value < -0.3


def test_labels_lie_at_the_ends_of_steps_and_unjudged_ones_are_ignored():
    scorer = StepScorer(*tiny())
    row = {"prompt": "How many?", "completions": ["a", "b", "c"], "labels": [True, None, False]}
    (made,), left_out = step_sequences(scorer, [row])
    encoded = scorer.encode("How many?", ["a", "b", "c"])
    at = dict(zip(encoded.places, (1, -100, 0)))
    assert made["labels"] == [at.get(place, -100) for place in range(len(encoded.ids))] and not left_out
    assert scorer.tokenizer.decode([encoded.ids[place] for place in encoded.places]) == "\n\n\n"
    assert step_sequences(scorer, [row | {"labels": [None] * 3}])[1] == 1
    with pytest.raises(GuerdonError, match="2 labels for 3 steps"):
        step_sequences(scorer, [row | {"labels": [True, False]}])


def test_the_chat_form_reads_one_class_a_separator_and_refuses_one_in_a_step():
    scorer = StepScorer(*tiny(), StepForm("chat", "<step>", system="Judge."))
    encoded = scorer.encode("How many?", list(GOOD))
    assert [encoded.ids[place] for place in encoded.places] == [scorer.tokenizer.convert_tokens_to_ids("<step>")] * 2
    assert scorer.tokenizer.decode(encoded.ids).startswith("<|im_start|>system\nJudge.<|im_end|>")
    assert len(scorer(["How many?"], [list(GOOD)])[0]) == 2
    failed = scorer(["How many?"] * 2, [["a <step> b"], ["a"]])
    assert isinstance(failed[0], Failed) and failed[0].kind == "misaligned" and len(failed[1]) == 1
    with pytest.raises(GuerdonError, match="needs one"):
        StepScorer(*tiny(), StepForm("chat", "and two"))


def test_the_separator_may_stand_before_and_two_of_three_classes_be_weighed():
    model, tokenizer = tiny("bert", labels=3)
    model.config.id2label = {0: "F-ERR", 1: "Ignore", 2: "O"}
    form = StepForm(separator="<|endoftext|>", place="before", right="O", wrong="F-ERR")
    scorer = StepScorer(model, tokenizer, form)
    encoded = scorer.encode("How many?", ["a", "b"])
    assert [encoded.ids[place] for place in encoded.places] == [tokenizer.pad_token_id] * 2
    assert scorer.classes == (2, 0)
    logits = torch.tensor([[0.0, 99.0, 1.0]])
    assert scorer._probability(logits).item() == pytest.approx(1 / (1 + np.exp(-1.0)), abs=1e-6)
    with pytest.raises(GuerdonError, match="did you mean 'F-ERR'"):
        StepScorer(model, tokenizer, StepForm(right="F-ER"))
    with pytest.raises(GuerdonError, match="name the wrong one"):
        _ = StepScorer(model, tokenizer, StepForm(right="O")).classes


def test_what_is_too_long_fails_alone_and_what_is_no_scorer_is_said(tmp_path):
    scorer = StepScorer(*tiny(), max_length=30)
    long, short = scorer(None, [["a b c " * 50], ["a"]])
    assert isinstance(long, Failed) and long.kind == "too_long" and len(short) == 1
    with pytest.raises(GuerdonError, match="no step scorer"):
        load_step_scorer(tmp_path)
    (tmp_path / SETTINGS).write_text('{"format": 9, "form": {}, "name": "x"}')
    with pytest.raises(GuerdonError, match="format 9"):
        load_step_scorer(tmp_path)
    with pytest.raises(GuerdonError, match="both a label and a score"):
        segment_accuracy(scorer, [{"prompt": "", "completions": ["a"], "labels": [None]}])
