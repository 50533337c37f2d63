"""A reward model as a detector of generated text: aligned language models write what reward models like.

Its score is a signal for an audit of a policy or a corpus, never proof about a person: detectors of this kind were
reported to take formal or non-native human writing for generated (third-party benchmarks; no fairness evidence).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import identity as identity_of
from guerdon.core.preferences import Message, as_messages, text_of
from guerdon.metrics.detection import auroc
from guerdon.metrics.intervals import Interval, bootstrap_two_sample
from guerdon.metrics.text_detection import threshold_at_fpr
from guerdon.models.scalar.model import ScalarRewardModel

__all__ = ["DetectabilityReward", "RewardDetector", "alignment_drift", "load", "opening"]

Reading = Literal["text", "answer"]
READINGS = ("text", "answer")
TOKENS = 512


def opening(text: str, tokenizer: Any, tokens: int = TOKENS) -> str:
    """The beginning of ``text`` that ``tokens`` tokens hold, control tokens of the tokenizer counted in.

    Whole where it fits. ReMoDetect reads the first 512 tokens; a reward model's own limit keeps the last ones.
    """
    fits = tokenizer(text, truncation=True, max_length=tokens, verbose=False)
    whole = tokenizer(text, verbose=False)
    if len(fits["input_ids"]) == len(whole["input_ids"]):
        return text
    if getattr(tokenizer, "is_fast", False):
        spans = tokenizer(text, truncation=True, max_length=tokens, return_offsets_mapping=True)["offset_mapping"]
        return text[: max(end for _, end in spans)]
    return tokenizer.decode(fits["input_ids"], skip_special_tokens=True)


class RewardDetector:
    """Scores texts by a reward model: higher is more like a language model's.

    model:   a `ScalarRewardModel`, its folder or hub id, or anything with ``score(conversations) -> [N]``.
    reads:   "text", the text alone as an answer to nothing (the paper), or "answer", after its prompt, as the reward
             model was trained. tokens: of a text that are read, from its beginning (of models with a tokenizer).

    Source: ReMoDetect (arXiv 2405.17382); with an untuned reward model its zero-shot variant. Raises GuerdonError for
    another way of reading.
    """

    def __init__(self, model: Any, *, reads: Reading = "text", tokens: int = TOKENS) -> None:
        if reads not in READINGS:
            raise unknown("way of reading", reads, READINGS)
        self.model = ScalarRewardModel.from_pretrained(model) if isinstance(model, str | Path) else model
        self.reads, self.tokens = reads, tokens
        self.name = str(getattr(self.model, "name", type(self.model).__name__))

    def score(
        self, texts: Sequence[str], prompts: Sequence[Any] | None = None, *, progress: str | None = None
    ) -> NDArray[np.float64]:
        """Scores of texts, float64 [N], unbounded; ``prompts`` (text or messages) are needed for reads="answer".

        Raises GuerdonError for missing prompts, another number of them, an empty text, or a score that is not finite.
        """
        if isinstance(texts, str):
            raise GuerdonError("score takes a list of texts, got a single one")
        empty = next((row for row, text in enumerate(texts) if not text.strip()), None)
        if empty is not None:
            raise GuerdonError(f"text {empty} is empty: there is nothing to detect")
        if self.reads == "answer" and (prompts is None or len(prompts) != len(texts)):
            raise GuerdonError(f"reads='answer' needs a prompt for each of the {len(texts)} texts")
        talks: list[list[Message]] = []
        for row, text in enumerate(texts):
            asked = as_messages(prompts[row], "user") if self.reads == "answer" and prompts is not None else []
            talks.append([*asked, {"role": "assistant", "content": self._opening(text)}])
        if not talks:
            return np.zeros(0)
        options: dict[str, Any] = {} if progress is None else {"progress": progress}
        scores = np.asarray(self.model.score(talks, **options), dtype=np.float64)
        if scores.shape != (len(talks),) or not np.isfinite(scores).all():
            raise GuerdonError(f"{self.name} gave {list(scores.shape)} scores, not all finite, for {len(talks)} texts")
        return scores

    def threshold_at_fpr(self, human: Sequence[str], fpr: float = 0.01, **columns: Any) -> float:
        """`guerdon.metrics.text_detection.threshold_at_fpr` of these human texts' scores.

        It is calibrated for texts like these only: other subjects and lengths shift the scores.
        """
        return threshold_at_fpr(self.score(human, **columns), fpr)

    def auroc(self, human: Sequence[str], generated: Sequence[str]) -> float:
        """P(a generated text scores above a human one) + half P(tie), in [0, 1], of texts alone."""
        return auroc(self.score(generated), self.score(human))

    def identity(self) -> str:
        """Name, version and hash of the model, with the way of reading."""
        own = getattr(self.model, "identity", None)
        told = str(own()) if callable(own) else identity_of(self.model)
        return f"{told}+{self.reads}{self.tokens}"

    def _opening(self, text: str) -> str:
        tokenizer = getattr(self.model, "tokenizer", None)
        return text if tokenizer is None else opening(text, tokenizer, self.tokens)


def alignment_drift(
    detector: RewardDetector, human: Sequence[str], policy: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> Interval:
    """AUROC of a reward model between a policy's texts and human ones, with its interval over texts.

    0.5: the policy writes as people do, as far as this reward model sees. Measured again and again during training, a
    rising value says that the policy moves to where the reward model is high, whether or not the texts became better:
    an alarm for over-optimisation.
    """
    own, theirs = detector.score(policy), detector.score(human)
    return bootstrap_two_sample(
        lambda rows, others: auroc(own[rows], theirs[others]), (len(own), len(theirs)), resamples=resamples, seed=seed
    )


class DetectabilityReward:
    """A detector as a reward of TRL's contract: ``sign`` times its score of each completion.

    sign:  -1 asks for texts that the detector takes for human; +1 for what it takes for generated.
    """

    groupwise = False
    range = None
    on_failure = "raise"
    version = "1"

    def __init__(self, detector: RewardDetector, *, sign: Literal[-1, 1] = -1, name: str | None = None) -> None:
        if sign not in (-1, 1):
            raise GuerdonError(f"sign must be -1 or 1, got {sign}")
        self.detector, self.sign = detector, sign
        self.__name__ = name or f"{'un' if sign < 0 else ''}detected_by_{detector.name}"

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        """One float a completion; None (does not apply) for an empty one."""
        texts = [text if isinstance(text, str) else text_of(text) for text in completions]
        rows = [row for row, text in enumerate(texts) if text.strip()]
        asked = None if self.detector.reads == "text" else [prompts[row] for row in rows]
        found = self.detector.score([texts[row] for row in rows], asked)
        scores: list[float | None] = [None] * len(texts)
        for row, value in zip(rows, found.tolist(), strict=True):
            scores[row] = self.sign * value
        return scores

    def identity(self) -> str:
        """Name, version and the detector's identity."""
        return f"{self.__name__}@{self.version}#{self.detector.identity().rpartition('#')[2]}"


def load(
    path: str | Path, sign: Literal[-1, 1] = -1, reads: Reading = "text", tokens: int = TOKENS,
    device: str | None = None, name: str | None = None,
) -> DetectabilityReward:  # fmt: skip
    """The reward of a saved or published reward model used as a detector; see `DetectabilityReward`."""
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = ScalarRewardModel.from_pretrained(path, device=where)
    return DetectabilityReward(RewardDetector(model, reads=reads, tokens=tokens), sign=sign, name=name)
