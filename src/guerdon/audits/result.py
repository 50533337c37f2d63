"""What an audit found: rates of every attack, false positives beside false negatives, and what to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guerdon.audits.trials import AttackResult, Error, Rate, Trial
from guerdon.core.sheet import Bar, Bars, Example, Examples, Line, Lines, Part, Sheet, Table

MOST_FAILURES = 0.1
"""Above this share of failures among its trials an attack has not been withstood: nobody knows what it would have done.
The same share stops a run whose reward fails (`guerdon.core.scorer.Scorer`)."""
SHOWN = 640
"""Characters of a text in an example."""
EXAMPLES = 3
_TITLES: dict[Error, str] = {
    "false positive": "False positives: bad answers that passed",
    "false negative": "False negatives: good answers that were refused",
    "instability": "Instability: one answer, two judgements",
}
_COLUMNS = (
    "attack",
    "rate",
    "low",
    "high",
    "worked",
    "withstood",
    "unmeasured",
    "already wrong",
    "worst variant",
    "its rate",
)


@dataclass(frozen=True)
class AuditResult:
    """An audit of one subject; see `guerdon.audits.examination.Examination` for what passing and refusing mean."""

    subject: str
    identity: str
    kind: str
    ranks: bool
    data: str
    items: int
    left_out: Mapping[str, int]
    settings: Mapping[str, Any]
    attacks: Sequence[AttackResult]
    seconds: float

    def __getitem__(self, name: str) -> AttackResult:
        return next(one for one in self.attacks if one.name == name)

    def tried(self, error: Error | None = None) -> list[AttackResult]:
        """Attacks that apply to this subject, of one kind of error or all."""
        return [one for one in self.attacks if not one.reason and error in (None, one.error)]

    def failing(self, limit: float) -> list[str]:
        """What speaks against this subject, a sentence an attack: a rate above ``limit``, or too little measured.

        Of false positives the worst variant counts, since who attacks may choose; of false negatives and instability
        the rate over all variants, since those come by themselves.
        """
        found = []
        for one in self.tried():
            counted = one.worst if one.error == "false positive" else one.rate
            trials = one.rate.fooled + one.rate.survived + one.failures
            if not one.rate.fooled + one.rate.survived:
                found.append(f"{one.name}: nothing could be measured")
            elif one.failures > MOST_FAILURES * trials:
                found.append(f"{one.name}: the subject failed on {one.failures} of {trials} answers")
            elif counted.value > limit:
                which = f" ({counted.name})" if counted is not one.rate else ""
                found.append(f"{one.name}{which}: {counted.value:.3f} is above {limit:g}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "subject": self.subject,
            "identity": self.identity,
            "kind": "ranking" if self.ranks else self.kind,
            "data": self.data,
            "items": self.items,
            "left_out": dict(self.left_out),
            "settings": dict(self.settings),
            "seconds": self.seconds,
            "attacks": {one.name: one.to_dict() for one in self.attacks},
        }

    # -- to look at

    def sheet(self) -> Sheet:
        """Tables of rates, the variants that worked best, figures, and answers that passed."""
        parts: list[Part] = [
            Table(title, _COLUMNS, [_row(one) for one in self.tried(error)]) for error, title in _TITLES.items()
        ]
        for error, title in _TITLES.items():
            bars = [_bar(one) for one in self.tried(error) if one.rate.value == one.rate.value]
            parts += [Bars(f"Rates. {title}", bars)] if bars else []
        lines = [
            Line(one.name, [x for x, _ in one.curve], [y for _, y in one.curve]) for one in self.tried() if one.curve
        ]
        if lines:
            parts.append(Lines("Search: the best answer so far", lines, "rows spent", "worth: 0.5 at the bar"))
        shown = [self._example(one, trial) for one in self.tried() for trial in one.examples[:EXAMPLES]]
        parts += [Examples("Where it worked", shown)] if shown else []
        parts += [
            self._variants(),
            self._measures(),
            Table("Not tried", ("attack", "why"), [(one.name, one.reason) for one in self.attacks if one.reason]),
            Table("What was tried", ("attack", "family", "works when"),
                  [(one.name, one.family, one.about) for one in self.tried()]),
        ]  # fmt: skip
        kept = [part for part in parts if not (isinstance(part, Table) and not part.rows)]
        return Sheet("audit", f"Audit of {self.subject}", self.lead(), self._facts(), kept, self._notes())

    def lead(self) -> str:
        """What was found, in a sentence."""
        positives, negatives = self.tried("false positive"), self.tried("false negative")
        told = []
        measured = [one for one in positives if one.worst.fooled]
        if measured:
            worst = max(measured, key=lambda one: (one.worst.value, one.worst.low))
            told.append(
                f"{self.subject} let bad answers pass in {len(measured)} of {len(positives)} attacks, at worst "
                f"{_share(worst.worst)} of the time ({worst.name}: {worst.worst.name})"
            )
        elif positives:
            told.append(f"{self.subject} let no bad answer pass in {len(positives)} attacks")
        refusing = [one for one in negatives if one.rate.fooled]
        if refusing:
            worst = max(refusing, key=lambda one: one.rate.value)
            told.append(f"it refused good answers in {len(refusing)} of {len(negatives)} ways, at worst "
                        f"{_share(worst.rate)} of the time ({worst.name})")  # fmt: skip
        elif negatives:
            told.append("it refused no good answer")
        unstable = [one.name for one in self.tried("instability") if one.rate.fooled]
        if unstable:
            told.append(f"it judged the same answer in two ways ({', '.join(unstable)})")
        failed = sum(one.failures for one in self.tried())
        if failed:
            told.append(f"it failed on {failed} answers, which count as neither")
        if not told:
            return f"No attack applies to {self.subject}."
        return "; ".join(told) + "."

    def _facts(self) -> dict[str, str]:
        facts = {"subject": self.identity, "items": f"{self.items} of {self.data} ({self.kind})"}
        if self.left_out:
            facts["rows left out"] = ", ".join(f"{why}: {number}" for why, number in self.left_out.items())
        facts["passing means"] = self._criterion()
        facts["seed"] = str(self.settings.get("seed"))
        facts["rows scored"] = f"{sum(one.rows for one in self.attacks):,}"
        facts["seconds"] = f"{sum(one.seconds for one in self.attacks):.1f}"
        return facts

    def _criterion(self) -> str:
        if self.kind == "verifier":
            return f"a score of at least {self.settings['threshold']:g}"
        if self.ranks:
            return "chosen over the honest answer"
        if self.settings["quantile"] is not None:
            return f"a score above the {self.settings['quantile']:g} quantile of all honest answers"
        return "a score above the honest answer of the same prompt"

    def _notes(self) -> list[str]:
        notes = [
            "Intervals are Wilson's at 95% and count prompts, not trials: trials on one prompt are not independent. "
            "A worst variant is the worst of several, so its rate is somewhat too high on new prompts.",
            "Unmeasured trials have no score (failed, unparsable, or the subject does not apply): they count as "
            "neither. Where an answer is altered, only items count on which the subject judges the unaltered one well.",
        ]
        honest = next((one for one in self.tried() if one.name == "honest"), None)
        if honest is not None and honest.rate.value > 0.5:
            notes.insert(0, "The subject refuses more than half of the good answers as they are: that bad ones do not "
                            "pass either is then no merit.")  # fmt: skip
        return notes

    def _variants(self) -> Table:
        rows: list[list[Any]] = []
        for one in self.tried():
            if len(one.variants) > 1:
                rows += [
                    [one.name, rate.name, rate.value, rate.low, rate.high, rate.fooled, rate.fooled + rate.survived]
                    for rate in one.variants[:EXAMPLES]
                    if rate.fooled
                ]
        columns = ("attack", "variant", "rate", "low", "high", "worked", "measured")
        return Table("The variants that worked best, three an attack", columns, rows)

    def _measures(self) -> Table:
        rows = [(one.name, name, float(value)) for one in self.tried() for name, value in one.measures.items()]
        return Table("What else was measured", ("attack", "measure", "value"), rows)

    def _example(self, attack: AttackResult, trial: Trial) -> Example:
        fields = {
            "prompt": _shown(attack.prompts.get(trial.item, "")),
            "answer": _shown(trial.answer) if trial.answer.strip() else f"{trial.answer!r} (nothing to see)",
        }
        if trial.score == trial.score:
            fields["score"] = f"{trial.score:.4g}"
        if trial.bar == trial.bar:
            fields["to compare with"] = f"{trial.bar:.4g}"
        return Example(f"{attack.name}: {trial.variant}", fields)


def _row(one: AttackResult) -> list[Any]:
    rate, worst = one.rate, one.worst
    unmeasured = ", ".join(f"{kind}: {count}" for kind, count in rate.unmeasured.items()) or 0
    several = len(one.variants) > 1
    return [
        one.name, rate.value, rate.low, rate.high, rate.fooled, rate.survived, unmeasured, rate.already,
        worst.name if several and worst.fooled else None, worst.value if several and worst.fooled else None,
    ]  # fmt: skip


def _bar(one: AttackResult) -> Bar:
    return Bar(one.name, one.rate.value, one.rate.low, one.rate.high)


def _share(rate: Rate) -> str:
    return f"{100 * rate.value:.1f}% [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ... ({len(text)} characters)"
