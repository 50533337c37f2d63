"""What ReMoDetect's table holds: AUROC by file, domain, generator and length, with what length alone achieves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_curve

from guerdon.benchmarks.text_pairs import TextPair
from guerdon.core.errors import GuerdonError
from guerdon.core.sheet import Bar, Bars, Cell, Example, Examples, Heat, Line, Lines, Part, Sheet, Table
from guerdon.metrics.detection import tpr_at_fpr
from guerdon.metrics.intervals import Interval
from guerdon.metrics.text_detection import ScoredTexts, mean_auroc, threshold_at_fpr

__all__ = ["NAME", "DetectionReport", "FileScores", "graded"]

NAME = "remodetect"
FPR = 0.01
SHOWN = 3


@dataclass(frozen=True)
class FileScores:
    """The scored pairs of one domain and generator."""

    domain: str
    generator: str
    pairs: Sequence[TextPair]
    scored: ScoredTexts

    def by_length(self) -> FileScores:
        """The same pairs scored by their number of characters: the baseline that reads nothing."""
        generated = np.array([float(len(pair.generated)) for pair in self.pairs])
        human = np.array([float(len(pair.human)) for pair in self.pairs])
        return replace(self, scored=ScoredTexts(generated, human, self.scored.groups))

    def taking(self, rows: NDArray[np.int64]) -> FileScores:
        """Some of its pairs."""
        one = self.scored
        kept = ScoredTexts(one.generated[rows], one.human[rows], one.groups[rows])
        return replace(self, pairs=[self.pairs[row] for row in rows], scored=kept)

    def valid(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scores of (generated, human) texts that have one."""
        generated, human = self.scored.generated, self.scored.human
        return generated[~np.isnan(generated)], human[~np.isnan(human)]


