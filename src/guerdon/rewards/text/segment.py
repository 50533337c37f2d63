"""Rewards of the segments of a text: by a judge of segments, by what a prefix adds, or of the whole at its end.

Source: Fine-Grained RLHF (arXiv 2306.01693).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from guerdon.core.answer import completion_text
from guerdon.core.batch import Batch, call_now, read_result
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash, identity, name_of
from guerdon.core.outcome import Failed
from guerdon.core.reward import range_of
from guerdon.core.segments import Segmenter, SpanScore, segmenter
from guerdon.models.step_scorer import load_step_scorer
from guerdon.rewards.dense import CompositeAspects, DenseOutcomes, DenseReward

__all__ = ["CompositeAspects", "MomentScaled", "Pays", "PrefixDifference", "SegmentJudge", "SegmentReward", "load"]

Pays = Literal["verdict", "probability"]


def load(
    path: str | Path,
    cut: str = "sentence",
    *,
    trust_remote_code: bool = False,
    device: str | None = None,
    **options: Any,
) -> SegmentReward:
    """The reward of a segment classifier's folder or hub id; ``options`` are those of `SegmentReward`."""
    return SegmentReward(load_step_scorer(path, trust_remote_code=trust_remote_code, device=device), cut, **options)


class SegmentJudge(Protocol):
    """``judge(prompts, segments, **columns)``: for each completion the probabilities that its segments are right.

    segments: one list of texts a completion. Returned: one list of numbers in [0, 1] a completion, as long as its
    segments; or None, or Failed. `guerdon.models.step_scorer.StepScorer` is one.
    """

    def __call__(self, prompts: Any, segments: Sequence[Sequence[str]], **columns: Any) -> Any: ...


