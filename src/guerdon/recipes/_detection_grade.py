"""How ReMoDetect's run ends: detection before and after the training, and what is left of the preferences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.benchmarks.pairs import score_pairs
from guerdon.benchmarks.remodetect_report import FileScores, graded
from guerdon.benchmarks.text_pairs import TextPair
from guerdon.core.preferences import Pair
from guerdon.metrics.intervals import Interval, bootstrap_mean, paired_difference
from guerdon.metrics.pair_accuracy import pair_outcomes
from guerdon.metrics.text_detection import mean_auroc
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.recipes._reward_model import Closing
from guerdon.rewards.text.reward_detector import RewardDetector

BEFORE, AFTER = "before", "after"


class DetectionClosing:
    """Looks at a model before and after its training, and what the two looks say together.

    held: texts of people that no training saw, with every generator's. preferences: held-out pairs of the task that the
    reward model was made for, or none.
    """

    def __init__(self, held: Sequence[TextPair], preferences: Sequence[Pair], seed: int) -> None:
        self.held, self.preferences, self.seed = list(held), list(preferences), seed
        self.mixed = [replace(pair, generated=pair.mixed, generator="mixed") for pair in held if pair.mixed]
        self.files: dict[str, list[FileScores]] = {}
        self.mixtures: dict[str, list[FileScores]] = {}
        self.right: dict[str, NDArray[np.float64]] = {}

    def look(self, when: str, model: ScalarRewardModel) -> None:
        """Score all texts and pairs by the model as it is."""
        told = list(dict.fromkeys(text for pair in [*self.held, *self.mixed] for text in (pair.human, pair.generated)))
        scores = RewardDetector(model).score(told, progress=f"held-out texts, {when}")
        by_text = dict(zip(told, scores.tolist(), strict=True))

        def scored(pairs: Sequence[TextPair]) -> list[FileScores]:
            sides = [np.array([by_text[text] for text in side]) for side in
                     ([one.generated for one in pairs], [one.human for one in pairs])]  # fmt: skip
            return graded(pairs, *sides)

        self.files[when] = scored(self.held)
        self.mixtures[when] = scored(self.mixed) if self.mixed else []
        if self.preferences:
            self.right[when] = pair_outcomes(*score_pairs(model, self.preferences))

    def closing(self, *, trained_on: set[str], unmixed: Mapping[str, int], drift: float | None) -> Closing:
        """Tables and verdicts."""
        before, after = self.files[BEFORE], self.files[AFTER]
        found = self._mean(after)
        gain = mean_auroc([one.scored for one in after], [one.scored for one in before], seed=self.seed)
        over = mean_auroc([one.scored for one in after], [one.by_length().scored for one in after], seed=self.seed)
        verdicts = [
            _verdict("held-out detection (mean AUROC)", found, 0.5, "above 0.5"),
            _verdict("gain over the untuned reward model", gain, 0.0, "above 0"),
            _verdict("over the length of the text", over, 0.0, "above 0"),
        ]
        unseen = [one for one in after if one.generator not in trained_on]
        if unseen and len(unseen) < len(after):
            verdicts.append(_verdict("generators not trained on", self._mean(unseen), 0.5, "above 0.5"))
        tables = [self._by_file(trained_on), self._other(drift, unmixed)]
        figures = {"auroc": {
            "before": self._mean(before).value, "after": found.value, "gain": [gain.value, gain.low, gain.high],
        }}  # fmt: skip
        return Closing(tables=tables, verdicts=verdicts, figures=figures)

    def _mean(self, files: Sequence[FileScores]) -> Interval:
        return mean_auroc([one.scored for one in files], seed=self.seed)

    def _by_file(self, trained_on: set[str]) -> dict[str, Any]:
        rows = []
        for one, was in zip(self.files[AFTER], self.files[BEFORE], strict=True):
            seen = "yes" if one.generator in trained_on else "no"
            length = one.by_length().scored.auroc()
            rows.append([one.domain, one.generator, seen, str(len(one.pairs)), str(self._mean([was])),
                         str(self._mean([one])), f"{length:.3f}"])  # fmt: skip
        for one, was in zip(self.mixtures[AFTER], self.mixtures[BEFORE], strict=True):
            length = one.by_length().scored.auroc()
            rows.append([one.domain, "mixed texts", "-", str(len(one.pairs)), str(self._mean([was])),
                         str(self._mean([one])), f"{length:.3f}"])  # fmt: skip
        return {
            "title": "Detection of held-out texts",
            "note": "AUROC of generated against human texts that no training saw, the text alone; intervals resample "
            "human texts. Length: characters, longer taken for generated. The human side is the same for each model.",
            "columns": ["domain", "generator", "trained on", "pairs", "before [95%]", "after [95%]", "length alone"],
            "rows": rows,
        }

    def _other(self, drift: float | None, unmixed: Mapping[str, int]) -> dict[str, Any]:
        rows = []
        if self.right:
            for when in (BEFORE, AFTER):
                rows.append([f"accuracy on held-out preferences, {when}", str(bootstrap_mean(self.right[when]))])
            rows.append(["change", str(paired_difference(self.right[AFTER], self.right[BEFORE]))])
        if drift is not None:
            rows.append(["root mean square drift of replayed texts", f"{drift:.3f}"])
        lost = ", ".join(f"{count} {kind}" for kind, count in unmixed.items()) or "none"
        rows.append(["texts that could not be mixed", lost])
        return {"title": "What else changed", "columns": ["measure", "value [95%]"], "rows": rows}


def _verdict(name: str, interval: Interval, threshold: float, target: str) -> dict[str, Any]:
    holds = True if interval.low > threshold else False if interval.high <= threshold else None
    return {"name": name, "target": target, "value": interval.value, "holds": holds}
