"""The first published reward for judging an application: six parameters whose weights move with row and answer."""

from __future__ import annotations

import json
import re
from typing import Any

from guerdon.core.reward import Reward
from guerdon.rewards.compose import anneal
from guerdon.rewards.text.components import Bands, DynamicWeights, Fields, ParseResult, StructuredPart
from guerdon.rewards.text.resume import COLUMNS, REJECTED, SELECTED, Evaluation, evaluation_of

__all__ = ["read_anywhere", "resume_v1"]

_OBJECT = re.compile(r"\{[^{}]*\}")
_SCORE = re.compile(r"score[\"']?\s{0,20}:?\s{0,20}(\d{1,9})", re.IGNORECASE)
_STATUS = re.compile(r"status[\"']?\s{0,20}:?\s{0,20}[\"']?(SELECTED|REJECTED)", re.IGNORECASE)
_EXPLANATION = re.compile(r"explanation[\"']?\s{0,20}:?\s{0,20}[\"']?([^\"'}\n]+)", re.IGNORECASE)
_YEARS = re.compile(r"(\d{1,9})\s{0,20}years?")
_WANTED = {"CONSIDER": SELECTED, "MAYBE": SELECTED, "UNLIKELY": REJECTED, "REJECT": REJECTED}
_EXPERIENCE = Bands([(90, 10), (80, 6), (60, 3), (40, 1)], 0, at_least=True)
_SKILL_DELTA = Bands([(80, 0.15), (70, 0.10), (60, 0.05), (50, 0.02), (40, 0.0)], -0.05, at_least=True)
_EDUCATION_DELTA = Bands([(85, 0.08), (70, 0.02), (50, 0.0)], -0.02, at_least=True)
_YEARS_DELTA = Bands([(11, 0.13), (7, 0.10), (4, 0.06), (2, 0.02), (1, -0.05)], -0.08, at_least=True)
_YEARS_SCORES = ((11, 80, 95), (7, 75, 90), (4, 65, 85), (2, 50, 75), (1, 35, 65))
_REASONS, _CAREER = ("because", "due to", "based on", "since"), ("experience", "years", "background")


def read_anywhere(text: str) -> ParseResult:
    """The first reader: an object that names a score, else whatever looks like the fields; what is missing is None.

    It never fails. A score of 0 counts as missing, as published. Reads the first 100,000 characters.
    """
    text = text[:100_000]
    objects = [found[0] for found in _OBJECT.finditer(text)]
    named = next((one for one in objects if '"score"' in one), objects[0] if objects else None)
    if named is not None:
        try:
            read = json.loads(named)
            score = read.get("score") or read.get("overall_score")
            status = read.get("status", "").upper()
            fields = {
                "score": None if score is None else int(score),
                "status": status if status in (SELECTED, REJECTED) else None,
                "explanation": str(read.get("explanation", "")),
            }
            return ParseResult(True, fields)
        except (ValueError, TypeError, AttributeError, OverflowError):
            pass
    score_said, status_said, said = _SCORE.search(text), _STATUS.search(text), _EXPLANATION.search(text)
    return ParseResult(
        True,
        {
            "score": int(score_said[1]) if score_said else None,
            "status": status_said[1].upper() if status_said else None,
            "explanation": said[1] if said else "",
        },
    )


def resume_v1(*, max_steps: int | None = None, name: str = "resume_v1") -> Reward:
    """sum_k w_k S_k / sum_k w_k with S in {-1, 0, 1} and moving weights, as in the first notebook, faults included.

    Base weights: score 0.25, status 0.20, skills 0.20, experience 0.15, education 0.10, explanation 0.10. Those of
    skills (-0.05 to 0.15), experience (-0.10 to 0.18) and education (-0.02 to 0.08) move; floor 0.01.

    max_steps:  the notebook's factor 0.5 + 0.5 step / max(max_steps, 1000), which cancels under a group's deviation;
                needs ``trainer_state``. None: without it.

    Faults, which `guerdon.audits.reward_linter` finds: education, with its weight, is the answer's own score read back;
    APPROVE is in no map, so such a row has no wanted status; what cannot be read is worth 0 in two parts.
    Source: arXiv 2511.16073, Pipeline notebook.
    """
    reward = DynamicWeights(
        {
            "score": (_part("score", _score), 0.25),
            "status": (_part("status", _status), 0.20),
            "skills": (_part("skills", _skills_fit), 0.20),
            "experience": (_part("experience", lambda answer, gold: _experience(answer, gold)[0]), 0.15),
            "education": (_part("education", _education), 0.10),
            "explanation": (_part("explanation", _explanation), 0.10),
        },
        {
            "skills": _part("skills_weight", _skills_weight),
            "experience": _part("experience_weight", lambda answer, gold: _experience(answer, gold)[1]),
            "education": _part("education_weight", _education_weight),
        },
        floor=0.01,
        name=name if max_steps is None else f"{name}_parts",
    )
    return reward if max_steps is None else anneal(reward, [(0, 0.5), (max(max_steps, 1000), 1.0)], name=name)


