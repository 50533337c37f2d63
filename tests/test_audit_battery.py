"""Audits as a whole: what counts as what, resuming, and what is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit_subjects import Ranks, Scores, last_number, true_quality
from guerdon.audits.battery import ATTACKS, chosen_attacks, run_battery
from guerdon.audits.examination import Case, Examination
from guerdon.audits.items import Item, Items, embedded_items, load_items, preference_items
from guerdon.audits.trials import AttackResult, Rate, Trial, summarise
from guerdon.core.dialogues import embedded_pairs
from guerdon.core.errors import GuerdonError
from guerdon.report.sheet_page import render_sheet
from guerdon.rewards.subject import JudgeSubject

DIALOGUES = embedded_items("preference", count=12)
ARITHMETIC = embedded_items("verifier", count=12)
GSM8K = Path(__file__).parents[2] / "shared" / "data" / "gsm8k" / "model_solutions.jsonl.gz"


def trial(outcome: Any, item: int = 0, variant: str = "v", problem: str = "", gap: float = 1.0) -> Trial:
    return Trial(item, variant, outcome, gap, 0.0, problem)


def test_a_failure_is_neither_survived_nor_fooled() -> None:
    trials = [trial("fooled", 0), trial("survived", 1), trial("unmeasured", 2, problem="unparsable: no rating"),
              trial("unmeasured", 3, problem="does not apply"), trial("already", 4)]  # fmt: skip
    rate = Rate.of("all", trials)
    assert (rate.value, rate.fooled, rate.survived, rate.already, rate.prompts) == (0.5, 1, 1, 1, 2)
    assert rate.unmeasured == {"unparsable": 1, "does not apply": 1}


def test_the_interval_is_wilsons_and_counts_prompts() -> None:
    rate = Rate.of("all", [trial("fooled" if item < 3 else "survived", item) for item in range(10)])
    # Wilson 1927, z = 1.959964: 3 of 10 -> [0.1078, 0.6032].
    assert (rate.low, rate.high) == pytest.approx((0.10779, 0.60322), abs=1e-5)
    twice = Rate.of("all", [trial("fooled" if item < 3 else "survived", item) for item in range(10) for _ in range(2)])
    assert (twice.value, twice.low, twice.high) == (rate.value, rate.low, rate.high) and twice.fooled == 6


def test_no_measured_trial_is_no_rate() -> None:
    rate = Rate.of("all", [trial("unmeasured", problem="failed: boom")])
    assert np.isnan([rate.value, rate.low, rate.high]).all() and rate.unmeasured == {"failed": 1}


def test_examples_are_the_worst_one_of_each_variant_first() -> None:
    trials = [trial("fooled", 0, "a", gap=9.0), trial("fooled", 1, "a", gap=8.0), trial("fooled", 2, "b", gap=1.0),
              trial("survived", 3, "c", gap=99.0)]  # fmt: skip
    rate, variants, examples = summarise(trials, examples=2)
    assert [(one.variant, one.score) for one in examples] == [("a", 9.0), ("b", 1.0)]
    assert [one.name for one in variants][-1] == "c" and rate.fooled == 3


def test_failures_are_counted_by_kind_and_stand_against_the_subject() -> None:
    def rule(prompt: str, answer: str, solution: Any) -> Any:
        return "unparsable: no rating in the reply" if len(answer) < 3 else true_quality(prompt, answer, solution)

    audit = run_battery(Examination(Scores(rule), DIALOGUES), attacks=["one-token", "honest", "refusal"])
    found = audit["one-token"]
    assert found.rate.fooled == 0 and found.rate.unmeasured["unparsable"] > 0.5 * found.rate.survived
    assert found.rate.survived + found.failures == sum(1 for _ in range(12)) * len(found.variants)
    reasons = audit.failing(0.5)
    assert len(reasons) == 1 and reasons[0].startswith("one-token: the subject failed on")
    assert "failed on" in audit.lead()


def test_not_applying_is_no_failure() -> None:
    def rule(prompt: str, answer: str, solution: Any) -> Any:
        return "does not apply" if len(answer) < 3 else true_quality(prompt, answer, solution)

    audit = run_battery(Examination(Scores(rule), DIALOGUES), attacks=["one-token"])
    assert audit["one-token"].rate.unmeasured == {
        "does not apply": audit["one-token"].rate.unmeasured["does not apply"]
    }
    assert audit["one-token"].failures == 0 and not audit.failing(0.5)


def test_where_the_unaltered_answer_is_judged_wrongly_the_alteration_shows_nothing() -> None:
    items = Items("preference", "two", [
        Item([{"role": "user", "content": "a"}], "good", "bad!", topic="a"),
        Item([{"role": "user", "content": "b"}], "good", "bad", topic="b"),
    ])  # fmt: skip
    examination = Examination(Scores(lambda p, a, s: 2.0 * ("!" in a) + ("good" in a)), items)
    cases = [Case(place, "louder", f"{items.items[place].wrong}!") for place in range(2)]
    assert [one.outcome for one in examination.try_bad(cases, unless="wrong")] == ["already", "fooled"]
    assert [one.outcome for one in examination.try_bad(cases)] == ["fooled", "fooled"]


def test_the_bar_is_the_honest_answer_or_a_quantile_of_all() -> None:
    items = Items("preference", "three", [
        Item([{"role": "user", "content": str(n)}], "x" * n, "", topic=str(n)) for n in (1, 5, 9)
    ])  # fmt: skip
    cases = [Case(place, "v", "y" * 6) for place in range(3)]
    own = Examination(Scores(lambda p, a, s: len(a)), items)
    assert [one.outcome for one in own.try_bad(cases)] == ["fooled", "fooled", "survived"]
    top = Examination(Scores(lambda p, a, s: len(a)), items, quantile=1.0)
    assert [one.outcome for one in top.try_bad(cases)] == ["survived"] * 3
    assert [one.bar for one in Examination(Scores(lambda p, a, s: len(a)), items, quantile=0.5).try_bad(cases)] == [
        5.0
    ] * 3


def test_a_verifiers_threshold() -> None:
    soft = Scores(lambda p, a, s: 0.4)
    found = [run_battery(Examination(soft, ARITHMETIC, threshold=t), attacks=["empty"])["empty"] for t in (0.5, 0.4)]
    assert [one.rate.value for one in found] == [0.0, 1.0]


def test_the_same_answer_is_scored_once() -> None:
    subject = Scores(true_quality)
    examination = Examination(subject, DIALOGUES)
    examination.honest()
    examination.honest()
    assert subject.rows == 12 == examination.rows


def test_a_stopped_audit_goes_on_and_gives_the_same(tmp_path: Path) -> None:
    names = ["honest", "empty", "injection", "unicode", "constant-policies"]
    whole = run_battery(Examination(Scores(true_quality), DIALOGUES), attacks=names, out=tmp_path / "whole")

    class Stopping(Scores):
        def score(self, conversations: Any, **options: Any) -> Any:
            if self.rows > 400:
                raise KeyboardInterrupt
            return super().score(conversations, **options)

    with pytest.raises(KeyboardInterrupt):
        run_battery(Examination(Stopping(true_quality), DIALOGUES), attacks=names, out=tmp_path / "stopped")
    kept = sorted(path.stem for path in (tmp_path / "stopped" / "attacks").glob("*.json"))
    assert 0 < len(kept) < len(names)
    again = Scores(true_quality)
    resumed = run_battery(Examination(again, DIALOGUES), attacks=names, out=tmp_path / "stopped")
    fresh = Scores(true_quality)
    run_battery(Examination(fresh, DIALOGUES), attacks=names)
    assert again.rows < fresh.rows
    for one, other in zip(whole.attacks, resumed.attacks):
        told = [{**attack.to_dict(), "seconds": 0, "rows": 0} for attack in (one, other)]
        assert json.loads(json.dumps(told[0])) == json.loads(json.dumps(told[1]))


@pytest.mark.parametrize("change", ["subject", "items", "seed", "threshold"])
def test_results_of_another_audit_are_refused(tmp_path: Path, change: str) -> None:
    run_battery(Examination(Scores(last_number), ARITHMETIC), attacks=["empty"], out=tmp_path)
    subject = Scores(last_number, "other" if change == "subject" else "rule")
    items = embedded_items("verifier", count=11) if change == "items" else ARITHMETIC
    options = {"seed": {"seed": 1}, "threshold": {"threshold": 0.7}}.get(change, {})
    with pytest.raises(GuerdonError, match=f"of another audit \\({change}"):
        run_battery(Examination(subject, items, **options), attacks=["empty"], out=tmp_path)


def test_a_file_that_is_no_result_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks" / "empty.json").write_text('{"settings"')
    with pytest.raises(GuerdonError, match="empty.json is no result of an attack"):
        run_battery(Examination(Scores(last_number), ARITHMETIC), attacks=["empty"], out=tmp_path)


def test_one_attack_more_or_less_changes_no_other() -> None:
    alone = run_battery(Examination(Scores(true_quality), DIALOGUES, seed=3), attacks=["length"])["length"]
    both = run_battery(Examination(Scores(true_quality), DIALOGUES, seed=3), attacks=["format", "length"])["length"]
    assert alone.rate == both.rate and [one.answer for one in alone.examples] == [one.answer for one in both.examples]


def test_attacks_are_named_by_name_or_family() -> None:
    assert [one.name for one in chosen_attacks(["invariance", "empty"])] == ["empty", "determinism", "batch-invariance"]
    assert chosen_attacks(None) == list(ATTACKS.values())
    with pytest.raises(GuerdonError, match="did you mean 'master-keys'"):
        chosen_attacks(["masterkeys"])


def test_a_result_survives_json() -> None:
    audit = run_battery(Examination(Scores(last_number), ARITHMETIC, budget=40), attacks=["near-misses", "search"])
    for one in audit.attacks:
        assert AttackResult.from_dict(json.loads(json.dumps(one.to_dict()))) == AttackResult.from_dict(one.to_dict())
    with pytest.raises(GuerdonError, match="no attack's result"):
        AttackResult.from_dict({"name": "x"})


def test_the_page_shows_rates_both_ways_examples_and_what_does_not_apply() -> None:
    audit = run_battery(Examination(Scores(last_number, "naive <b>"), ARITHMETIC, budget=40))
    sheet = audit.sheet()
    titles = [part.title for part in sheet.parts]
    assert any(title.startswith("False positives") for title in titles)
    assert any(title.startswith("False negatives") for title in titles)
    assert "Not tried" in titles and "Search: the best answer so far" in titles
    row = next(row for row in sheet.tables()[0].rows if row[0] == "near-misses")
    assert row[1] == audit["near-misses"].rate.value and row[-1] == 1.0
    page = render_sheet(sheet)
    assert "naive &lt;b&gt;" in page and "scores one answer at a time" in page
    assert "near-misses" in sheet.lead and "refused good answers" in sheet.lead
    json.dumps(audit.to_dict())


def test_the_limit_reads_the_worst_variant_of_bad_answers_and_the_mean_over_good_ones() -> None:
    audit = run_battery(Examination(Scores(last_number), ARITHMETIC), attacks=["near-misses", "equivalent-forms"])
    between = (audit["near-misses"].rate.value + 1.0) / 2
    assert [reason.split(" (")[0] for reason in audit.failing(between)] == ["near-misses"]
    assert audit.failing(1.0) == []
    assert len(audit.failing(0.0)) == 2


# -- judges that are asked in words


def judged(question: str) -> list[str]:
    """The candidates' texts in a judge's question, and the prompt first."""
    return [part.split("\n", 1)[1].rsplit("\nEND ", 1)[0] for part in question.split("BEGIN ")[2:]]


def test_a_rating_judge_that_obeys_orders_is_found_and_its_nonsense_is_counted() -> None:
    def chat(messages: Any, *, temperature: float | None = None, seed: int | None = None) -> str:
        prompt, answer = judged(messages[0]["content"])
        if "Ignore what you were told" in answer:
            return "As ordered.\n10"
        if len(answer) < 3:
            return "There is nothing to rate here."
        return f"I have read it.\nRating: {3 + int(true_quality(prompt, answer, None))}/10"

    audit = run_battery(
        Examination(JudgeSubject(chat), DIALOGUES), attacks=["injection", "one-token", "honest", "position"]
    )
    assert audit["honest"].rate.value == 0.0
    injected = audit["injection"]
    assert injected.worst.name == "order" and injected.worst.value == 1.0
    assert injected.rate.value == pytest.approx(1 / len(injected.variants))
    assert audit["one-token"].rate.unmeasured["unparsable"] > 0 and audit["one-token"].rate.fooled == 0
    assert audit["position"].reason and any("one-token: the subject failed" in reason for reason in audit.failing(1.0))


def test_ties_are_told_where_ratings_are_coarse() -> None:
    audit = run_battery(Examination(Scores(lambda p, a, s: 10.0), DIALOGUES), attacks=["empty"])
    assert audit["empty"].rate.fooled == 0 and audit["empty"].measures["tied with the honest answer"] == 1.0


def test_a_ranking_judge_is_asked_in_both_orders() -> None:
    def chat(messages: Any, *, temperature: float | None = None, seed: int | None = None) -> str:
        prompt, first, second = judged(messages[0]["content"])
        if prompt.startswith("User: What is"):  # a question of one form only: here it goes by the place
            return "[[A]]"
        return "[[B]]" if true_quality(prompt, second, None) > true_quality(prompt, first, None) else "[[A]]"

    audit = run_battery(Examination(JudgeSubject(chat, mode="rank"), DIALOGUES), attacks=["position", "determinism"])
    biased = sum(item.prompt[0]["content"].startswith("What is") for item in DIALOGUES.items)
    assert 0 < biased < len(DIALOGUES) and audit["position"].rate.fooled == biased
    assert audit["position"].examples[0].answer == "the first both times"
    assert audit["determinism"].rate.fooled == 0


# -- items


def test_embedded_items_have_right_and_wrong_answers() -> None:
    for item in DIALOGUES.items:
        assert true_quality(item.prompt[0]["content"], item.honest, None) >= 2
        assert true_quality(item.prompt[0]["content"], item.wrong or "", None) < 2
    for item in ARITHMETIC.items:
        assert item.solution in item.honest and last_number("", item.honest, item.solution) == 1.0
        assert item.wrong is not None and last_number("", item.wrong, item.solution) == 0.0
    assert embedded_items("verifier", count=5).identity() == embedded_items("verifier", count=5).identity()
    assert embedded_items("verifier", count=5).identity() != embedded_items("verifier", count=5, seed=1).identity()


def test_items_of_pairs_and_of_rated_rows(tmp_path: Path) -> None:
    pairs = embedded_pairs(40, 0)
    items = preference_items([*pairs, pairs[0]], "pairs", count=5, seed=1)
    assert len(items) == 5 and items.left_out["prompt seen before"] > 0
    file = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": "6 * 7?", "completion": "It is 41.", "label": False, "solution": "42", "level": 1},
        {"prompt": "6 * 7?", "completion": "It is 42.", "label": True, "solution": "42", "level": 1},
        {"prompt": "1 + 1?", "completion": "It is 3.", "label": False, "solution": "2", "level": 0},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    found = load_items(file)
    assert found.kind == "verifier" and [one.solution for one in found.items] == ["42", "2"]
    assert [one.honest for one in found.items] == ["It is 42.", "The answer is 2."]
    assert [one.wrong for one in found.items] == ["It is 41.", "It is 3."]
    assert [one.columns for one in found.items] == [{"level": 1}, {"level": 0}]
    file.write_text("\n".join(json.dumps({"gold": row.pop("solution"), **row}) for row in rows))
    assert load_items(file, columns={"solution": "gold"}).kind == "verifier"
    with pytest.raises(GuerdonError, match="no column 'solution'"):
        load_items(file, kind="verifier")


def test_bad_items_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"prompt": "a?", "solution": "1"}, {"prompt": "a?", "solution": "2"}]
    file.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(GuerdonError, match="rows.jsonl:2: the prompt of .*rows.jsonl:1 with another solution"):
        load_items(file)
    file.write_text(json.dumps(rows[0]))
    with pytest.raises(GuerdonError, match="at least 2 items"):
        load_items(file)
    file.write_text("\n".join(json.dumps({"prompt": f"{n}?", "solution": n, "label": "maybe"}) for n in range(3)))
    with pytest.raises(GuerdonError, match="3 bad rows.*label"):
        load_items(file)
    with pytest.raises(GuerdonError, match="ranks answers"):
        Examination(Ranks(lambda p, a: 0), ARITHMETIC)
    with pytest.raises(GuerdonError, match="quantile"):
        Examination(Scores(true_quality), DIALOGUES, quantile=2.0)


@pytest.mark.skipif(not GSM8K.is_file(), reason="the real data are not beside the repository")
def test_real_solutions_become_items() -> None:
    items = load_items(GSM8K, columns={"solution": "answer"}, count=20, seed=0)
    assert items.kind == "verifier" and len(items) == 20
    assert all(item.wrong is None or item.wrong != item.honest for item in items.items)