@dataclass(frozen=True)
class DetectionReport:
    """What a subject's scores are worth as a detector.

    subject:   name and identity. files: in the order of the data. problems: texts without a score, by kind.
    left_out:  pairs whose human text the subject was trained on, and which were therefore not graded.
    """

    name: str
    identity: str
    files: Sequence[FileScores]
    texts: int
    problems: dict[str, int] = field(default_factory=dict)
    left_out: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def auroc(self) -> Interval:
        """Mean AUROC over the files, as the paper averages."""
        return mean_auroc([one.scored for one in self.files], seed=self.seed)

    def over_length(self) -> Interval:
        """Mean AUROC less that of length alone, in the direction in which length does better."""
        return mean_auroc([one.scored for one in self.files], [one.scored for one in _by_length(self.files)])

    def over(self, other: DetectionReport) -> Interval:
        """Mean AUROC less another subject's on the same pairs. Raises GuerdonError where the pairs differ."""
        if [[pair.where for pair in one.pairs] for one in self.files] != [
            [pair.where for pair in one.pairs] for one in other.files
        ]:
            raise GuerdonError(f"{self.name} and {other.name} were graded on other pairs")
        return mean_auroc([one.scored for one in self.files], [one.scored for one in other.files], seed=self.seed)

    def sheet(self, against: DetectionReport | None = None) -> Sheet:
        """Everything for a person; ``against`` adds another subject's figures and the difference."""
        found, over = self.auroc, self.over_length()
        lead = (
            f"{self.name} ranks a generated text above a human one with probability {found} on average over "
            f"{len(self.files)} files; that is {over.value:+.3f} [{over.low:+.3f}, {over.high:+.3f}] against what the "
            "length of the texts gives."
        )
        facts = {
            "subject": self.identity, "files": str(len(self.files)),
            "texts scored": f"{self.texts} ({sum(len(one.pairs) for one in self.files)} pairs, each human text once)",
            "texts without a score": ", ".join(f"{n} {kind}" for kind, n in self.problems.items()) or "none",
            **{name: str(value) for name, value in self.settings.items()},
        }  # fmt: skip
        if self.left_out:
            facts["pairs left out"] = f"{self.left_out}, whose human text the subject was trained on"
        parts: list[Part] = [self._table(), *self._groups(), self._lengths(), self._thresholds()]
        if against is not None:
            difference = self.over(against)
            lead += f" Against {against.name}: {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]."
            rows: list[list[Cell]] = [[one.name, *_cells(one.auroc)] for one in (self, against)]
            rows.append(["difference", *_cells(difference)])
            title = "Two subjects on the same texts"
            parts.insert(0, Table(title, ["subject", "mean AUROC", "low", "high"], rows, "Paired by human text."))
        parts += [*self._figures(), *self._examples()]
        notes = [
            "Intervals (95%) resample human texts, each with every generated text that stands against it.",
            "A detector's score is a signal about texts like these, not proof about a person: formal or non-native "
            "writing is known to be taken for generated.",
        ]
        return Sheet("benchmark", "ReMoDetect: generated against human texts", lead, facts, parts, notes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with each text's score under ``predictions`` as the harness's result files have it."""
        files = []
        for one in self.files:
            found = mean_auroc([one.scored], seed=self.seed)
            generated, human = one.valid()
            files.append({
                "domain": one.domain, "generator": one.generator, "pairs": len(one.pairs),
                "auroc": [found.value, found.low, found.high], "tpr_at_1_fpr": _tpr(one), "pr_auc": _pr(one),
                "length_auroc": _by_length([one])[0].scored.auroc(),
                "predictions": {"real": human.tolist(), "samples": generated.tolist()},
            })  # fmt: skip
        mean, over = self.auroc, self.over_length()
        return {
            "benchmark": NAME, "subject": self.name, "identity": self.identity, "settings": self.settings,
            "auroc": [mean.value, mean.low, mean.high], "over_length": [over.value, over.low, over.high],
            "texts": self.texts, "problems": self.problems, "left_out": self.left_out, "files": files,
        }  # fmt: skip

    # -- parts of the sheet

    def _table(self) -> Table:
        rows: list[list[Cell]] = []
        for one, length in zip(self.files, _by_length(self.files), strict=True):
            found = mean_auroc([one.scored], seed=self.seed)
            rows.append([one.domain, one.generator, len(one.pairs), *_cells(found), _tpr(one), _pr(one),
                         length.scored.auroc()])  # fmt: skip
        columns = ["domain", "generator", "pairs", "AUROC", "low", "high", "TPR at 1% FPR", "PR AUC", "length alone"]
        note = "Length alone: AUROC of the number of characters, in the direction that is better over all files."
        return Table("By file", columns, rows, note)

    def _groups(self) -> list[Part]:
        parts: list[Part] = []
        for what in ("domain", "generator"):
            names = list(dict.fromkeys(getattr(one, what) for one in self.files))
            if len(names) < 2:
                continue
            rows: list[list[Cell]] = []
            for name in names:
                own = [one for one in self.files if getattr(one, what) == name]
                length = mean_auroc([one.scored for one in _by_length(own, self.files)], resamples=1).value
                rows.append([name, *_cells(mean_auroc([one.scored for one in own], seed=self.seed)), length])
            parts.append(Table(f"By {what}", [what, "mean AUROC", "low", "high", "length alone"], rows))
        return parts

    def _lengths(self) -> Table:
        """Thirds by the length of the human text."""
        words = np.concatenate([[len(pair.human.split()) for pair in one.pairs] for one in self.files])
        edges = np.quantile(words, [1 / 3, 2 / 3])
        rows: list[list[Cell]] = []
        for number, name in enumerate(("shortest", "middle", "longest")):
            kept, told = [], []
            for one in self.files:
                lengths = np.array([len(pair.human.split()) for pair in one.pairs])
                place = np.flatnonzero(np.searchsorted(edges, lengths, side="left") == number)
                if place.size:
                    kept.append(one.taking(place).scored)
                    told.append(lengths[place])
            if kept:
                span = np.concatenate(told)
                found = mean_auroc(kept, seed=self.seed)
                rows.append([name, f"{span.min()} to {span.max()}", len(span), *_cells(found)])
        return Table("By length of the human text", ["third", "words", "pairs", "mean AUROC", "low", "high"], rows)

    def _thresholds(self) -> Table:
        """One threshold for all: its false positives by domain."""
        human, domains = _human(self.files)
        threshold = threshold_at_fpr(human, FPR)
        rows: list[list[Cell]] = []
        for domain in dict.fromkeys(domains):
            own = human[np.array(domains) == domain]
            generated = np.concatenate([one.valid()[0] for one in self.files if one.domain == domain])
            rows.append([domain, threshold, float((own > threshold).mean()), float((generated > threshold).mean())])
        note = (
            f"The threshold that spares {1 - FPR:.0%} of all human texts here, and what it flags in each domain: one "
            "threshold is not calibrated across domains."
        )
        columns = ["domain", "threshold", "human texts flagged", "generated texts flagged"]
        return Table("One threshold", columns, rows, note)

    def _figures(self) -> list[Part]:
        domains = list(dict.fromkeys(one.domain for one in self.files))
        generators = list(dict.fromkeys(one.generator for one in self.files))
        parts: list[Part] = []
        cells = {(one.domain, one.generator): one.scored.auroc() for one in self.files}
        if len(cells) == len(domains) * len(generators) > 1:
            values = [[cells[domain, generator] for generator in generators] for domain in domains]
            parts.append(Heat("AUROC by domain and generator", domains, generators, values, low=0.5))
        lines = []
        for domain in domains:
            own = [one.valid() for one in self.files if one.domain == domain]
            # Every file's generated texts against the domain's human ones, each of these once a file.
            labels = np.concatenate([np.repeat([1, 0], [len(generated), len(human)]) for generated, human in own])
            scores = np.concatenate([np.concatenate(both) for both in own])
            if len(np.unique(labels)) == 2:
                fpr, tpr, _ = roc_curve(labels, scores)
                lines.append(Line(domain, fpr.tolist(), tpr.tolist()))
        parts.append(Lines("ROC", lines, "human texts flagged", "generated texts flagged", diagonal=True))
        bars = []
        for name in generators:
            found = mean_auroc([one.scored for one in self.files if one.generator == name], seed=self.seed)
            bars.append(Bar(name, found.value, found.low, found.high))
        parts.append(Bars("AUROC by generator", bars, mark=0.5))
        return parts

    def _examples(self) -> list[Part]:
        texts: dict[str, tuple[float, str]] = {}
        missed: list[tuple[float, TextPair]] = []
        for one in self.files:
            for row, pair in enumerate(one.pairs):
                if not np.isnan(one.scored.human[row]):
                    texts[pair.human] = (float(one.scored.human[row]), pair.domain)
                if not np.isnan(one.scored.generated[row]):
                    missed.append((float(one.scored.generated[row]), pair))
        flagged = sorted(texts.items(), key=lambda item: -item[1][0])[:SHOWN]
        lowest = sorted(missed, key=lambda item: item[0])[:SHOWN]
        return [
            Examples("Human texts with the highest scores", [
                Example(domain, {"score": f"{score:.3f}", "text": text}) for text, (score, domain) in flagged
            ]),
            Examples("Generated texts with the lowest scores", [
                Example(f"{pair.domain}, {pair.generator}", {"score": f"{score:.3f}", "text": pair.generated})
                for score, pair in lowest
            ]),
        ]  # fmt: skip


def graded(pairs: Sequence[TextPair], generated: NDArray[np.float64], human: NDArray[np.float64]) -> list[FileScores]:
    """Scores [N] of the pairs' texts, by domain and generator in the order in which these come."""
    names = [(pair.domain, pair.generator) for pair in pairs]
    groups = np.array([f"{pair.domain}/{pair.key}" for pair in pairs])
    files = []
    for name in dict.fromkeys(names):
        rows = np.array([row for row, own in enumerate(names) if own == name])
        scored = ScoredTexts(generated[rows], human[rows], groups[rows])
        files.append(FileScores(*name, [pairs[row] for row in rows], scored))
    return files


def _human(files: Sequence[FileScores]) -> tuple[NDArray[np.float64], list[str]]:
    """Scores of the human texts, each once, and their domains."""
    once: dict[tuple[str, str], float] = {}
    for one in files:
        for pair, score in zip(one.pairs, one.scored.human, strict=True):
            if not np.isnan(score):
                once[one.domain, pair.human] = float(score)
    return np.array(list(once.values())), [domain for domain, _ in once]


def _by_length(files: Sequence[FileScores], all_files: Sequence[FileScores] | None = None) -> list[FileScores]:
    """The files scored by length; turned round, all alike, where over all files the shorter text is the generated."""
    plain = [one.by_length() for one in files]
    judged = plain if all_files is None else [one.by_length() for one in all_files]
    if float(np.mean([one.scored.auroc() for one in judged])) >= 0.5:
        return plain
    return [
        replace(one, scored=ScoredTexts(-one.scored.generated, -one.scored.human, one.scored.groups)) for one in plain
    ]


def _tpr(one: FileScores) -> float:
    generated, human = one.valid()
    return tpr_at_fpr(generated, human, fpr=FPR) if generated.size and human.size else float("nan")


def _pr(one: FileScores) -> float:
    generated, human = one.valid()
    labels = np.repeat([1, 0], [generated.size, human.size])
    if not generated.size or not human.size:
        return float("nan")
    return float(average_precision_score(labels, np.concatenate([generated, human])))


def _cells(interval: Interval) -> list[Cell]:
    return [interval.value, interval.low, interval.high]
