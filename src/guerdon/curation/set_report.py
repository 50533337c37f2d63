"""What a preference set is like, before anything trains on it: size, ties, noise, length bias, duplicates, overlap with
benchmarks, and how far its comparisons hang together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair, prompt_key, text_of
from guerdon.curation.cleaning import decontaminate
from guerdon.metrics.intervals import Interval, bootstrap_mean
from guerdon.metrics.preference_graph import graph_report

FOLDS = 5
STRENGTH = "mean preference difference"


@dataclass(frozen=True)
class Measure:
    """One line of the report: its value, in words, and what to make of it."""

    name: str
    value: float
    text: str
    says: str


@dataclass
class SetReport:
    """The measures in the order of the report; ``values`` by name, and a table for a page or a terminal."""

    measures: list[Measure] = field(default_factory=list)

    def add(self, name: str, value: float | Interval, says: str, text: str | None = None) -> None:
        number = value.value if isinstance(value, Interval) else float(value)
        self.measures.append(Measure(name, number, text or _worded(value), says))

    @property
    def values(self) -> dict[str, float]:
        return {measure.name: measure.value for measure in self.measures}

    def table(self) -> dict[str, Any]:
        rows = [[measure.name, measure.text, measure.says] for measure in self.measures]
        return {"title": "The preference data", "columns": ["measure", "value", "what it says"], "rows": rows}

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(measure) for measure in self.measures]


def report_on(pairs: Sequence[Pair], *, benchmark: Sequence[str] = (), seed: int = 0) -> SetReport:
    """Measure a preference set.

    benchmark:  prompts of evaluation sets; pairs that share 13 words in a row with one count as contaminated.
    seed:       of intervals and of the folds of the noise estimate.

    Noise is bounded as far as the data allow: from below by comparisons that contradict each other, from above by how
    well labels can be predicted at all (by words alone, so loosely); an ensemble's strength is read where it is given.
    Raises GuerdonError for an empty set.
    """
    if not pairs:
        raise GuerdonError("a report needs at least one pair")
    prompts = [prompt_key(pair) or f"row {row}" for row, pair in enumerate(pairs)]
    report = SetReport()
    report.add("pairs", len(pairs), f"comparisons, of {len(set(prompts))} prompts")
    report.add(
        "pairs a prompt", len(pairs) / len(set(prompts)), "split data by prompt, never by pair, where this exceeds 1"
    )
    with_images = sum(bool(pair.images) for pair in pairs)
    if with_images:
        report.add("with images", with_images / len(pairs), "share of pairs whose prompt shows a picture")
    _ties(report, pairs)
    _repeats(report, pairs)
    _noise(report, pairs, prompts, seed)
    _length(report, pairs, prompts, seed)
    if benchmark:
        kept, _ = decontaminate(pairs, benchmark)
        report.add(
            "contaminated", 1 - len(kept) / len(pairs), "share of pairs with 13 words in a row of a benchmark prompt"
        )
    _graph(report, pairs)
    return report


def _worded(value: float | Interval) -> str:
    if isinstance(value, Interval):
        return str(value)
    return f"{value:g}" if float(value).is_integer() else f"{value:.3f}"


def _key(messages: Any) -> str:
    return json.dumps(messages, sort_keys=True, ensure_ascii=False, default=str)


def _ties(report: SetReport, pairs: Sequence[Pair]) -> None:
    soft = [pair.smoothing for pair in pairs if pair.smoothing is not None]
    if soft:
        report.add("ties", float(np.mean(np.asarray(soft) == 0.5)), "share of soft labels at exactly 1/2")
        report.add("softness", float(np.mean(soft)), "mean probability, by the data, that a label is wrong")


def _repeats(report: SetReport, pairs: Sequence[Pair]) -> None:
    votes: dict[tuple[str, str, str], Counter[bool]] = {}
    for pair in pairs:
        first, second = _key(pair.chosen), _key(pair.rejected)
        asked = (prompt_key(pair), min(first, second), max(first, second))
        votes.setdefault(asked, Counter())[first < second] += 1
    repeated = sum(sum(count.values()) - 1 for count in votes.values())
    report.add("duplicates", repeated / len(pairs), "share of pairs that compare the same two answers again")
    again = [count for count in votes.values() if sum(count.values()) > 1]
    if again:
        # Two votes of noise e disagree with probability 2 e (1 - e).
        agree = float(np.mean([_agreement(count) for count in again]))
        noise = 0.5 * (1 - np.sqrt(max(2 * agree - 1, 0.0)))
        report.add(
            "disagreement", 1 - agree, f"of repeated comparisons; labels wrong at a rate of {noise:.2f} give as much"
        )


def _agreement(count: Counter[bool]) -> float:
    n, ones = sum(count.values()), count[True]
    return (ones * (ones - 1) + (n - ones) * (n - ones - 1)) / (n * (n - 1))


def _noise(report: SetReport, pairs: Sequence[Pair], prompts: list[str], seed: int) -> None:
    strength = [pair.row.get(STRENGTH) for pair in pairs]
    known = [value for value in strength if isinstance(value, int | float)]
    if known:
        report.add(
            "negative strength", float(np.mean(np.asarray(known) < 0)), "share of labels that an ensemble votes against"
        )
    if len(set(prompts)) < 2 * FOLDS:
        return
    found = bootstrap_mean(_by_words(pairs, prompts, seed), groups=prompts, seed=seed)
    says = "accuracy of a bag of words trained on other prompts; no more labels than the rest can be wrong"
    report.add("words predict", found, says)


def _by_words(pairs: Sequence[Pair], prompts: list[str], seed: int) -> np.ndarray:
    """Whether a bag of words, trained on the other prompts, ranks each pair as its label does (ties half), [N]."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold

    words = HashingVectorizer(n_features=2**14, alternate_sign=False, norm="l2")
    gap = words.transform([text_of(p.chosen) for p in pairs]) - words.transform([text_of(p.rejected) for p in pairs])
    # Half of the pairs turned round: a model needs both classes.
    sign = np.random.default_rng(seed).choice([-1.0, 1.0], len(pairs))
    signed = gap.multiply(sign[:, None]).tocsr()
    right = np.full(len(pairs), 0.5)
    for train, test in GroupKFold(FOLDS).split(signed, groups=prompts):
        if len(set(sign[train])) == 2:
            model = LogisticRegression(fit_intercept=False, max_iter=200).fit(signed[train], sign[train])
            right[test] = (1 + np.sign(model.decision_function(gap[test]))) / 2
    return right


