"""Step scores of a process reward model as a dense reward that is safe to climb.

Source: On Designing Effective RL Reward at Training Time for LLM Reasoning (arXiv 2410.15115).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash, identity, name_of
from guerdon.core.outcome import Failed
from guerdon.core.segments import Segmenter, SpanScore, segmenter
from guerdon.models.step_scorer import load_step_scorer
from guerdon.objectives.step_rewards import LastStep, Mode, shape_steps
from guerdon.rewards.composite import group_ids
from guerdon.rewards.dense import DenseOutcomes, DenseReward

__all__ = ["ProcessReward", "load"]


def load(
    path: str | Path, *, trust_remote_code: bool = False, device: str | None = None, **options: Any
) -> ProcessReward:
    """The reward of a process reward model's folder or hub id; ``options`` are those of `ProcessReward`."""
    return ProcessReward(load_step_scorer(path, trust_remote_code=trust_remote_code, device=device), **options)


class ProcessReward(DenseReward):
    """alpha times the shaped scores of a completion's steps, each paid at its step's end; beside a success reward.

    scorer:  a judge of segments (`guerdon.rewards.text.segment.SegmentJudge`), such as a process reward model
             (`guerdon.models.step_scorer.StepScorer`): probabilities in [0, 1].
    cut:     what a step is; default a line. UNVERIFIED in the paper.
    mode, eta, last_step: of `guerdon.objectives.step_rewards.shape_steps`; clip_delta is the paper's best, "none" the
             raw scores, which are hacked. Groups of "group_mean" are equal prompts, or the column ``group_ids``.
    alpha:   weight beside the success reward, above 0. UNVERIFIED in the paper; 0.2 in the toy of its claim here.

    Delta is a matter of which step is paid: summed to one number, only the first step's score is left. A trainer that
    is not dense therefore gets a warning, once. What is logged through ``log_metric``: the mean score of a step, the
    steps a completion, and the share of the steps whose reward is not 0.

    Raises GuerdonError for an unknown mode or segmenter, or an alpha that is not above 0.
    """

    def __init__(
        self, scorer: Any, cut: str | Segmenter = "step", *, mode: Mode = "clip_delta",
        eta: float | Literal["group_mean"] | tuple[Literal["quantile"], float] = "group_mean", alpha: float = 0.2,
        last_step: LastStep = "drop", aspect: str = "process", name: str | None = None,
    ) -> None:  # fmt: skip
        if mode not in get_args(Mode):
            raise unknown("mode", mode, get_args(Mode))
        if not 0 < alpha < float("inf"):
            raise GuerdonError(f"alpha must be above 0 and finite, got {alpha}")
        self.scorer, self.cut, self.mode, self.eta, self.alpha = scorer, segmenter(cut), mode, eta, float(alpha)
        self.last_step, self.aspect = last_step, aspect
        self._cut_name = cut if isinstance(cut, str) else name_of(cut)
        # A threshold over the steps of other completions makes a score a matter of the group.
        self.groupwise = mode in ("clip", "clip_delta") and not isinstance(eta, int | float)
        self.range = {"clip_delta": (-alpha, alpha), "delta": (0.0, alpha), "normed": (0.0, alpha)}.get(mode)
        self._warned = False
        self.__name__ = name or f"process_{mode}"

    def dense(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> DenseOutcomes:
        """One scored span a step."""
        texts = [completion_text(one) for one in completions]
        cuts = [self.cut(text) for text in texts]
        said = self.scorer(prompts, [[span.of(text) for span in spans] for text, spans in zip(texts, cuts)], **columns)
        if len(said) != len(texts):
            raise GuerdonError(f"the scorer of {self.__name__!r} gave {len(said)} rows for {len(texts)} completions")
        found: DenseOutcomes = [[] for _ in texts]
        for row, scores in enumerate(said):
            if scores is None or isinstance(scores, Failed):
                found[row] = scores
            elif len(scores) != len(cuts[row]):
                found[row] = Failed(f"{len(scores)} scores for {len(cuts[row])} steps", "misaligned")
            elif not all(0 <= float(one) <= 1 for one in scores):
                found[row] = Failed("a step score is no probability: apply the sigmoid or softmax", "out_of_range")
        rows = [row for row, outcome in enumerate(found) if isinstance(outcome, list) and cuts[row]]
        if not rows:
            return found
        groups = group_ids(prompts, columns)[torch.tensor(rows)]
        width = max(len(cuts[row]) for row in rows)
        scores = torch.zeros(len(rows), width, dtype=torch.float64)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for place, row in enumerate(rows):
            scores[place, : len(cuts[row])] = torch.tensor([float(one) for one in said[row]], dtype=torch.float64)
            mask[place, : len(cuts[row])] = True
        shaped = shape_steps(
            scores, mask, mode=self.mode, eta=self.eta, alpha=self.alpha, group_ids=groups, last_step=self.last_step
        )
        for place, row in enumerate(rows):
            paid = shaped.per_step[place].tolist()
            found[row] = [SpanScore(s.start, s.end, v, self.aspect) for s, v in zip(cuts[row], paid)]
        log = columns.get("log_metric")
        if callable(log):
            log(f"{self.__name__}/step_score", float(scores[mask].mean()))
            log(f"{self.__name__}/steps", float(mask.sum(dim=1).double().mean()))
            log(f"{self.__name__}/nonzero_share", shaped.nonzero_share)
        return found

    def __call__(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> list[float | None | Failed]:
        """One outcome a completion: the sum over its steps, with a warning where that sum loses the point."""
        if self.mode in ("delta", "clip_delta") and not self._warned:
            self._warned = True
            warnings.warn(
                f"reward {self.__name__!r} is summed to one number a completion, of which only the first step's score "
                "is left; train with guerdon.trainers.dense_grpo.DenseGRPO, which pays each step",
                stacklevel=2,
            )
        return super().__call__(prompts, completions, **columns)

    def identity(self) -> str:
        """Name, version, and a hash of the scorer and the shaping."""
        eta = list(self.eta) if isinstance(self.eta, tuple) else self.eta
        settings = [identity(self.scorer), self._cut_name, self.mode, eta, self.alpha, self.last_step]
        return f"{self.__name__}@{self.version}#{config_hash(settings)}"
