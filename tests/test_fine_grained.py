from __future__ import annotations

import json

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.curation.fine_grained import (
    ErrorSpan,
    completeness_pairs,
    feedback_of,
    feedback_prompt,
    load_feedback,
    preference_pairs,
    segment_labels,
    segment_rows,
)

TEXT = "Rome is the capital of Italy. I like pizza with extra cheese very much. It has nine million people."
PASSAGE = ["Rome", "Rome is the capital of Italy.", "It has two million people.", "The river there is the Tiber."]


def row(**more):
    first = TEXT.index("I like")
    last = TEXT.index("It has")
    return {
        "question": "What is Rome?",
        "passages": [PASSAGE],
        "prediction 1": TEXT,
        "prediction 2": "Rome is the capital of Italy.",
        "prediction 3": "Rome is the capital of Italy. It has two million people.",
        "prediction 4": "No idea.",
        "preference": [2, 0, 1, 2, 1, 1],
        "feedback": {
            "errors": [
                {"error type": "Irrelevant", "start": first, "end": last - 1, "explanation": ""},
                {"error type": "Wrong-Grounding", "start": last, "end": len(TEXT), "explanation": ""},
            ],
            "missing-info": [{"error type": "Missing-Minor-Auxiliary", "passage_id": 0, "sentence_id": [3]}],
            "corrected-prediction": "Rome is the capital of Italy. It has two million people. The river there is the "
            "Tiber.",
        },
    } | more


def test_segments_are_labelled_by_their_own_kind_of_error_and_unchecked_ones_not_at_all():
    one = feedback_of(row())
    spans, relevant = segment_labels(TEXT, one.errors, "relevance")
    assert len(spans) == 3 and relevant == [True, False, True]
    assert segment_labels(TEXT, one.errors, "factuality")[1] == [True, None, False]
    with pytest.raises(GuerdonError, match="did you mean 'relevance'"):
        segment_labels(TEXT, [], "relevanc")


def test_short_spans_of_relevance_are_dropped_and_of_facts_are_not():
    place = TEXT.index("pizza")
    short = [ErrorSpan(place, place + 5, "Redundant"), ErrorSpan(0, 4, "Unverifiable")]
    assert segment_labels(TEXT, short, "relevance")[1] == [True] * 3
    assert segment_labels(TEXT, short, "factuality")[1] == [False, None, True]


def test_rows_for_the_two_classifiers_show_passages_for_facts_only():
    rows = [feedback_of(row()), feedback_of(row(**{"prediction 1": "", "feedback": {"errors": []}}))]
    (facts,), (relevance,) = segment_rows(rows, "factuality"), segment_rows(rows, "relevance")
    assert "wikipage: Rome text: Rome is the capital" in facts["prompt"]
    assert relevance["prompt"] == "question: What is Rome? answer:"
    assert facts["labels"] == [True, None, False] and len(facts["completions"]) == 3
    assert feedback_prompt(rows[0], context=False) == "question: What is Rome?"


def test_preferences_become_pairs_and_ties_do_not():
    one = feedback_of(row())
    pairs = [(p["chosen"], p["rejected"]) for p in preference_pairs([one])]
    a, b, c, d = one.predictions
    assert pairs == [(b, a), (a, d), (c, b), (b, d), (c, d)]


def test_completeness_counts_what_the_correction_needs_but_minor_things():
    pairs = [(p["chosen"], p["rejected"]) for p in completeness_pairs([feedback_of(row())])]
    a, b, c, d = feedback_of(row()).predictions
    # Needed are two sentences, the river being minor: c covers both; a and b one; d none. "nine million" is near enough
    # to "two million" for the published measure of likeness, or not: the pair (a, b) shows which.
    assert (c, b) in pairs and (c, d) in pairs and (b, d) in pairs and (a, d) in pairs and (b, a) not in pairs
    assert completeness_pairs([feedback_of(row(passages=[]))]) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"feedback": {"errors": [{"error type": "Irrelevant", "start": 0, "end": 999}]}}, "not in prediction 1"),
        ({"feedback": {"errors": [{"error type": "Irelevant", "start": 0, "end": 9}]}}, "did you mean 'Irrelevant'"),
        ({"preference": [1, 2]}, "needs six"),
        ({"preference": [1, 2, 3, 0, 0, 0]}, "needs six"),
        ({"feedback": {}}, "KeyError 'errors'"),
    ],
)
def test_rows_that_are_not_of_the_format_are_named(change, said):
    with pytest.raises(GuerdonError, match=said):
        feedback_of(row(**change), "a.jsonl:3")


def test_a_file_is_read_and_its_bad_rows_are_told_together(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in (row(), row())), encoding="utf-8")
    assert len(load_feedback(str(path))) == 2
    path.write_text("\n".join(json.dumps(one) for one in (row(), row(preference=[9]), {"question": "x"})), "utf-8")
    with pytest.raises(GuerdonError, match=r"2 rows .*rows.jsonl:2.*rows.jsonl:3"):
        load_feedback(str(path))