def _length(report: SetReport, pairs: Sequence[Pair], prompts: list[str], seed: int) -> None:
    words = np.array([[len(text_of(side).split()) for side in (pair.chosen, pair.rejected)] for pair in pairs], float)
    report.add(
        "words chosen", float(np.median(words[:, 0])), f"median; {np.median(words[:, 1]):g} in the rejected answers"
    )
    longer = (words[:, 0] > words[:, 1]) + 0.5 * (words[:, 0] == words[:, 1])
    accuracy = bootstrap_mean(longer, groups=prompts, seed=seed)
    known = accuracy.low > 0.5 or accuracy.high < 0.5
    side = "longer" if accuracy.low > 0.5 else "shorter"
    verdict = f"the labels favour {side} answers" if known else "no length bias to speak of"
    report.add("longer preferred", accuracy, f"accuracy of preferring the longer answer: {verdict}")
    ratio = np.log((words[:, 0] + 1) / (words[:, 1] + 1))
    report.add(
        "log length ratio", float(ratio.mean()), "mean of log (words chosen / words rejected)", f"{ratio.mean():+.3f}"
    )


def _graph(report: SetReport, pairs: Sequence[Pair]) -> None:
    """Answers are nodes, comparisons edges; only answers of one prompt can hang together."""
    nodes: dict[tuple[str, str], int] = {}
    edges = np.array(
        [[nodes.setdefault((prompt_key(p), _key(a)), len(nodes)) for a in (p.chosen, p.rejected)] for p in pairs]
    )
    graph = graph_report(map(tuple, edges.tolist()))
    apart = f"{graph.diameter} comparisons apart{'' if graph.diameter_exact else ' or more'}"
    report.add(
        "answers",
        len(nodes),
        f"in {graph.components} groups that comparisons connect, the largest of {graph.largest}; at most {apart}",
    )
    report.add("comparisons an answer", graph.degree, f"mean; {graph.max_degree} at most")
    shape = (len(nodes), len(nodes))
    _, strong = connected_components(coo_matrix((np.ones(len(edges)), edges.T), shape=shape), connection="strong")
    cyclic = np.bincount(strong)[strong[edges[:, 0]]] > 1
    inside = cyclic & (strong[edges[:, 0]] == strong[edges[:, 1]])
    report.add(
        "in cycles",
        float(inside.mean()),
        "share of comparisons that contradict a chain of others: a floor of the noise",
    )
