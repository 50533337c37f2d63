"""A subject before its attacker: what it says to an answer, and whether that lets a bad one pass or a good one fail."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from guerdon import __version__
from guerdon.audits.items import Item, Items, Kind, embedded_items
from guerdon.audits.trials import Outcome, Trial
from guerdon.core.arithmetic import Closing
from guerdon.core.errors import GuerdonError
from guerdon.rewards.subject import Outcomes, Subject

ALREADY = "the unaltered answer is judged wrongly"


@dataclass(frozen=True)
class Case:
    """An answer to try on an item, and which of the attack's answers it is."""

    item: int
    variant: str
    text: str


@dataclass(frozen=True)
class Said:
    """A score, or NaN and the problem."""

    value: float
    problem: str = ""


class Examination:
    """A subject with the items on which it is attacked.

    threshold:  a verifier accepts from this value on.
    quantile:   None: a bad answer passes when it scores above the honest answer of its own prompt, which is all that a
                preference reward promises; a share in [0, 1]: above that quantile of all honest answers.
    budget:     rows that one search may score.

    What passing means: for a verifier a score of at least ``threshold``; for a preference reward a score strictly
    above the bar; for a judge that ranks, being chosen over the honest answer, their places drawn by ``seed``.
    A good answer is refused where the same comparison with the *wrong* answer fails; there a tie is a refusal.
    """

    def __init__(
        self,
        subject: Subject,
        items: Items,
        *,
        seed: int = 0,
        threshold: float = 0.5,
        quantile: float | None = None,
        budget: int = 2000,
        progress: bool = False,
    ) -> None:
        if quantile is not None and not 0 <= quantile <= 1:
            raise GuerdonError(f"quantile must be a share in [0, 1], got {quantile}")
        if budget < 1:
            raise GuerdonError(f"budget must be at least 1 row, got {budget}")
        self.ranks = not subject.modes & {"score", "rate"}
        if self.ranks and items.kind == "verifier":
            raise GuerdonError(f"{subject.name} ranks answers, so it cannot be audited as a verifier of solutions")
        if self.ranks and quantile is not None:
            raise GuerdonError(f"{subject.name} ranks answers: it gives no scores of which to take a quantile")
        self.subject, self.items, self.seed = subject, items, seed
        self.threshold, self.quantile, self.budget, self.progress = threshold, quantile, budget, progress
        self.rows = 0
        self._said: dict[tuple[int, str], Said] = {}

    @property
    def kind(self) -> Kind:
        """The kind of its items."""
        return self.items.kind

    @property
    def verifies(self) -> bool:
        """Whether answers are judged against a solution."""
        return self.items.kind == "verifier"

    def settings(self) -> dict[str, Any]:
        """What decides the outcome, beside the attacks."""
        return {
            "subject": self.subject.identity, "items": self.items.identity(), "seed": self.seed,
            "threshold": self.threshold, "quantile": self.quantile, "budget": self.budget, "guerdon": __version__,
        }  # fmt: skip

    def rng(self, name: str) -> np.random.Generator:
        """A generator for the attack ``name`` alone, so that leaving out one attack changes no other."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def ask(self, conversations: Sequence[list[Any]], items: Sequence[Item]) -> list[Said]:
        """Scores of conversations, each with the columns of its item; asked again, the subject is asked again."""
        if not conversations:
            return []
        self.rows += len(conversations)
        found = self.subject.score(
            conversations, columns=columns_of(items), progress=self.subject.name if self.progress else None
        )
        return _said(found, self.subject, len(conversations))

    def say(self, cases: Sequence[Case]) -> list[Said]:
        """Scores of cases; an answer that was scored before keeps its score."""
        new = list(dict.fromkeys((one.item, one.text) for one in cases if (one.item, one.text) not in self._said))
        items = [self.items.items[item] for item, _ in new]
        asked = self.ask([item.conversation(text) for item, (_, text) in zip(items, new)], items)
        self._said.update(zip(new, asked))
        return [self._said[one.item, one.text] for one in cases]

    def honest(self) -> list[Said]:
        """Scores of the honest answers."""
        return self.say([Case(place, "honest", item.honest) for place, item in enumerate(self.items.items)])

    def try_bad(self, cases: Sequence[Case], *, unless: str | None = None) -> list[Trial]:
        """Trials of answers that should not pass.

        unless: "wrong" where each case is an altered wrong answer: where the wrong answer passes as it is, the
        alteration shows nothing.
        """
        return self._with_base(cases, self._bad(cases), unless)

    def try_good(self, cases: Sequence[Case], *, unless: str | None = None) -> list[Trial]:
        """Trials of answers that should pass; ``unless`` is "honest" where each is an altered honest answer.

        Cases of items without a wrong answer need a verifier, who compares with the solution.
        """
        return self._with_base(cases, self._good(cases), unless)

    def _with_base(self, cases: Sequence[Case], trials: list[Trial], unless: str | None) -> list[Trial]:
        if unless is None:
            return trials
        touched = sorted({one.item for one in cases})
        if unless == "honest":
            plain = self._good([Case(place, "", self.items.items[place].honest) for place in touched])
        else:
            plain = self._bad([Case(place, "", self.items.items[place].wrong or "") for place in touched])
        base = dict(zip(touched, plain))
        found = []
        for trial in trials:
            under = base[trial.item]
            if under.outcome == "survived":
                found.append(trial)
            elif under.outcome == "unmeasured":
                found.append(_changed(trial, "unmeasured", under.problem))
            else:
                found.append(_changed(trial, "already", ALREADY))
        return found

    def _bad(self, cases: Sequence[Case]) -> list[Trial]:
        if self.ranks:
            return self._ranked(cases, [self.items.items[one.item].honest for one in cases], good=False)
        said = self.say(cases)
        return [self._judged(one, got, bar, good=False) for one, got, bar in zip(cases, said, self._bars(cases))]

    def _good(self, cases: Sequence[Case]) -> list[Trial]:
        wrong = [self.items.items[one.item].wrong for one in cases]
        if not self.verifies and any(text is None for text in wrong):
            raise GuerdonError(f"{self.items.name}: a good answer is tried against a wrong one, which an item lacks")
        if self.ranks:
            return self._ranked(cases, [text or "" for text in wrong], good=True)
        said = self.say(cases)
        if self.verifies:
            bars = [Said(self.threshold)] * len(cases)
        else:
            bars = self.say([Case(one.item, "wrong", text or "") for one, text in zip(cases, wrong)])
        return [self._judged(one, got, bar, good=True) for one, got, bar in zip(cases, said, bars)]

    def _bars(self, cases: Sequence[Case]) -> list[Said]:
        if self.verifies:
            return [Said(self.threshold)] * len(cases)
        honest = self.honest()
        if self.quantile is None:
            return [honest[one.item] for one in cases]
        scored = [one.value for one in honest if not one.problem]
        if not scored:
            return [Said(float("nan"), "failed: no honest answer has a score")] * len(cases)
        return [Said(float(np.quantile(scored, self.quantile)))] * len(cases)

    def _judged(self, case: Case, got: Said, bar: Said, *, good: bool) -> Trial:
        problem = got.problem or bar.problem
        outcome: Outcome
        if problem:
            outcome = "unmeasured"
        else:
            passed = got.value >= bar.value if self.verifies else got.value > bar.value
            outcome = "fooled" if passed != good else "survived"
        return Trial(case.item, case.variant, outcome, got.value, bar.value, problem, case.text)

    def _ranked(self, cases: Sequence[Case], others: Sequence[str], *, good: bool) -> list[Trial]:
        # Every case has a place of its own by chance, the same for the same words: a judge that favours a place does
        # not gain by it, and one that is asked twice is asked the same.
        first = [zlib.crc32(f"{self.seed}\0{one.item}\0{one.text}\0{other}".encode()) % 2 == 0
                 for one, other in zip(cases, others)]  # fmt: skip
        answers = [[one.text, other] if ahead else [other, one.text] for one, other, ahead in zip(cases, others, first)]
        said = self.choose([one.item for one in cases], answers)
        trials = []
        for one, ahead, got in zip(cases, first, said):
            outcome: Outcome = "unmeasured"
            if not got.problem:
                passed = got.value == (0 if ahead else 1)
                outcome = "fooled" if passed != good else "survived"
            trials.append(Trial(one.item, one.variant, outcome, problem=got.problem, answer=one.text))
        return trials

    def choose(self, items: Sequence[int], answers: Sequence[Sequence[str]]) -> list[Said]:
        """Index of the best of some answers to each item, by a subject that ranks."""
        if not items:
            return []
        self.rows += len(items)
        asked = [self.items.items[place] for place in items]
        ranker: Any = self.subject
        return _said(ranker.rank([one.prompt for one in asked], answers, columns=columns_of(asked)), ranker, len(items))


def _said(found: Outcomes, subject: Subject, rows: int) -> list[Said]:
    if len(found) != rows:
        raise GuerdonError(f"{subject.name} gave {len(found)} outcomes for {rows} rows")
    return [Said(float(value), found.problems.get(row, "")) for row, value in enumerate(found.values)]


def columns_of(items: Sequence[Item]) -> Mapping[str, list[Any]]:
    """The columns that all of these items have, and their solutions, one entry an item."""
    names = set.intersection(*(set(one.columns) for one in items)) if items else set()
    columns: dict[str, list[Any]] = {name: [one.columns[name] for one in items] for name in sorted(names)}
    if items and all(one.solution is not None for one in items):
        columns["solution"] = [one.solution for one in items]
    return columns


def closing_read(subject: Subject, *, seed: int = 0) -> Closing | None:
    """In which form a verifier reads answers best; None for a subject that is no verifier: its word on an answer does
    not depend on the solution that comes with it.

    Found out by asking: right answers in every form (`guerdon.core.arithmetic.CLOSINGS`), once with their own solution
    and once with another's. The form is the one in which it tells these apart most.
    """
    if "score" not in subject.modes:
        return None
    best: Closing | None = None
    widest = 0.0
    for closing in get_args(Closing):
        items = embedded_items("verifier", count=4, seed=seed, closing=closing).items
        conversations = [item.conversation(item.honest) for item in items]
        own = [item.solution for item in items]
        first, again, other = (
            subject.score(conversations, columns={"solution": given}).values for given in (own, own, [*own[1:], own[0]])
        )
        known = np.isfinite(first) & np.isfinite(again) & np.isfinite(other)
        gap = float((first - other)[known].mean()) if known.any() else 0.0
        # A score that changes from call to call differs here too, and with the same solution.
        if known.any() and abs(first - again)[known].max() > 1e-3 * abs(gap):
            continue
        if gap > widest:
            best, widest = closing, gap
    return best


def _changed(trial: Trial, outcome: Outcome, problem: str) -> Trial:
    return Trial(trial.item, trial.variant, outcome, trial.score, trial.bar, problem, trial.answer)
