"""Made applications for a job, with the decision that a plain rule takes, for policies that write evaluations.

The rule: selected where at least half of the asked skills are there and the years suffice. No name, age or other mark
of a person occurs. What is learnt on them says nothing on the worth of a decision about people.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

__all__ = ["application"]

SKILLS = ("python", "sql", "excel", "java", "statistics", "writing", "linux", "design")
_CARELESS = 0.35


def application(rng: np.random.Generator) -> tuple[dict[str, Any], str]:
    """(a row of "prompt" and the gold columns of `guerdon.rewards.text.resume`; a careless evaluation of it)."""
    asked = [str(one) for one in rng.choice(SKILLS, int(rng.integers(2, 5)), replace=False)]
    has = [str(one) for one in rng.choice(SKILLS, int(rng.integers(3, 7)), replace=False)]
    needed, years = int(rng.integers(1, 5)), int(rng.integers(0, 9))
    both = [one for one in asked if one in has]
    selected = 2 * len(both) >= len(asked) and years >= needed
    score = round(70 * len(both) / len(asked) + 30 * min(1.0, years / needed))
    told = (
        f"The job asks for {', '.join(asked)} and {needed} years. "
        f"The candidate has {', '.join(has)} and {years} years. Evaluate."
    )
    gold = {
        "overall_score": score, "skills_match": {"present_skills": has},
        "experience_relevance": {"score": min(100, 10 * years), "explanation": f"{years} years"},
    }  # fmt: skip
    row = {
        "prompt": [{"role": "user", "content": told}], "status": "SELECTED" if selected else "REJECTED",
        "evaluation_json": json.dumps(gold), "job_description_skills": ", ".join(asked),
    }  # fmt: skip
    said_score, said_skills, said = score, both, selected
    if rng.random() < _CARELESS:
        said_score, said_skills, said = int(rng.integers(0, 101)), has, bool(rng.random() < 0.5)
    answer = {"score": said_score, "status": "SELECTED" if said else "REJECTED", "skills": said_skills}
    return row, json.dumps(answer)
