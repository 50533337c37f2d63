"""Rewards of several parts for judging an application: the two that were published, and one without their faults.

An answer is a JSON object {"score": 0..100, "status": "SELECTED" | "REJECTED"} (with an "explanation" or the "skills"
that match, as the reward asks). Columns, one entry a completion: ``status``, ``evaluation_json`` (a mapping or JSON:
overall_score, skills_match.present_skills, experience_relevance.score and .explanation) and ``job_description_skills``
("a, b, c" or a list). No name, telephone number or other mark of a person is read.

Source: A Mathematical Framework for Custom Reward Functions in Job Application Evaluation (arXiv 2511.16073) by its
notebooks; the paper's text was not to be had (UNVERIFIED against it). The data are synthetic: what is measured on them
says nothing on the worth of a decision about people.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from guerdon.core.errors import GuerdonError
from guerdon.core.json_actions import read_object
from guerdon.core.outcome import Failed
from guerdon.rewards.compose import weighted_sum
from guerdon.rewards.composite import Composite
from guerdon.rewards.text.components import (
    Bands,
    ConfusionTable,
    ConsistencyRule,
    Fields,
    ParseResult,
    StructuredPart,
)

__all__ = [
    "Evaluation", "V2_FALLBACK", "evaluation_of", "read_between_braces",
    "read_evaluation", "resume_decision", "resume_repaired", "resume_v2", "years_guessed",
]  # fmt: skip

SELECTED, REJECTED = "SELECTED", "REJECTED"
V2_FALLBACK = {"score": 0.0, "status": REJECTED}
"""What the second published reward takes an answer for that it cannot read: a legal one."""
COLUMNS = ("status", "evaluation_json", "job_description_skills")
_SELECTING = frozenset({"SELECTED", "APPROVE", "CONSIDER", "STRONGLY_CONSIDER"})
_MOST = 100_000


class Evaluation:
    """The gold side of a row: score (None where there is none), wanted status, skills of both sides, experience."""

    def __init__(self, row: Fields) -> None:
        given = row.get("evaluation_json")
        read = json.loads(given) if isinstance(given, str) and given.strip() else given or {}
        if not isinstance(read, Mapping):
            raise ValueError("the evaluation is no object")
        score = read.get("overall_score")
        self.score = None if score is None else float(score)
        self.status = str(row.get("status") or "").strip().upper()
        skills, experience = read.get("skills_match") or {}, read.get("experience_relevance") or {}
        self.present = _skills(skills.get("present_skills"))
        self.asked = _skills(row.get("job_description_skills"))
        self.experience_score = float(experience.get("score") or 0)
        self.experience = str(experience.get("explanation") or "")

    @property
    def decision(self) -> str:
        """SELECTED for any of the published words that select, else REJECTED."""
        return SELECTED if self.status in _SELECTING else REJECTED

    @property
    def overlap(self) -> float | None:
        """Share of the asked skills that the candidate has; None where a list is empty."""
        return len(self.asked & self.present) / len(self.asked) if self.asked and self.present else None


def evaluation_of(row: Fields) -> Evaluation | Failed:
    """The gold side of a row, or Failed("unparseable") where it cannot be read."""
    try:
        return Evaluation(row)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        given = str(row.get("evaluation_json"))[:60]
        return Failed(f"the gold evaluation {given!r} is unreadable: {error}", "unparseable")


def read_between_braces(text: str) -> ParseResult:
    """V2's reader: JSON from the first "{" to the last "}"; the status SELECTED for any of its four words."""
    start, end = text.find("{"), text.rfind("}")
    if not 0 <= start < end or len(text) > _MOST:
        return ParseResult(False, reason="no object")
    try:
        read = json.loads(text[start : end + 1])
        score = float(read.get("score", 0))
        status = str(read.get("status", REJECTED)).strip().upper()
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return ParseResult(False, reason="not JSON")
    if not abs(score) <= 1e6:
        return ParseResult(False, reason="no score")
    return ParseResult(True, {"score": score, "status": SELECTED if status in _SELECTING else REJECTED})


def read_evaluation(text: str) -> ParseResult:
    """The repaired reader: the whole text is one object, its status legal, its score in [0, 100], its skills a list."""
    found, reason = read_object(text) if len(text) <= _MOST else (None, "too long")
    if found is None:
        return ParseResult(False, reason=reason)
    values = {key: value for key, (value, _) in found.items()}
    score, status, skills = values.get("score"), values.get("status"), values.get("skills", [])
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 100:
        return ParseResult(False, reason="no score")
    if status not in (SELECTED, REJECTED):
        return ParseResult(False, reason="no status")
    if not isinstance(skills, list) or not all(isinstance(one, str) for one in skills):
        return ParseResult(False, reason="wrong kind")
    return ParseResult(True, {"score": float(score), "status": status, "skills": skills})


def years_guessed(text: str, *, published: bool = True) -> int:
    """Years of experience guessed from words; 0 where nothing is said.

    published:  by substrings, the first of these that occurs: "10" or "senior" 10, "5" or "mid" 5, "3" 3, "1" or
                "junior" 1, "no" or "entry" 0. So "100 projects" is 10 years and "knowledge" none. Else the first number
                before "year(s)", then the words senior, mid, junior as whole words.
    """
    low = text.lower()
    if not published:
        said = re.search(r"\b(\d{1,2})\+?\s{0,3}(?:-\s?)?years?\b", low)
        if said is not None:
            return int(said[1])
        return next((years for word, years in (("senior", 10), ("mid", 5), ("junior", 1)) if _whole(word, low)), 0)
    for words, years in ((("10", "senior"), 10), (("5", "mid"), 5), (("3",), 3), (("1", "junior"), 1)):
        if any(word in low for word in words):
            return years
    return 0


