"""What happened, in words computed from the figures: no sentence here is true of every run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from guerdon.report.record import Record, Series, mapping, number, rows
from guerdon.report.wording import listed, percent, plain, signed

# kind -> (symbol, words of the badge)
KINDS = {
    "improved": ("✓", "improved"),
    "mixed": ("±", "improved, with reservations"),
    "hacked": ("!", "hacked"),
    "worse": ("✗", "worse"),
    "unchanged": ("=", "no change"),
    "unfinished": ("…", "unfinished"),
    "measured": ("·", "measured"),
    "held": ("✓", "aims hold"),
    "undecided": ("?", "some aims open"),
    "partly": ("±", "some aims missed"),
    "missed": ("✗", "aims missed"),
}


@dataclass(frozen=True)
class Range:
    """An estimate and its interval; the ends are None where none was measured."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Finding:
    """``kind``: improved, mixed, hacked, worse, unchanged; unfinished; measured (nothing to decide by); or, where no
    held-out judge was read, held, undecided, partly or missed by the verdicts."""

    kind: str
    headline: str
    detail: list[str] = field(default_factory=list)

    @property
    def word(self) -> str:
        return KINDS[self.kind][1]

    @property
    def symbol(self) -> str:
        return KINDS[self.kind][0]


def measured(source: Any, key: str = "mean") -> Range | None:
    """The figure ``{key, low, high}`` of a mapping."""
    if not isinstance(source, Mapping) or (value := number(source.get(key))) is None:
        return None
    return Range(value, number(source.get("low")), number(source.get("high")))


def judged(arm: Mapping[str, Any], role: str, key: str = "mean") -> Range | None:
    """The average over an arm's detectors of one role.

    The ends are averaged too: at least as wide as the interval of the average, whatever the detectors' correlation.
    """
    found = [measured(d, key) for d in mapping(arm, "detectors").values() if mapping(d).get("role") == role]
    ranges = [one for one in found if one is not None]
    if not ranges:
        return None

    def average(values: list[float | None]) -> float | None:
        finite = [value for value in values if value is not None]
        return sum(finite) / len(finite) if finite and len(finite) == len(values) else None

    value = sum(one.value for one in ranges) / len(ranges)
    return Range(value, average([one.low for one in ranges]), average([one.high for one in ranges]))


def names_of(arm: Mapping[str, Any], role: str) -> list[str]:
    return [str(name) for name, d in mapping(arm, "detectors").items() if mapping(d).get("role") == role]


def change(before: Range | None, after: Range | None) -> str | None:
    """``up`` or ``down`` when the two intervals do not overlap, ``same`` when they do, None without intervals."""
    if before is None or after is None or None in (before.low, before.high, after.low, after.high):
        return None
    if after.low > before.high:  # type: ignore[operator]
        return "up"
    return "down" if after.high < before.low else "same"  # type: ignore[operator]


def find(record: Record) -> Finding:
    """The headline of a run.

    The held-out judge decides the direction, the training detectors whether it was hacked, and the fresh detector and
    the verdicts whether there are reservations. A move counts when the two intervals do not overlap.
    """
    if not record.finished:
        return _unfinished(record)
    verdicts = rows(record.summary, "verdicts")
    failed = [str(v.get("name")) for v in verdicts if v.get("holds") is False]
    if record.base is None or record.final is None or judged(record.arms[record.final], "held-out") is None:
        return _by_verdicts(record, verdicts, failed)
    base, final = record.arms[record.base], record.arms[record.final]
    held = change(judged(base, "held-out"), judged(final, "held-out"))
    training = change(judged(base, "training"), judged(final, "training"))
    fresh = change(measured(base.get("fresh"), "balanced_accuracy"), measured(final.get("fresh"), "balanced_accuracy"))
    easier = fresh == "up"
    if held == "up" and not failed and not easier:
        kind, headline = "improved", "The pictures look more like photographs, and a judge outside the training agrees."
    elif held == "up":
        apart = "a newly trained detector tells them apart more easily"
        reservation = apart if easier else _count(len(failed), verdicts)
        kind, headline = "mixed", f"The pictures look more like photographs to an outside judge, but {reservation}."
    elif training == "up":
        verb = "finds the pictures less real than before" if held == "down" else "sees no gain"
        kind = "hacked"
        headline = f"The reward was hacked: it won over the detectors used in training, while an outside judge {verb}."
    elif held == "down":
        kind, headline = "worse", "The pictures look less like photographs to a judge outside the training."
    elif held == "same":
        kind, headline = "unchanged", "No change that can be measured: an outside judge sees the pictures as before."
    else:
        kind, headline = "measured", "Measured without intervals: whether the change is real cannot be said."
    return Finding(kind, headline, [*_evidence(record, base, final), *_stopping(record), *_tally(verdicts, failed)])


