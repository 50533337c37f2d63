"""All attacks on one subject, one after the other; what is finished is kept, so that a stopped audit goes on."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guerdon.audits import (
    constant_policies,
    crossed_prompts,
    empty_answers,
    injection,
    invariance,
    keys,
    perturbations,
    position,
    search,
    unicode,
    verifier_errors,
)
from guerdon.audits.attack import Attack
from guerdon.audits.examination import Examination
from guerdon.audits.result import AuditResult
from guerdon.audits.trials import AttackResult, Rate, summarise
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.preferences import text_of
from guerdon.core.progress import progress as progress_bar

ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        verifier_errors.HONEST_ANSWERS,
        verifier_errors.WRONG_ANSWERS,
        verifier_errors.EQUIVALENT_FORMS,
        verifier_errors.NEAR_MISSES,
        empty_answers.EMPTY_ANSWERS,
        empty_answers.ONE_TOKEN_ANSWERS,
        empty_answers.REFUSALS,
        keys.MASTER_KEY_ANSWERS,
        keys.KEYS_BEFORE_WRONG,
        injection.INJECTION_ANSWERS,
        injection.INJECTION_AFTER_WRONG,
        perturbations.LENGTH,
        perturbations.FORMAT,
        perturbations.SYCOPHANCY,
        perturbations.FORM_OF_HONEST,
        crossed_prompts.CROSSED_ANSWERS,
        crossed_prompts.PROMPT_IGNORED,
        constant_policies.CONSTANT_POLICIES,
        unicode.UNICODE_HONEST,
        unicode.UNICODE_WRONG,
        position.POSITION,
        invariance.DETERMINISM,
        invariance.BATCH_INVARIANCE,
        search.RANDOM_SEARCH,
        search.GREEDY_SEARCH,
    )
}
"""Every attack by name, in the order in which they are tried: cheap and telling ones first."""
_NOTHING = Rate("all", float("nan"), float("nan"), float("nan"), 0, 0, 0)


def chosen_attacks(names: Sequence[str] | None) -> list[Attack]:
    """Attacks by name, or by family; all for None. Raises GuerdonError naming the nearest one."""
    if names is None:
        return list(ATTACKS.values())
    families = {attack.family for attack in ATTACKS.values()}
    for name in names:
        if name not in ATTACKS and name not in families:
            raise unknown("attack", name, [*ATTACKS, *families])
    return [attack for attack in ATTACKS.values() if attack.name in names or attack.family in names]


def run_battery(
    examination: Examination, *, attacks: Sequence[str] | None = None, out: Path | None = None, progress: bool = False
) -> AuditResult:
    """Attack a subject; every attack that does not apply says why.

    attacks:  names or families; default all.
    out:      folder; each attack's result is kept in ``out/attacks/NAME.json``, and taken from there the next time.

    Raises GuerdonError for an unknown attack, and where ``out`` holds results of another subject, items or settings.
    """
    chosen = chosen_attacks(attacks)
    settings = examination.settings()
    started = time.monotonic()
    results = []
    bar = progress_bar(chosen, "audit") if progress else None
    for attack in chosen if bar is None else bar:
        if bar is not None:
            bar.show(attack=attack.name)
        path = None if out is None else out / "attacks" / f"{attack.name}.json"
        stored = _stored(path, attack, settings)
        if stored is None:
            stored = _tried(attack, examination)
            if path is not None:
                _store(path, attack, settings, stored)
        results.append(stored)
    subject, items = examination.subject, examination.items
    return AuditResult(
        subject=subject.name,
        identity=subject.identity,
        kind=items.kind,
        ranks=examination.ranks,
        data=items.name,
        items=len(items),
        left_out=dict(items.left_out),
        settings=settings,
        attacks=tuple(results),
        seconds=time.monotonic() - started,
    )


def _tried(attack: Attack, examination: Examination) -> AttackResult:
    told: dict[str, Any] = {
        "name": attack.name, "family": attack.family, "error": attack.error, "about": attack.about
    }  # fmt: skip
    reason = attack.unfit(examination)
    if reason:
        return AttackResult(**told, rate=_NOTHING, reason=reason)
    started, before = time.monotonic(), examination.rows
    found = attack.run(examination)
    if not found.trials:
        # Such as a search whose answer holds every solution: tried, and nothing to count.
        left = ", ".join(f"{why} ({number})" for why, number in found.left_out.items())
        return AttackResult(**told, rate=_NOTHING, reason=f"no case was left: {left or 'no item fits'}")
    rate, variants, examples = summarise(found.trials)
    measures = dict(found.measures)
    ties = [trial.score == trial.bar for trial in found.trials if trial.outcome == "survived"]
    if any(ties) and attack.error == "false positive" and not examination.verifies:
        measures["tied with the honest answer"] = sum(ties) / (rate.fooled + rate.survived)
    asked = {trial.item: text_of(examination.items.items[trial.item].prompt) for trial in examples}
    return AttackResult(
        **told, rate=rate, variants=tuple(variants), examples=tuple(examples), prompts=asked,
        measures=measures, left_out=dict(found.left_out), curve=tuple(found.curve),
        rows=examination.rows - before, seconds=time.monotonic() - started,
    )  # fmt: skip


def _stored(path: Path | None, attack: Attack, settings: Mapping[str, Any]) -> AttackResult | None:
    if path is None or not path.exists():
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        same, version, told = held["settings"], held["version"], held["result"]
    except (ValueError, KeyError, TypeError):
        raise GuerdonError(f"{path} is no result of an attack; remove it, or give another folder") from None
    for name, value in settings.items():
        if same.get(name) != value:
            raise GuerdonError(
                f"{path} is of another audit ({name} {same.get(name)!r}, not {value!r}); give another folder"
            )
    return AttackResult.from_dict(told) if version == attack.version else None


def _store(path: Path, attack: Attack, settings: Mapping[str, Any], result: AttackResult) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(
        _finite({"settings": settings, "version": attack.version, "result": result.to_dict()}),
        ensure_ascii=False, allow_nan=False, indent=1,
    )  # fmt: skip
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    os.replace(partial, path)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