def resume_v2(
    *,
    false_negative: float = -2.0,
    false_positive: float = -1.0,
    true_positive: float = 2.0,
    true_negative: float = 0.0,
    name: str = "resume_v2",
) -> Composite:
    """The published "gentle" reward: 0.4 status + 0.2 score + 0.2 skills + 0.2 experience, as it is, faults included.

    false_negative, false_positive: -2 and -1; the aggressive ones of before were -5 and -2.

    Faults, which `guerdon.audits.reward_linter` finds: an answer that cannot be read is taken for {score 0, REJECTED};
    skills look at the row alone, so 20% of the weight cancels within a group; garbage can be paid more than a wrong
    legal answer. Use `resume_repaired` to train. Deviation: a gold evaluation that cannot be read fails the row, where
    the notebook pays 0.
    """
    table = ConfusionTable(
        {
            (SELECTED, SELECTED): true_positive,
            (SELECTED, REJECTED): false_positive,
            (REJECTED, SELECTED): false_negative,
            (REJECTED, REJECTED): true_negative,
        }
    )
    overlap = Bands([(0.75, 1.0), (0.4, 0.0)], -1.0, at_least=True)
    experience = ConsistencyRule(
        [
            (lambda a, row: row["years"] >= 7 and a["score"] >= 75, 1.0),
            (lambda a, row: 3 <= row["years"] <= 6 and 50 <= a["score"] < 80, 1.0),
            (lambda a, row: row["years"] <= 2 and a["score"] < 50, 1.0),
            (lambda a, row: a["score"] > 85 and row["years"] <= 2, -1.0),
            (lambda a, row: a["score"] < 40 and row["years"] >= 5, -1.0),
        ]
    )

    def status(answer: Fields, gold: Evaluation) -> float:
        return table(answer["status"], gold.decision)

    def score(answer: Fields, gold: Evaluation) -> float:
        return 0.0 if gold.score is None else max(-1.0, 1 - abs(answer["score"] - gold.score) / 50)

    def skills(answer: Fields, gold: Evaluation) -> float:
        return -1.0 if gold.overlap is None else overlap(gold.overlap)

    def years(answer: Fields, gold: Evaluation) -> float:
        return experience(answer, {"years": years_guessed(gold.experience)})

    def part(label: str, judge: Any, bounds: tuple[float, float]) -> StructuredPart:
        return StructuredPart(
            label, judge, reader=read_between_braces, on_fail=V2_FALLBACK, bounds=bounds, columns=COLUMNS,
            gold=evaluation_of,
        )  # fmt: skip

    return weighted_sum(
        {
            "status": (part("status", status, table.bounds), 0.4),
            "score": (part("score", score, (-1.0, 1.0)), 0.2),
            "skills": (part("skills", skills, overlap.bounds), 0.2),
            "experience": (part("experience", years, experience.bounds), 0.2),
        },
        name=name,
    )


def resume_repaired(*, wrong: float = -1.0, unreadable: float = -2.0, name: str = "resume_repaired") -> Composite:
    """0.6 status + 0.2 score + 0.2 skills, in which every part depends on the answer and garbage is worth least.

    status:  1 where right, ``wrong`` where not; the weight is more than the other parts can make up for.
    score:   max(-1, 1 - |error| / 50); 0 without a gold score.
    skills:  2 F - 1, with F the overlap (F1) of the skills that the *answer* lists and those that the job asks and the
             candidate has; 1 where there are none on either side.
    unreadable: the status part of an answer that cannot be read, below ``wrong``; its other parts get -1.

    Ours, after the faults of the published rewards. Raises GuerdonError where unreadable is not below wrong.
    """
    if not unreadable < wrong < 1:
        raise GuerdonError(f"need garbage < wrong < 1 (what a right status is worth), got {unreadable} and {wrong}")

    def status(answer: Fields, gold: Evaluation) -> float:
        return 1.0 if answer["status"] == gold.decision else wrong

    def score(answer: Fields, gold: Evaluation) -> float:
        return 0.0 if gold.score is None else max(-1.0, 1 - abs(answer["score"] - gold.score) / 50)

    def skills(answer: Fields, gold: Evaluation) -> float:
        said, right = _skills(answer["skills"]), gold.asked & gold.present
        return 2 * (2 * len(said & right) / (len(said) + len(right)) if said or right else 1.0) - 1

    def part(label: str, judge: Any, on_fail: float, low: float) -> StructuredPart:
        return StructuredPart(
            label, judge, reader=read_evaluation, on_fail=on_fail, bounds=(low, 1.0), columns=COLUMNS,
            gold=evaluation_of,
        )  # fmt: skip

    return weighted_sum(
        {
            "status": (part("status", status, unreadable, wrong), 0.6),
            "score": (part("score", score, -1.0, -1.0), 0.2),
            "skills": (part("skills", skills, -1.0, -1.0), 0.2),
        },
        name=name,
    )


def resume_decision(*, name: str = "resume_decision") -> StructuredPart:
    """1.0 where the answer's status is the right one, else 0.0, an unreadable answer too: a judge of the others."""

    def right(answer: Fields, gold: Evaluation) -> float:
        return float(answer["status"] == gold.decision)

    return StructuredPart(
        name, right, reader=read_evaluation, on_fail=0.0, bounds=(0.0, 1.0), columns=COLUMNS, gold=evaluation_of
    )


def _skills(given: Any) -> frozenset[str]:
    listed = given.split(",") if isinstance(given, str) else given or []
    return frozenset(one.strip().lower() for one in listed if isinstance(one, str) and one.strip())


def _whole(word: str, text: str) -> bool:
    return re.search(rf"\b{word}\b", text) is not None
