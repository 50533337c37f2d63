"""A reward that is given only where its model's representation lies near something known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError
from guerdon.core.identity import name_of
from guerdon.core.outcome import Scores
from guerdon.core.preferences import Message, as_messages
from guerdon.core.reward import Reward
from guerdon.models.probe import InferenceTimeProbe
from guerdon.models.representation import Representation, RepresentationReader
from guerdon.rewards.composite import Combined, Composite, Mask, broken, numbers
from guerdon.rewards.model import load as load_model

__all__ = ["ConfidenceMaskedReward", "load"]

DEFAULT_QUANTILE = 0.6
Reader = Callable[[list[list[Message]]], Representation | NDArray[Any]]


class ConfidenceMaskedReward(Composite):
    """The reward of a sample whose state is within ``tau`` of a centroid; of others none, so that they train nothing.

    reward:  any reward, of any scale; it is asked for every sample, so that its own failures stay visible.
    reader:  conversations -> states [N, d]: a `RepresentationReader`, the one with which the probe was fitted.
    probe:   a fitted `InferenceTimeProbe`.
    tau:     the largest distance that is trusted, in units of the probe's metric; or ``quantile``: of the distances
             with which the probe was calibrated.

    A sample beyond it "does not apply" (None): group means and deviations leave it out here and in TRL's
    GRPOTrainer, and its advantage is 0. So does one without a state (too long to read). The parts are the reward
    itself, "distance" (d_min) and "kept" (1 or 0); the mean of the last is the share that trains.

    Source: MRMBench (arXiv 2511.12464), inference-time probing in RLHF: samples with d_min > d_tau are dropped from
    the policy's update. Raises GuerdonError without exactly one of ``tau`` and ``quantile``.
    """

    def __init__(
        self,
        reward: Reward,
        reader: Reader,
        probe: InferenceTimeProbe,
        *,
        tau: float | None = None,
        quantile: float | None = None,
        name: str = "confident",
    ) -> None:
        if (tau is None) == (quantile is None):
            raise GuerdonError(f"reward {name!r}: give either tau or quantile, the largest distance that is trusted")
        self.reader, self.probe = reader, probe
        self.tau = float(tau) if tau is not None else probe.threshold(quantile)  # type: ignore[arg-type]
        self._inner = name_of(reward)
        if self._inner in ("distance", "kept"):
            raise GuerdonError(f"reward {name!r}: its reward cannot be named {self._inner!r}, a part of its own")
        settings = {
            "tau": self.tau, "probe": probe.identity(), "reader": str(getattr(reader, "identity", name_of(reader)))
        }  # fmt: skip
        super().__init__(name, {self._inner: reward}, settings)

    def masked(
        self, prompts: Sequence[Any], completions: Any, **columns: Any
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """(reward, mask), [N] each: the reward as it is, NaN where it has none, and whether it may train a policy.

        For trainers that take a mask. It must be left out of group statistics too, not only of the loss.
        """
        found = self.scores(prompts, completions, **columns)
        return found.parts[self._inner], found.valid

    def _score_parts(self, prompts: Sequence[Any], completions: Any, columns: Mapping[str, Any]) -> dict[str, Scores]:
        scored = super()._score_parts(prompts, completions, columns)
        distance, read = self._distances(prompts, completions)
        return {
            **scored,
            "distance": Scores(distance, read),
            "kept": Scores(
                (read & (np.nan_to_num(distance, nan=np.inf) <= self.tau)).astype(float), np.ones_like(read)
            ),
        }

    def _combine(self, scored: Mapping[str, Scores], prompts: Sequence[Any], columns: Mapping[str, Any]) -> Combined:
        inner, kept = scored[self._inner], scored["kept"].values == 1
        return Combined(numbers(inner), inner.valid & kept, broken(inner))

    def _distances(self, prompts: Sequence[Any] | None, completions: Any) -> tuple[NDArray[np.float64], Mask]:
        asked = [None] * len(completions) if prompts is None else prompts
        conversations = [
            [*(as_messages(prompt, "user") if prompt is not None else []), *_answer(completion)]
            for prompt, completion in zip(asked, completions, strict=True)
        ]
        if not conversations:
            return np.zeros(0), np.zeros(0, dtype=bool)
        read = self.reader(conversations)
        found = read if isinstance(read, Representation) else Representation(np.asarray(read, dtype=np.float32))
        distance = np.full(len(conversations), np.nan)
        if found.kept.any():
            distance[found.kept] = self.probe.nearest(found.states[found.kept])
        return distance, found.kept


def load(
    path: str | Path,
    probe: str | Path,
    *,
    tau: float | None = None,
    quantile: float | None = None,
    template: bool = False,
    layer: int = -1,
    name: str | None = None,
    device: str | None = None,
) -> ConfidenceMaskedReward:
    """A reward model's reward behind the probe of its own states that ``guerdon bench mrmbench --out`` saved.

    path:            the reward model's folder or hub id. probe: that folder's ``probe.safetensors``.
    tau, quantile:   the largest distance that is trusted, at most one of them; without both the quantile 0.6.
    template, layer: of `RepresentationReader`; they must be those with which the probe was fitted.
    """
    chosen = load_model(path, device=device, name=name)
    reader = RepresentationReader(chosen.model, layer=layer, template=template)
    limit = {"tau": tau} if tau is not None else {"quantile": DEFAULT_QUANTILE if quantile is None else quantile}
    if tau is not None and quantile is not None:
        raise GuerdonError("give either tau or quantile, the largest distance that is trusted")
    return ConfidenceMaskedReward(
        chosen, reader, InferenceTimeProbe.load(probe), name=f"confident_{chosen.__name__}", **limit
    )


def _answer(completion: Any) -> list[Message]:
    return [{"role": "assistant", "content": completion}] if isinstance(completion, str) else list(completion)
