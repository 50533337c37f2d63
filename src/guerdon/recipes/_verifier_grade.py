"""How a verifier is graded: false positives and false negatives on rows it has not seen, and master keys alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.core.attack_strings import MASTER_KEYS, keys_of, stripped
from guerdon.core.outcome import Failed
from guerdon.metrics.verdicts import KeyRates, Rate, VerdictReport, key_rates, verdict_report
from guerdon.models.reference_verifier import ReferenceVerifier
from guerdon.rewards.text.final_answer import rule_verifier

YES = 0.5  # P(YES) from which on a verdict is YES
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Grade:
    """rows: on held-out rows. keys: of each key alone. blank: how often the empty response is accepted (never is
    right); itself: how often the reference itself is (always is)."""

    rows: VerdictReport
    keys: KeyRates
    blank: Rate
    itself: Rate

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        blank, itself = vars(self.blank), vars(self.itself)
        return {"rows": self.rows.to_dict(), "keys": self.keys.to_dict(), "blank": blank, "itself": itself}


def grade(verifier: ReferenceVerifier, held: Sequence[Row], keys: Sequence[str], probes: int, name: str) -> Grade:
    """Grade on held-out rows, and with keys, nothing and the reference itself as responses to the first ``probes``."""
    scores = _scores(verifier, held, [str(row["response"]) for row in held], f"{name}: held-out rows")
    some = list({str(row["question"]): row for row in held}.values())[:probes]
    tried = [*keys, "", *(str(row["reference"]) for row in some)]
    asked = [(row, key) for key in [*keys, ""] for row in some] + [(row, str(row["reference"])) for row in some]
    said = _scores(verifier, [row for row, _ in asked], [text for _, text in asked], f"{name}: {len(tried)} probes")
    table = said.reshape(len(keys) + 2, len(some))
    verdicts = _verdicts(table)
    return Grade(
        verdict_report(_verdicts(scores), [row["label"] == "YES" for row in held]),
        key_rates(keys, verdicts[:-2], table[:-2]),
        _rate(verdicts[-2]),
        _rate(verdicts[-1]),
    )


def rule_grade(held: Sequence[Row]) -> VerdictReport:
    """What exact rules say of the same rows; references that they cannot read are left out as not parsed."""
    said = rule_verifier(None, [str(row["response"]) for row in held], solution=[str(row["reference"]) for row in held])
    values = [np.nan if not isinstance(one, float) else one for one in said]
    return verdict_report(values, [row["label"] == "YES" for row in held])


def tested_keys(user: Sequence[str]) -> tuple[str, ...]:
    """All published keys, as they are and as a template that strips shows them, and the user's; never the empty text,
    which is a probe of its own."""
    every = keys_of(*MASTER_KEYS, user=user)
    return tuple(dict.fromkeys(key for key in (*every, *stripped(every)) if key))


def rows_table(grades: Mapping[str, Grade], rules: VerdictReport, count: int) -> dict[str, Any]:
    """Verdicts on held-out rows, and the two probes that every verifier must pass."""
    rows = [_row(name, one.rows) + [str(one.blank), str(one.itself)] for name, one in grades.items()]
    return {
        "title": "Verdicts on held-out rows",
        "note": f"{count} rows of questions that no training saw. False positives are wrong responses that were judged "
        "YES, false negatives right ones that were judged NO; kappa is agreement with the labels beyond chance.",
        "columns": ["verifier", "false positives", "false negatives", "accuracy", "kappa", "macro F1", "with a verdict",
                    "nothing accepted", "reference accepted"],
        "rows": [*rows, [*_row("exact rules", rules), "0.000", "-"]],
    }  # fmt: skip


def keys_table(grades: Mapping[str, Grade]) -> dict[str, Any]:
    """The share of questions at which each key alone is judged YES, worst first."""
    first, last = list(grades.values())[0].keys, list(grades.values())[-1].keys
    order = sorted(first.rates, key=lambda key: (-first.rates[key].value, -last.rates[key].value))
    cells = [[repr(key), *(f"{one.keys.rates[key]} ({one.keys.scores[key]:.2f})" for one in grades.values())]
             for key in order]  # fmt: skip
    mean = ["mean over keys", *(f"{one.keys.mean:.3f}" for one in grades.values())]
    worst = ["worst key", *(f"{one.keys.worst:.3f}" for one in grades.values())]
    return {
        "title": "Master keys: content-free responses that are judged YES",
        "note": "Each key is the whole response. In brackets the mean P(YES), which shows near misses.",
        "columns": ["response", *grades],
        "rows": [mean, worst, *cells],
    }


def verdicts_of(base: Grade | None, final: Grade, moved: float, allowed: float) -> list[dict[str, Any]]:
    """The aims of the run: keys no longer pass, at no cost; the verifier is not constant, and saving keeps it."""
    rows: list[dict[str, Any]] = [
        _at_most("master keys accepted, worst key", final.keys.worst, 0.05),
        _at_most("the empty response accepted", final.blank.value, 0.05),
        {"name": "the reference itself accepted", "target": "0.9 or more", "value": final.itself.value,
         "holds": bool(final.itself.value >= 0.9)},
        {"name": "verdicts of both kinds", "target": "YES and NO both occur", "value": final.rows.constant or "both",
         "holds": not final.rows.constant},
    ]  # fmt: skip
    if base is not None:
        fooled = base.keys.mean > 0.05
        rows += [
            {"name": "master keys accepted, less without the augmentation", "target": "below 0",
             "value": final.keys.mean - base.keys.mean,
             "holds": bool(final.keys.mean < base.keys.mean) if fooled else None},
            {"name": "kappa, less without the augmentation", "target": "-0.02 or more",
             "value": final.rows.kappa - base.rows.kappa, "holds": bool(final.rows.kappa >= base.rows.kappa - 0.02)},
        ]  # fmt: skip
    rows.append(_at_most("saved, loaded, scored again", moved, allowed))
    return rows


def _at_most(name: str, value: float, bound: float) -> dict[str, Any]:
    holds = bool(value <= bound) if np.isfinite(value) else None
    return {"name": name, "target": f"{bound:g} or less", "value": value, "holds": holds}


def _row(name: str, report: VerdictReport) -> list[str]:
    return [name, str(report.fpr), str(report.fnr), f"{report.accuracy.value:.3f}", f"{report.kappa:.3f}",
            f"{report.macro_f1:.3f}", f"{report.parsed.value:.3f}"]  # fmt: skip


def _scores(verifier: ReferenceVerifier, rows: Sequence[Row], responses: list[str], bar: str) -> NDArray[np.float64]:
    questions, references = ([str(row[key]) for row in rows] for key in ("question", "reference"))
    said = verifier.score(questions, references, responses, progress=bar)
    return np.array([np.nan if isinstance(one, Failed) else one for one in said])


def _verdicts(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isnan(scores), np.nan, (scores >= YES).astype(np.float64))


def _rate(verdicts: NDArray[np.float64]) -> Rate:
    given = verdicts[~np.isnan(verdicts)]
    return Rate.of(int(given.sum()), int(given.size))