def _count(failed: int, verdicts: list[dict[str, Any]]) -> str:
    return f"{failed} of the {len(verdicts)} aims {'was' if failed == 1 else 'were'} missed"


def _evidence(record: Record, base: Mapping[str, Any], final: Mapping[str, Any]) -> list[str]:
    detail = []
    for role, who in (("held-out", "which decided nothing,"), ("training", "the reward itself,")):
        before, after = judged(base, role), judged(final, role)
        if before is None or after is None:
            continue
        names = names_of(final, role)
        subject = {"held-out": "The held-out judge", "training": "The training detector"}[role]
        subject += f"{'s' if len(names) > 1 else ''} ({listed(names)}), {who}"
        verb = "rate" if len(names) > 1 else "rates"
        real = judged(record.reference, role) or judged(_with_roles(record.reference, final), role)
        yardstick = f"; real photographs get {plain(real.value)}" if real else ""
        detail.append(
            f"{subject} {verb} the pictures {plain(after.value)} on its 0–1 scale of looking real, "
            f"{plain(before.value)} before{yardstick}."
        )
    before, after = (measured(arm.get("fresh"), "balanced_accuracy") for arm in (base, final))
    if before and after:
        detail.append(
            f"A detector trained from scratch afterwards is right about {percent(after.value)} of the pictures, "
            f"against {percent(before.value)} before training (50% is guessing)."
        )
    return detail


def _with_roles(reference: Mapping[str, Any], arm: Mapping[str, Any]) -> dict[str, Any]:
    """The reference's detectors with the roles they have in ``arm``: real photographs are scored, not trained on."""
    roles = {name: mapping(detector).get("role") for name, detector in mapping(arm, "detectors").items()}
    detectors = mapping(reference, "detectors")
    return {"detectors": {name: {**mapping(detectors, name), "role": roles.get(name)} for name in detectors}}


def real_detectors(record: Record) -> dict[str, dict[str, Any]]:
    """The real photographs' detector scores with the detectors' roles."""
    arm = record.arms.get(record.final or record.base or "", {})
    return _with_roles(record.reference, arm)["detectors"]


def _stopping(record: Record) -> list[str]:
    stopped = mapping(record.summary, "stopped")
    step, chosen = number(stopped.get("step")), number(stopped.get("chosen_step"))
    if step is None and chosen is None:
        return []
    reason = str(stopped.get("reason") or "").strip().rstrip(".")
    parts = []
    if step is not None:
        parts.append(f"Training was stopped at step {step:.0f}" + (f" ({reason})" if reason else ""))
    if chosen is not None:
        parts.append(f"the policy of step {chosen:.0f} was kept")
    text = ", and ".join(parts) + "."
    return [text[0].upper() + text[1:]]


def _tally(verdicts: list[dict[str, Any]], failed: list[str]) -> list[str]:
    if not verdicts:
        return []
    held, undecided = (sum(v.get("holds") is state for v in verdicts) for state in (True, None))
    text = f"{held} of {len(verdicts)} aims hold{'s' if held == 1 else ''}"
    text += f", {undecided} could not be decided" if undecided else ""
    return [text + (f". Missed: {'; '.join(failed)}." if failed else ".")]