def _part(label: str, judge: Any) -> StructuredPart:
    nothing = {"score": None, "status": None, "explanation": ""}
    return StructuredPart(
        label, judge, reader=read_anywhere, on_fail=nothing, bounds=(-1.0, 1.0), columns=COLUMNS, gold=evaluation_of
    )


def _score(answer: Fields, gold: Evaluation) -> float:
    score = answer["score"]
    if score is None or not 0 <= score <= 100:
        return -1.0
    if gold.score is None:
        return -1.0 if score < 10 or score > 95 else 0.0
    return Bands([(10, 1.0), (20, 0.0)], -1.0)(abs(score - gold.score))


def _status(answer: Fields, gold: Evaluation) -> float:
    said, score = answer["status"], answer["score"]
    if said is None:
        return -1.0
    wanted = gold.status.replace("STRONGLY_", "").replace("_CONSIDER", "")
    wanted = wanted if wanted in (SELECTED, REJECTED) else _WANTED.get(wanted, "")
    if wanted:
        return 1.0 if said == wanted else -1.0
    odd = score is not None and (score < 30 if said == SELECTED else score > 85)
    return -1.0 if odd else 0.0


def _skills_fit(answer: Fields, gold: Evaluation) -> float:
    if gold.overlap is None:
        return -1.0
    score = answer["score"]
    if score is None:
        return 0.0
    low, high = (70, 100) if gold.overlap >= 0.7 else (50, 80) if gold.overlap >= 0.4 else (0, 60)
    return 1.0 if low <= score <= high else 0.0 if abs(score - (low + high) / 2) <= 20 else -1.0


def _skills_weight(answer: Fields, gold: Evaluation) -> float:
    return 0.0 if gold.overlap is None else _SKILL_DELTA(100 * gold.overlap)


def _experience(answer: Fields, gold: Evaluation) -> tuple[float, float]:
    said = _YEARS.search(gold.experience.lower())
    years = int(said[1]) if said else int(_EXPERIENCE(gold.experience_score))
    delta = _YEARS_DELTA(years)
    low, high = next(((low, high) for least, low, high in _YEARS_SCORES if years >= least), (20, 50))
    score, status = answer["score"], answer["status"]
    if score is None:
        return 0.0, max(-0.10, min(0.18, delta))
    fits = low <= score <= high
    agrees = not (status == SELECTED and score < 30 or status == REJECTED and score >= 95)
    if not fits and not agrees:
        return -1.0, max(-0.10, delta - 0.08)
    return float(fits and agrees), max(-0.10, min(0.18, delta))


def _education(answer: Fields, gold: Evaluation) -> float:
    return 0.0 if answer["score"] is None or answer["score"] >= 50 else -1.0


def _education_weight(answer: Fields, gold: Evaluation) -> float:
    return 0.0 if answer["score"] is None else _EDUCATION_DELTA(answer["score"])


def _explanation(answer: Fields, gold: Evaluation) -> float:
    said = answer["explanation"].lower()
    if len(said.strip()) < 10:
        return -1.0
    named = bool(gold.asked) and sum(skill in said for skill in gold.asked) >= 0.3 * len(gold.asked)
    checks = named + any(word in said for word in _CAREER) + any(word in said for word in _REASONS)
    return (-1.0, -1.0, 0.0, 1.0)[checks]