class SegmentReward(DenseReward):
    """What a judge says of each segment, paid at its end.

    judge:      a `SegmentJudge`.
    cut:        "sentence", "sub_sentence", "step", "regex:PATTERN", another of ``core.segments.SEGMENTERS``, or a
                function from a text to spans.
    pays:       "verdict": ``right`` where the probability exceeds ``threshold``, else ``wrong``, as published;
                "probability": wrong + p (right - wrong), which shows near misses.
    right, wrong:  in units of reward. Published: 0.3 and -0.3 for relevance by sub-sentence, 0.5 and -0.5 for
                factuality by sentence. Where most segments are right, positive ``right`` pays for length: with
                ``right=0`` only errors cost.

    An empty completion has no segments and sums to 0. A row that the judge fails, or answers with another number of
    probabilities, fails alone. Raises GuerdonError for an unknown segmenter or way to pay, or ``right <= wrong``.
    Source: arXiv 2306.01693, its rewards for relevance and factuality.
    """

    def __init__(
        self, judge: SegmentJudge, cut: str | Segmenter = "sentence", *, pays: Pays = "verdict", right: float = 0.3,
        wrong: float = -0.3, threshold: float = 0.5, aspect: str = "", name: str | None = None,
    ) -> None:  # fmt: skip
        if pays not in get_args(Pays):
            raise unknown("way to pay", pays, get_args(Pays))
        if not (isfinite(right) and isfinite(wrong) and right > wrong):
            raise GuerdonError(f"a right segment must be paid more than a wrong one, got {right} and {wrong}")
        self.judge, self.cut, self.pays, self.aspect = judge, segmenter(cut), pays, aspect
        self.right, self.wrong, self.threshold = float(right), float(wrong), float(threshold)
        self._cut_name = cut if isinstance(cut, str) else name_of(cut)
        self.__name__ = name or f"segments_{name_of(judge)}"

    def dense(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> DenseOutcomes:
        """One scored span a segment."""
        texts = [completion_text(one) for one in completions]
        cuts = [self.cut(text) for text in texts]
        said = self.judge(prompts, [[span.of(text) for span in spans] for text, spans in zip(texts, cuts)], **columns)
        if len(said) != len(texts):
            raise GuerdonError(f"the judge of {self.__name__!r} gave {len(said)} rows for {len(texts)} completions")
        found: DenseOutcomes = []
        for spans, row in zip(cuts, said):
            if row is None or isinstance(row, Failed):
                found.append(row)
            elif len(row) != len(spans):
                found.append(Failed(f"the judge gave {len(row)} probabilities for {len(spans)} segments", "misaligned"))
            elif not all(0 <= float(p) <= 1 for p in row):
                found.append(Failed("the judge gave what is no probability", "out_of_range"))
            else:
                found.append([SpanScore(s.start, s.end, self._paid(float(p)), self.aspect) for s, p in zip(spans, row)])
        return found

    def _paid(self, p: float) -> float:
        if self.pays == "probability":
            return self.wrong + p * (self.right - self.wrong)
        return self.right if p > self.threshold else self.wrong

    def identity(self) -> str:
        """Name, version, and a hash of the judge, the cut and what is paid."""
        settings = [identity(self.judge), self._cut_name, self.pays, self.right, self.wrong, self.threshold]
        return f"{self.__name__}@{self.version}#{config_hash(settings)}"


class PrefixDifference(DenseReward):
    """What each segment adds to the score of the text so far: r_j = R(y_1..y_j) - R(y_1..y_{j-1}).

    reward:  any reward of whole texts, higher = better; with R = 1 - toxicity this is the published fine-grained reward
             of detoxification, P(y_<j) - P(y_<=j).
    empty:   R of the empty text, where the reward cannot score it. None: it is asked.

    The differences sum to R(y) - R(empty): a potential, so that only the credit moves, not the aim (at gamma = 1).
    Costs one score a segment. A completion of which any beginning fails, fails; the same with "does not apply".
    Source: arXiv 2306.01693, detoxification.
    """

    def __init__(
        self, reward: Any, cut: str | Segmenter = "sentence", *, empty: float | None = None, aspect: str = "",
        name: str | None = None,
    ) -> None:  # fmt: skip
        self.reward, self.cut, self.empty, self.aspect = reward, segmenter(cut), empty, aspect
        self._cut_name = cut if isinstance(cut, str) else name_of(cut)
        ends = range_of(reward)
        self.range = None if ends is None else (ends[0] - ends[1], ends[1] - ends[0])
        self.__name__ = name or f"added_{name_of(reward)}"

    def dense(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> DenseOutcomes:
        """One scored span a segment."""
        texts = [completion_text(one) for one in completions]
        cuts = [self.cut(text) for text in texts]
        asked = [(row, end) for row, spans in enumerate(cuts) for end in [0, *(span.end for span in spans)] if spans]
        if self.empty is not None:
            asked = [(row, end) for row, end in asked if end]
        said = self._scored([(row, texts[row][:end]) for row, end in asked], prompts, completions, columns)
        scores = dict(zip(asked, said, strict=True))
        found: DenseOutcomes = []
        for row, spans in enumerate(cuts):
            values = [scores.get((row, end), self.empty) for end in [0, *(span.end for span in spans)] if spans]
            missing = [one for one in values if not isinstance(one, float)]
            if missing:
                failed = [one for one in missing if isinstance(one, Failed)]
                found.append(failed[0] if failed else None)
                continue
            steps = [float(b) - float(a) for a, b in zip(values, values[1:])]  # type: ignore[arg-type]
            found.append([SpanScore(s.start, s.end, v, self.aspect) for s, v in zip(spans, steps)])
        return found

    def _scored(
        self, asked: list[tuple[int, str]], prompts: Any, completions: Sequence[Any], columns: dict[str, Any]
    ) -> list[Any]:
        """Outcomes of the beginnings, each with its own row's prompt and columns."""
        if not asked:
            return []
        whole = Batch.of(prompts, completions, columns, self.__name__)
        rows = [row for row, _ in asked]
        own = {key: [values[row] for row in rows] for key, values in whole.columns.items()}
        begun = [
            [{"role": "assistant", "content": text}] if isinstance(completions[row], list) else text
            for row, text in asked
        ]
        batch = Batch.of([whole.prompts[row] for row in rows], begun, {**own, **whole.shared}, name_of(self.reward))
        return read_result(call_now(self.reward, batch), len(asked), name_of(self.reward)).outcomes()

    def identity(self) -> str:
        """Name, version, and a hash of the reward, the cut and the score of nothing."""
        return f"{self.__name__}@{self.version}#{config_hash([identity(self.reward), self._cut_name, self.empty])}"


class MomentScaled:
    """((R - mean) / std) scale + bias, by moments measured before: the published scaling of whole-text rewards.

    Published: completeness mean -0.4468, std 8.3012, scale 0.3, bias 0; the holistic baseline mean 0.9224, std 1.5606,
    scale 1. The moments are one checkpoint's: another reward model needs its own. Raises GuerdonError for a std that is
    not above 0. Source: arXiv 2306.01693, its released configuration.
    """

    version = "1"

    def __init__(
        self, reward: Any, mean: float, std: float, *, scale: float = 1.0, bias: float = 0.0, name: str | None = None
    ) -> None:
        if not (std > 0 and all(map(isfinite, (mean, std, scale, bias)))):
            raise GuerdonError(f"moments must be finite and std above 0, got mean {mean} and std {std}")
        self.reward, self.mean, self.std, self.scale, self.bias = reward, mean, std, scale, bias
        self.groupwise = bool(getattr(reward, "groupwise", False))
        self.on_failure = getattr(reward, "on_failure", "raise")
        ends = range_of(reward)
        # A negative scale turns the range round.
        low_high = None if ends is None else tuple(sorted(map(self._scaled, ends)))
        self.range = low_high if low_high and low_high[0] < low_high[1] else None
        self.__name__ = name or f"scaled_{name_of(reward)}"

    def __call__(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> list[float | None | Failed]:
        """One outcome a completion."""
        batch = Batch.of(prompts, completions, columns, self.__name__)
        outcomes = read_result(call_now(self.reward, batch), len(completions), name_of(self.reward)).outcomes()
        return [self._scaled(one) if isinstance(one, float) else one for one in outcomes]

    def _scaled(self, value: float) -> float:
        return (value - self.mean) / self.std * self.scale + self.bias

    def identity(self) -> str:
        """Name, version, and a hash of the reward and the moments."""
        settings = [identity(self.reward), self.mean, self.std, self.scale, self.bias]
        return f"{self.__name__}@{self.version}#{config_hash(settings)}"
