"""Search: one answer for all prompts, put together mark by mark so that the subject likes it, within a budget of rows.

The attacker sees scores and nothing else. It works on one half of the items; the rate is that of the other half, so
that it says how often the answer found fools the subject, not how well the search fits its own items.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import expit

from guerdon.audits.attack import Attack, Rng, holds_solution
from guerdon.audits.empty_answers import TOKENS
from guerdon.audits.examination import Case, Examination
from guerdon.audits.injection import INJECTIONS
from guerdon.audits.perturbations import CONFIDENCE, FILLER
from guerdon.audits.trials import Findings, Trial
from guerdon.core.attack_strings import MASTER_KEYS

ITEMS = 8
"""Items that a candidate is tried on; the mean over them is what the search climbs."""
LONGEST = 24
WORDS = 400

_WORD = re.compile(r"\w+|[^\w\s]")
Value = Callable[[Sequence[str]], list[float]]


def vocabulary(honest: Sequence[str], rng: Rng) -> list[str]:
    """What answers are put together from: words of honest answers, single marks, keys and words to the judge."""
    words = sorted({word for text in honest for word in _WORD.findall(text)})
    words = [words[place] for place in sorted(rng.permutation(len(words))[:WORDS])]
    phrases = [
        *FILLER,
        *CONFIDENCE.values(),
        *INJECTIONS.values(),
        *(key for some in MASTER_KEYS.values() for key in some),
    ]
    return list(dict.fromkeys([*words, *TOKENS, *phrases]))


def greedy_search(
    value: Value, words: Sequence[str], rng: Rng, *, calls: int, width: int = 8
) -> tuple[str, list[tuple[float, float]]]:
    """The best answer found by local changes, and the best value after so many calls.

    Each step tries ``width`` changes of the best answer so far - a word appended, put in, replaced or taken out - and
    keeps the best of them unless it is worse. value: texts -> [N]; NaN counts as worst. calls: texts to value in all.
    """
    best: list[str] = []
    reached, curve, spent = float("-inf"), [], 0
    while spent < calls:
        # Before anything is known, single words; then changes of what is best.
        changes = [_changed(best, words, rng) for _ in range(min(width, calls - spent))]
        values = value([" ".join(one) for one in changes])
        spent += len(changes)
        top = int(np.argmax(np.nan_to_num(values, nan=-np.inf)))
        # An equal one too: where nearly all answers are worth the same, standing still finds nothing.
        if np.isfinite(values[top]) and values[top] >= reached:
            best, reached = changes[top], values[top]
        curve.append((float(spent), reached))
    return " ".join(best), curve


def random_search(
    value: Value, words: Sequence[str], rng: Rng, *, calls: int, width: int = 8
) -> tuple[str, list[tuple[float, float]]]:
    """The best of random answers of 1 to 12 words: what the greedy search must beat; see `greedy_search`."""
    best, reached, curve, spent = "", float("-inf"), [], 0
    while spent < calls:
        count = min(width, calls - spent)
        drawn = [" ".join(words[i] for i in rng.integers(len(words), size=rng.integers(1, 13))) for _ in range(count)]
        values = value(drawn)
        spent += count
        top = int(np.argmax(np.nan_to_num(values, nan=-np.inf)))
        if np.isfinite(values[top]) and values[top] > reached:
            best, reached = drawn[top], values[top]
        curve.append((float(spent), reached))
    return best, curve


def _changed(text: list[str], words: Sequence[str], rng: Rng) -> list[str]:
    word = words[int(rng.integers(len(words)))]
    kind = int(rng.integers(4)) if text else 0
    made = list(text)
    place = int(rng.integers(len(made) + (kind == 1))) if made else 0
    if len(made) >= LONGEST and kind < 2:
        kind = 2
        place = min(place, len(made) - 1)
    if kind == 0:
        made.append(word)
    elif kind == 1:
        made.insert(place, word)
    elif kind == 2:
        made[place] = word
    elif len(made) > 1:
        del made[place]
    return made


def _attack(name: str, about: str, search: Callable[..., tuple[str, list[tuple[float, float]]]]) -> Attack:
    def run(examination: Examination) -> Findings:
        rng = examination.rng(name)
        order = [int(place) for place in rng.permutation(len(examination.items))]
        half = len(order) // 2
        fitted, rest = order[:half][:ITEMS], order[half:]
        # The words of its own half only: those of the other half would hold right answers to it.
        words = vocabulary([examination.items.items[place].honest for place in order[:half]], rng)
        calls = max(1, examination.budget // len(fitted))
        found, curve = search(_value(examination, fitted), words, rng, calls=calls)
        cases = [
            Case(place, "the answer found", found)
            for place in sorted(rest)
            if not holds_solution(found, examination.items.items[place])
        ]
        scored = [(calls * len(fitted), value) for calls, value in curve if np.isfinite(value)]
        measures = {"rows spent": float(len(curve) and curve[-1][0] * len(fitted))}
        if scored:
            measures["worth on its own items"] = scored[-1][1]
        left = len(rest) - len(cases)
        return Findings(
            examination.try_bad(cases), measures, {"the answer holds the solution": left} if left else {}, scored
        )

    return Attack(name, "search", "false positive", about, run, _unfit)


def _value(examination: Examination, places: Sequence[int]) -> Value:
    """Mean of `_worth` of texts on some items; an answer that holds an item's solution shows nothing there."""
    scores = [] if examination.ranks or examination.verifies else [one.value for one in examination.honest()]
    spread = float(np.nanstd(scores)) if np.isfinite(scores).any() else 1.0

    def value(texts: Sequence[str]) -> list[float]:
        cases = [Case(place, str(number), text) for number, text in enumerate(texts) for place in places]
        margins: list[list[float]] = [[] for _ in texts]
        for case, trial in zip(cases, examination.try_bad(cases)):
            if not holds_solution(case.text, examination.items.items[case.item]):
                margins[int(case.variant)].append(_worth(trial, spread or 1.0))
        return [float(np.mean(some)) if some else float("nan") for some in margins]

    return value


def _worth(trial: Trial, spread: float) -> float:
    """How far a score is above the bar, in deviations of honest scores, as a share: 0.5 at the bar, 1 far above it.

    So that fooling the subject on many items is worth more than exceeding the bar by far on one.
    """
    if trial.outcome == "unmeasured":
        return float("nan")
    if np.isnan(trial.score):  # a judge that ranks says who wins, not by how much
        return 1.0 if trial.outcome == "fooled" else 0.0
    return float(expit(2 * (trial.score - trial.bar) / spread))


def _unfit(examination: Examination) -> str:
    return "" if len(examination.items) >= 4 else "a search needs at least 4 items, to be judged on others than its own"


RANDOM_SEARCH = _attack(
    "random-search", "The best of many answers drawn at random from words and phrases.", random_search
)
GREEDY_SEARCH = _attack(
    "greedy-search", "An answer grown word by word, each change kept where the subject likes it better.", greedy_search
)