def _by_verdicts(record: Record, verdicts: list[dict[str, Any]], failed: list[str]) -> Finding:
    """For a system without a held-out judge: the verdicts alone."""
    held = sum(v.get("holds") is True for v in verdicts)
    detail = [*_stopping(record), *_tally(verdicts, failed)]
    if not verdicts or not (held or failed):
        return Finding("measured", "The run is complete; it set no aim that these figures could decide.", detail)
    if not failed:
        whole = held == len(verdicts)
        headline = "Every aim of this run holds." if whole else "Every aim that could be decided holds."
        return Finding("held" if whole else "undecided", headline, detail)
    missed = _count(len(failed), verdicts)
    return Finding("partly" if held else "missed", f"{missed[0].upper()}{missed[1:]}.", detail)


def _unfinished(record: Record) -> Finding:
    if not record.stages:
        return Finding("unfinished", "This run has not measured anything yet.", [])
    stage = list(record.stages)[-1]
    last = max(series.steps[-1] for series in record.stages[stage].values()) if record.stages[stage] else 0
    detail = [f"The last measured step is step {last} of the {stage} stage; the final measurements are not there."]
    told = watch_sentence(record, stage)
    return Finding("unfinished", "This run has not finished: what follows is a view on the way.", detail + told)


def reward_series(record: Record, stage: str) -> list[Series]:
    """The training rewards on the judges' scale: the training detectors where they are known, else all parts."""
    series = record.stages.get(stage, {})
    rewards = {key.removeprefix("reward/"): one for key, one in series.items() if key.startswith("reward/")}
    rewarded = record.rewarded
    known = [one for name, one in rewards.items() if name in rewarded]
    if known:
        return known
    bounded = [one for one in rewards.values() if min(one.values) >= 0 and max(one.values) <= 1]
    judges = judge_series(record, stage, "held-out") + judge_series(record, stage, "validation")
    return bounded if judges and bounded else list(rewards.values())


def judge_series(record: Record, stage: str, role: str) -> list[Series]:
    """The watch's measurements ``judge/<name>/<role>`` of a stage."""
    found = record.stages.get(stage, {}).items()
    return [one for key, one in found if key.startswith("judge/") and key.endswith(f"/{role}")]


def stopped_in(record: Record, stage: str) -> dict[str, Any]:
    """Where the stage stopped early and what it kept; empty for a stage that was not stopped."""
    stopped = mapping(record.summary, "stopped")
    names = list(record.stages)
    where = stopped.get("stage") or ("generator" if "generator" in names else names[-1] if names else None)
    return stopped if where == stage else {}


def watch_sentence(record: Record, stage: str) -> list[str]:
    """What the curves of a stage say: training rewards against the held-out judge, up to the kept step and after it."""
    rewards, held = reward_series(record, stage), judge_series(record, stage, "held-out")
    if not rewards:
        return []
    lines = rewards + held
    first, last = min(one.steps[0] for one in lines), max(one.steps[-1] for one in lines)
    chosen = number(stopped_in(record, stage).get("chosen_step"))
    kept = last if chosen is None else int(chosen)

    def level(group: list[Series], step: int) -> float:
        return sum(one.at(step) for one in group) / len(group)

    at = f"step {first} to {'the kept step' if chosen is not None else 'step'} {kept}"
    start, end = level(rewards, first), level(rewards, kept)
    text = f"From {at} the training reward went from {plain(start)} to {plain(end)}"
    if not held:
        return [text + "."]
    outside, then = level(held, first), level(held, kept)
    text += f" and the held-out judge from {plain(outside)} to {plain(then)}."
    out = [text]
    if chosen is not None and last > kept:
        later, gone = level(held, last), level(rewards, last)
        out.append(
            f"By step {last} the held-out judge stood at {plain(later)} ({signed(later - then)}) and the training "
            f"reward at {plain(gone)} ({signed(gone - end)}): those steps were thrown away."
        )
    elif end - start > 0.05 and then - outside < 0.25 * (end - start):
        out.append("The reward rises and the outside judge does not follow: this is what hacking looks like.")
    return out
