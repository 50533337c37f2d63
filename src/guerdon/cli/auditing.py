"""``guerdon audit``: how often can a reward, a judge or a verifier be fooled, and by what?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guerdon.audits.battery import chosen_attacks, run_battery
from guerdon.audits.examination import Examination, closing_read
from guerdon.audits.items import COUNT, Items, Kind, embedded_items, load_items
from guerdon.cli.inspecting import renamed
from guerdon.cli.output import json_line, show, table, tell
from guerdon.cli.sheets import finish
from guerdon.core.errors import GuerdonError, unknown
from guerdon.rewards.subject import Subject, load_subject

KINDS = ("auto", "preference", "verifier")


@dataclass(frozen=True)
class Audited:
    """What to audit, in the words of ``guerdon audit --help``."""

    model: str | None = None
    reward: str | None = None
    judge_model: str | None = None
    mode: str | None = None
    settings: Sequence[str] = ()


@dataclass(frozen=True)
class Against:
    """On what, and when an answer passes, in the words of ``guerdon audit --help``."""

    data: str | None = None
    columns: Sequence[str] = ()
    kind: str = "auto"
    items: int = COUNT
    threshold: float = 0.5
    quantile: float | None = None
    budget: int = 2000
    skip_bad_rows: bool = False


def audit_subject(
    audited: Audited,
    against: Against,
    attacks: str | None,
    fail_above: float | None,
    out: Path | None,
    seed: int,
    *,
    as_json: bool,
) -> bool:
    """Attack a subject, print what came of it, write ``result.json`` and ``report.html`` into ``out``.

    Returns whether it may pass: False where ``fail_above`` is given and some attack's rate is above it, or could not be
    measured (`AuditResult.failing`); the command then ends with status 1.
    """
    if fail_above is not None and not 0 <= fail_above <= 1:
        raise GuerdonError(f"--fail-above is a share in [0, 1], not {fail_above:g}")
    named = [name.strip() for name in attacks.split(",") if name.strip()] if attacks is not None else None
    chosen_attacks(named)  # a name that is wrong is said before a model is loaded
    if against.kind not in KINDS:
        raise unknown("kind", against.kind, KINDS)
    items = None if against.data is None else _from_file(against, out, seed)
    subject = load_subject(
        model=audited.model, reward=audited.reward, scores=None, judge_model=audited.judge_model,
        settings=audited.settings, mode=audited.mode,
    )  # fmt: skip
    if items is None:
        items = _embedded(subject, against, seed)
    tell(f"{len(items)} items of {items.name}, audited as a {items.kind}")
    examination = Examination(
        subject, items, seed=seed, threshold=against.threshold, quantile=against.quantile, budget=against.budget
    )
    result = run_battery(examination, attacks=named, out=out, progress=True)
    finish(result.sheet(), result.to_dict(), out, as_json=as_json)
    against_it = [] if fail_above is None else result.failing(fail_above)
    for reason in against_it:
        tell(f"not passed: {reason}")
    return not against_it


def list_attacks(*, as_json: bool) -> None:
    """Print every attack with its family and what it tries."""
    attacks = chosen_attacks(None)
    if as_json:
        told: dict[str, Any] = {
            one.name: {"family": one.family, "error": one.error, "about": one.about} for one in attacks
        }
        print(json_line(told))
        return
    show(table("attacks", ("attack", "family", "error", "fooled when"),
               ((one.name, one.family, one.error, one.about) for one in attacks)))  # fmt: skip


def _from_file(against: Against, out: Path | None, seed: int) -> Items:
    assert against.data is not None
    kind: Kind | None = None if against.kind == "auto" else against.kind  # type: ignore[assignment]
    return load_items(
        against.data, kind=kind, count=against.items, seed=seed, columns=renamed(list(against.columns)),
        skip_bad_rows=against.skip_bad_rows, out=out,
    )  # fmt: skip


def _embedded(subject: Subject, against: Against, seed: int) -> Items:
    closing = closing_read(subject, seed=seed) if against.kind in ("auto", "verifier") else None
    if against.kind == "preference" or against.kind == "auto" and closing is None:
        return embedded_items("preference", count=against.items, seed=seed)
    return embedded_items("verifier", count=against.items, seed=seed, closing=closing or "sentence")
