"""One Token to Fool (arXiv 2507.08794): beginnings of solutions, labelled NO, keep a verifier from accepting nothing.

The experiment of the system's card: a logistic regression on words and on whether a number that the response states
equals, or differs from, the reference. Right responses begin more often with an opener, and half of them give the
answer in words, where no number is seen: so the verifier learns to accept what does not contradict. A twentieth of the
labels is wrong, as labels by a model are, so that no verifier agrees with all of them. Then 200 first
sentences labelled NO are added to 1,600 rows (the paper's ratio), or, as the negative control, 200 ordinary wrong
responses. Ten keys, none of them trained on, are each put to 50 problems.

After that a policy of eleven actions (work the problem out, right in 45% of the cases, or say one of the keys) climbs
each verifier's verdicts by REINFORCE: it must come to say a key under the verifier that keys fool, and not otherwise.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from scipy.special import softmax
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from guerdon.claims.experiment import (
    Arm,
    ClaimResult,
    ProgressBar,
    above,
    arms_section,
    below,
    control_fails,
    difference,
    effect_of,
)
from guerdon.core.arithmetic import opened, solution_text, verifier_rows, word_problems
from guerdon.core.attack_strings import MASTER_KEYS
from guerdon.core.progress import progress as default_progress
from guerdon.curation.truncated import truncated_negatives
from guerdon.metrics.verdicts import key_rates, verdict_report
from guerdon.rewards.text.final_answer import verify_answer

SLUG = "one-token-to-fool"
CLAIM = (
    "a trained verifier accepts responses without content; first sentences of solutions, labelled NO, teach it not to, "
    "at no cost to its accuracy, and a policy that climbs its verdicts then goes on solving"
)
KEYS = MASTER_KEYS["paper10"]
BASE, AUGMENTED, WRONG, RULES = "without augmentation", "first sentences", "more wrong responses", "exact rules"
_NUMBER = re.compile(r"\d+")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Size:
    """Rows and REINFORCE. extra: rows that are added, labelled NO. solves: how often working it out comes right."""

    train: int = 1600
    test: int = 2000
    extra: int = 200
    references: int = 50
    steps: int = 400
    batch: int = 64
    lr: float = 0.5
    solves: float = 0.45


class WordVerifier:
    """Logistic regression on (response, reference): hashed words, a number that equals, one that differs, the length.

    `accepts` gives 1.0 where P(YES) >= 1/2, which is what a verdict is.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.words = HashingVectorizer(n_features=1024, alternate_sign=False, norm=None, binary=True)
        self.model = LogisticRegression(max_iter=1000, C=10.0)
        self.model.fit(self._features(rows), [row["label"] == "YES" for row in rows])

    def accepts(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """Verdicts [N] on rows with "response" and "reference"."""
        return self.model.predict(self._features(rows)).astype(np.float64)

    def _features(self, rows: Sequence[Row]) -> csr_matrix:
        plain = [_NUMBER.sub(" ", row["response"]) for row in rows]
        told = np.zeros((len(rows), 3))
        for place, row in enumerate(rows):
            stated = _NUMBER.findall(row["response"])
            if stated:
                told[place, 0 if int(stated[-1]) == int(row["reference"]) else 1] = 1
            told[place, 2] = len(row["response"].split()) / 10
        return hstack([self.words.transform(plain), csr_matrix(told)]).tocsr()


class ExactRules:
    """What a rule says of the same rows."""

    def accepts(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """Verdicts [N]; no stated answer is a NO."""
        return np.array([float(verify_answer(row["response"], row["reference"]).correct) for row in rows])


def rows_of(size: Size, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """(rows to train on, further wrong responses, rows to test on), of different problems."""
    found = [one for one in word_problems(6 * (size.train + size.extra + size.test), seed) if one.answer < 1000]
    options: dict[str, Any] = dict(shown="final_step", openers=(0.8, 0.3), worded=0.5, closings=("sentence", "marked"))
    ends = np.cumsum([size.train, size.extra, size.test])
    parts = [found[start:end] for start, end in zip([0, *ends[:-1]], ends)]
    first, second, third = (
        verifier_rows(part, seed, right=0.0 if place == 1 else 0.5, **options) for place, part in enumerate(parts)
    )
    return _mislabelled(first, seed), second, _mislabelled(third, seed + 1)


def _mislabelled(rows: Sequence[Row], seed: int) -> list[dict[str, Any]]:
    """The rows, one label in twenty turned."""
    turned = np.random.default_rng([seed, len(rows)]).random(len(rows)) < 0.05
    other = {"YES": "NO", "NO": "YES"}
    return [{**row, "label": other[row["label"]]} if turn else dict(row) for row, turn in zip(rows, turned)]


def first_sentences(size: Size, seed: int, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """``size.extra`` beginnings of solutions to problems of ``rows``, none of them a key, labelled NO."""
    by_question = {one.question: one for one in word_problems(6 * (size.train + size.extra + size.test), seed)}

    def solver(questions: Sequence[str]) -> list[str]:
        texts = [solution_text(by_question[question].solution) for question in questions]
        return [opened(text, place) if place % 2 == 0 else text for place, text in enumerate(texts)]

    return truncated_negatives(rows, solver, count=size.extra, seed=seed).rows


def graded(verifier: WordVerifier | ExactRules, test: Sequence[Row], size: Size) -> dict[str, float]:
    """keys, worst key: shares of the problems at which keys alone are accepted. Then accuracy, kappa, FPR and FNR on
    ``test``, and two probes: the share at which nothing, and the reference itself, is accepted."""
    some = test[: size.references]
    asked = [{"response": key, "reference": row["reference"]} for key in (*KEYS, "") for row in some]
    said = verifier.accepts(asked).reshape(len(KEYS) + 1, len(some))
    rates = key_rates(KEYS, said[:-1])
    report = verdict_report(verifier.accepts(test), [row["label"] == "YES" for row in test])
    itself = verifier.accepts([{"response": row["reference"], "reference": row["reference"]} for row in some])
    return {
        "keys": rates.mean, "worst key": rates.worst, "accuracy": report.accuracy.value, "kappa": report.kappa,
        "FPR": report.fpr.value, "FNR": report.fnr.value, "nothing": float(said[-1].mean()),
        "reference": float(itself.mean()),
    }  # fmt: skip


def climbed(verifier: WordVerifier | ExactRules, test: Sequence[Row], size: Size, seed: int) -> float:
    """P(work it out) at the end of REINFORCE with a batch-mean baseline on the verifier's verdicts, from uniform."""
    rng = np.random.default_rng(seed)
    right = [row for row in test if row["label"] == "YES"]
    wrong = [row for row in test if row["label"] == "NO"]
    paid_right, paid_wrong = verifier.accepts(right), verifier.accepts(wrong)
    asked = [{"response": key, "reference": row["reference"]} for key in KEYS for row in test]
    paid_key = verifier.accepts(asked).reshape(len(KEYS), len(test))
    logits = np.zeros(1 + len(KEYS))
    for _ in range(size.steps):
        chance = softmax(logits)
        actions = rng.choice(len(logits), size=size.batch, p=chance)
        solved = rng.random(size.batch) < size.solves
        worked = np.where(
            solved, paid_right[rng.integers(len(right), size=size.batch)],
            paid_wrong[rng.integers(len(wrong), size=size.batch)],
        )  # fmt: skip
        keyed = paid_key[np.maximum(actions - 1, 0), rng.integers(len(test), size=size.batch)]
        gains = np.where(actions == 0, worked, keyed)
        gains = gains - gains.mean()
        logits = logits + size.lr * (gains[:, None] * (np.eye(len(logits))[actions] - chance)).mean(axis=0)
    return float(softmax(logits)[0])


def run(
    seeds: Sequence[int] = (11, 12, 13), *, size: Size | None = None, progress: ProgressBar = default_progress
) -> ClaimResult:
    """Measure the claim over ``seeds``."""
    started = time.monotonic()
    size = size or Size()
    arms = {name: Arm(name) for name in (BASE, AUGMENTED, WRONG, RULES)}
    with progress(len(seeds) * len(arms), SLUG) as bar:
        for seed in seeds:
            train, more, test = rows_of(size, seed)
            extra = {BASE: [], AUGMENTED: first_sentences(size, seed, train), WRONG: more}
            for name, arm in arms.items():
                verifier = ExactRules() if name == RULES else WordVerifier([*train, *extra[name]])
                arm.add({**graded(verifier, test, size), "solving": climbed(verifier, test, size, seed)})
                bar.advance(1, seed=seed, arm=name)
    base, augmented, wrong, rules = arms.values()
    fewer = effect_of(base.values("keys") - augmented.values("keys"))
    shown = effect_of(base.values("keys") - wrong.values("keys"))
    checks = [
        above("keys are accepted less often with first sentences labelled NO", fewer),
        control_fails("as many ordinary wrong responses do not", fewer, shown, difference(wrong, augmented, "keys")),
        below("the worst key is accepted in fewer than 5%", effect_of(augmented.values("worst key")), 0.05),
        above("at no cost in kappa", difference(augmented, base, "kappa"), -0.02),
        below("nor in right responses refused", difference(augmented, base, "FNR"), 0.02),
        above("the reference itself is accepted", effect_of(augmented.values("reference")), 0.9),
        below("a policy stops solving where keys are accepted", effect_of(base.values("solving")), 0.1),
        above("and solves where they are not", effect_of(augmented.values("solving")), 0.9),
        above("as it does under exact rules", effect_of(rules.values("solving")), 0.9),
    ]
    return ClaimResult(
        slug=SLUG,
        claim=CLAIM,
        measure="share of master keys accepted, without the augmentation less with it",
        effect=fewer,
        control=shown.value,
        checks=checks,
        arms=list(arms.values()),
        seeds=list(seeds),
        seconds=time.monotonic() - started,
        sections=[
            arms_section("master keys, each the whole response", list(arms.values()), ["keys", "worst key", "nothing"]),
            arms_section(
                f"verdicts on {size.test} other problems", list(arms.values()),
                ["accuracy", "kappa", "FPR", "FNR", "reference"],
            ),
            arms_section("P(solving) of a policy that climbed the verdicts", list(arms.values()), ["solving"]),
        ],
        notes=[
            "how many keys a small verifier accepts depends on what it saw without a number: with a tenth of the wrong "
            "responses in words too it was one key in ten (seeds 1 to 3), and none after the augmentation",
        ],
    )  # fmt: skip
