"""The world a prompt rewriter acts in: its text is drawn by a frozen image model and the pictures are scored.

Source: RealGen (arXiv 2512.00473), stage 1. Its code is not released: how malformed answers, common random numbers and
the combination of rewards are handled follows the card's construction and is UNVERIFIED against the paper.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guerdon.core.answer import completion_text, parse_answer
from guerdon.core.errors import GuerdonError, nearest
from guerdon.core.identity import config_hash
from guerdon.core.outcome import Failed, Scores
from guerdon.metrics.text_diversity import commonest_tail_share, distinct_n
from guerdon.objectives.advantages import group_advantages
from guerdon.rewards.bank import BankScores, RewardBank
from guerdon.rewards.composite import ConstantTerms, bounds_of, group_ids, scaled, training_step

Draw = Callable[[list[str], list[int]], Tensor]
Floats = NDArray[np.float64]


def latent_seed(seed: int, step: int, prompt: str, image: int) -> int:
    """A 31-bit seed of (run seed, training step, user prompt, image number): common random numbers without any state.

    It does not depend on the rewrite, so that the completions of one group differ by their text only, nor on the order
    of calls, so that a resumed run draws what the uninterrupted one would have drawn.
    """
    digest = hashlib.blake2b(json.dumps([seed, step, prompt, image]).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


class PromptRewriterEnv:
    """A TRL reward function for prompt rewriters: parse the answer, draw pictures of it, score them.

    1. The last ``<answer>`` of a completion is parsed. A malformed or empty one gets format reward 0 and no picture.
    2. ``images_per_rewrite`` pictures are drawn of each rewrite, on the same latent seeds for all completions of a user
       prompt at a training step. Equal (text, seed) pairs are drawn once.
    3. The bank scores every picture against the USER's prompt, so that a rewrite cannot drop content for free; a part's
       score is its mean over the pictures that have one. Rewards find the rewritten text in the column ``rewrite``.
    4. "per_reward_z" returns the bank's group-relative advantages, with the format as one more reward. In every other
       reward a malformed completion takes the lowest score of its group, so that it never beats a well-formed one.
       Use ``scale_rewards="none"`` in TRL. "weighted" returns format_weight * format + sum_k w_k R_k, and ``floor`` for
       malformed completions; TRL standardises it.

    A sample in which a reward failed has no score: it is dropped, never paid. Part means, format rate, rewrite length
    and diversity go to ``log_metric``, the rewrites to ``log_extra``.

    Args:
        draw: (prompts [M], seeds [M]) -> float images [M, 3, H, W] in [0, 1]; image i depends on (prompt, seed) i only.
        bank: rewards on pictures; its ``combine``, ``std``, ``clip`` and weights are used.
        images_per_rewrite: n >= 1.
        combine: default "per_reward_z" if the bank says so, else "weighted".
        format_weight: weight of the format reward, >= 0.
        floor: the declared reward of malformed completions ("weighted" only), in raw units.
        require_think: a completion without a think block is malformed.
        seed: of the latent seeds.
        prompt_column: the column with the user's prompts.
        name: the reward's name in logs.

    Raises:
        GuerdonError: a setting out of range, or a ``floor`` above the lowest reward a well-formed completion may get.
    """

    version = "1"
    groupwise = True
    range: tuple[float, float] | None = None
    on_failure = "drop_sample"

    def __init__(
        self,
        draw: Draw,
        bank: RewardBank,
        *,
        images_per_rewrite: int = 1,
        combine: Literal["per_reward_z", "weighted"] | None = None,
        format_weight: float = 1.0,
        floor: float = 0.0,
        require_think: bool = True,
        seed: int = 0,
        prompt_column: str = "user_prompt",
        name: str = "rewriter",
    ) -> None:
        if images_per_rewrite < 1:
            raise GuerdonError(f"images_per_rewrite must be at least 1, got {images_per_rewrite}")
        if not (format_weight >= 0 and math.isfinite(format_weight) and math.isfinite(floor)):
            raise GuerdonError(f"format_weight must be >= 0 and floor finite, got {format_weight} and {floor}")
        self.draw, self.bank, self.images_per_rewrite = draw, bank, images_per_rewrite
        self.combine = combine or ("per_reward_z" if bank.combine == "per_reward_z" else "weighted")
        if self.combine not in ("per_reward_z", "weighted"):
            raise GuerdonError(f"combine must be 'per_reward_z' or 'weighted', got {combine!r}")
        self.format_weight, self.floor, self.require_think = format_weight, floor, require_think
        self.seed, self.prompt_column, self.__name__ = seed, prompt_column, name
        # A good rewriter may align perfectly in a few groups; a dead term stays tied in all of them.
        self._constant = ConstantTerms(f"reward '{name}'", groups=32)
        lowest = format_weight + sum(scaled(bounds_of(r), bank.weights[k])[0] for k, r in bank.rewards.items())
        if self.combine == "weighted" and math.isfinite(lowest) and floor > lowest:
            raise GuerdonError(
                f"floor {floor} is above {lowest:g}, the least a well-formed rewrite may get: a malformed one would pay"
            )

    @property
    def scale_rewards(self) -> str:
        """What TRL's ``scale_rewards`` has to be: advantages are not to be standardised again."""
        return "none" if self.combine == "per_reward_z" else self.bank.std

    def identity(self) -> str:
        """name@version#hash over the bank's rewards and every setting that decides the score (not the image model)."""
        settings = {
            "rewards": self.bank.identities(),
            "weights": self.bank.weights,
            "bank": [self.bank.combine, self.bank.std, self.bank.clip, self.bank.eps, self.bank.normalise_weights],
            "env": [
                self.images_per_rewrite,
                self.combine,
                self.format_weight,
                self.floor,
                self.require_think,
                self.seed,
            ],
        }
        return f"{self.__name__}@{self.version}#{config_hash(settings)}"

    def score_texts(
        self, texts: Sequence[str], user_prompts: Sequence[str], *, step: int = 0, **columns: Any
    ) -> dict[str, Floats]:
        """name -> float64 [N]: scores of pictures drawn of ``texts``, judged against ``user_prompts``; NaN where none.

        Draws on the seeds of training step ``step``: texts of one user prompt are compared on the same random numbers.
        """
        return {name: row for name, (row, _) in self._score_pictures(texts, user_prompts, step, columns).items()}

    def scores(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> Scores:
        """Reward of N completions; parts are "format" and the bank's rewards (NaN where no picture was drawn).

        Args:
            prompts: N prompts as the language model saw them; equal ones are one group unless there is a column
                ``group_ids``.
            completions: N strings or message lists.
            columns: the user's prompts in ``prompt_column``, TRL's ``trainer_state`` and whatever the bank's rewards
                need.

        Raises:
            GuerdonError: no column of user prompts, or ``draw`` returned something that is not M images in [0, 1].
        """
        users = self._user_prompts(columns, len(completions))
        answers = [parse_answer(completion_text(c), require_think=self.require_think) for c in completions]
        rows = np.array([i for i, answer in enumerate(answers) if answer is not None], dtype=np.int64)
        formed = np.zeros(len(answers), dtype=bool)
        formed[rows] = True
        names = list(self.bank.rewards)
        parts = {name: np.full(len(answers), np.nan) for name in names}
        failures: dict[int, Failed] = {}
        if len(rows):
            kept = {
                key: [value[i] for i in rows]
                if isinstance(value, (list, tuple)) and len(value) == len(answers)
                else value
                for key, value in columns.items()
                if key not in (self.prompt_column, "group_ids", "log_metric", "log_extra", "completion_ids")
            }
            texts, step = [str(answers[i]) for i in rows], training_step(columns) or 0
            for name, (values, failed) in self._score_pictures(texts, [users[i] for i in rows], step, kept).items():
                parts[name][rows] = values
                for row, failure in failed.items():
                    failures.setdefault(int(rows[row]), Failed(f"{name}: {failure.cause}", failure.kind))
        broken = np.zeros(len(answers), dtype=bool)
        broken[list(failures)] = True
        groups = group_ids(prompts, columns)
        if self.combine == "weighted":
            values, valid = self._weighted(parts, formed)
        else:
            values, valid = self._standardised(parts, formed, broken, groups)
        valid &= ~broken
        shown = {"format": formed.astype(np.float64), **parts}
        return Scores(np.where(valid, values, np.nan), valid, failures, shown, self.identity())

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """``scores`` as TRL wants them: a list with ``None`` where a sample was dropped; logs parts and diversity."""
        result = self.scores(prompts, completions, **columns)
        answers = [parse_answer(completion_text(c), require_think=self.require_think) for c in completions]
        texts = [answer for answer in answers if answer is not None]
        log_metric, log_extra = columns.get("log_metric"), columns.get("log_extra")
        if callable(log_metric):
            row = {name: float(np.nanmean(p)) for name, p in result.parts.items() if np.isfinite(p).any()}
            weighted = self.bank.weights.items()
            if all(name in row for name, weight in weighted if weight):
                row["weighted"] = sum(weight * row[name] for name, weight in weighted if weight)
            row["failed"] = len(result.failures) / max(1, len(answers))
            if texts:
                row |= {"distinct_2": distinct_n(texts, 2), "commonest_tail_share": commonest_tail_share(texts)}
                row["words"] = sum(len(text.split()) for text in texts) / len(texts)
            for name, value in row.items():
                if math.isfinite(value):
                    log_metric(f"{self.__name__}/{name}", value)
        if callable(log_extra):
            log_extra("rewrite", [answer or "" for answer in answers])
        return result.as_list()

    def _user_prompts(self, columns: Mapping[str, Any], rows: int) -> list[str]:
        users = columns.get(self.prompt_column)
        if users is None:
            guess = nearest(self.prompt_column, columns)
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise GuerdonError(
                f"reward {self.__name__!r} needs the users' prompts in column {self.prompt_column!r}{hint}"
            )
        if len(users) != rows:
            raise GuerdonError(f"column {self.prompt_column!r} has {len(users)} rows for {rows} completions")
        return [str(user) for user in users]

    def _score_pictures(
        self, texts: Sequence[str], users: Sequence[str], step: int, columns: Mapping[str, Any]
    ) -> dict[str, tuple[Floats, dict[int, Failed]]]:
        """name -> (mean score over a rewrite's pictures [N], failures of rewrites none of whose pictures has a
        score)."""
        n = self.images_per_rewrite
        wanted = [
            (text, latent_seed(self.seed, step, user, j))
            for text, user in zip(texts, users, strict=True)
            for j in range(n)
        ]
        once = {key: index for index, key in enumerate(dict.fromkeys(wanted))}
        images = self._drawn([text for text, _ in once], [seed for _, seed in once])
        pictures = images[torch.tensor([once[key] for key in wanted], device=images.device)]
        many = {
            key: [entry for entry in value for _ in range(n)]
            if isinstance(value, (list, tuple)) and len(value) == len(texts)
            else value
            for key, value in columns.items()
        }
        many["rewrite"] = [text for text in texts for _ in range(n)]
        scored = self.bank.score([user for user in users for _ in range(n)], pictures, **many)
        return {name: _per_rewrite(scored, name, n) for name in self.bank.rewards}

    def _drawn(self, texts: list[str], seeds: list[int]) -> Tensor:
        images = self.draw(texts, seeds)
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[:2] != (len(texts), 3):
            got = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise GuerdonError(f"draw must return images [{len(texts)}, 3, H, W], got {got}")
        images = images.detach().float()
        if not bool(torch.isfinite(images).all()) or float(images.min()) < -1e-3 or float(images.max()) > 1 + 1e-3:
            raise GuerdonError("draw must return finite images in [0, 1]")
        return images

    def _weighted(self, parts: Mapping[str, Floats], formed: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.bool_]]:
        total = np.full(len(formed), self.format_weight)
        for name, weight in self.bank.weights.items():
            if weight:
                total = total + weight * parts[name]
        values = np.where(formed, total, self.floor)
        return values, np.isfinite(values)

    def _standardised(
        self, parts: Mapping[str, Floats], formed: NDArray[np.bool_], broken: NDArray[np.bool_], groups: Tensor
    ) -> tuple[Floats, NDArray[np.bool_]]:
        ids = groups.numpy()
        rows = [formed.astype(np.float64)]
        for row in parts.values():
            row = np.where(broken, np.nan, row)
            for group in np.unique(ids[~formed]):
                members = ids == group
                drawn = row[members & formed]
                if np.isfinite(drawn).any():
                    row[members & ~formed] = np.nanmin(drawn)
            rows.append(row)
        stacked = np.stack(rows)
        stacked[:, broken] = np.nan
        seen = {name: (row, np.isfinite(row) & formed) for name, row in zip(parts, stacked[1:], strict=True)}
        self._constant.check({name: term for name, term in seen.items() if self.bank.weights[name]}, groups)
        advantages = group_advantages(
            torch.from_numpy(stacked),
            groups,
            std=self.bank.std,
            eps=self.bank.eps,
            weights=[self.format_weight, *self.bank.weights.values()],
            normalise_weights=self.bank.normalise_weights,
            clip=self.bank.clip,
        )
        valid = ~formed | np.isfinite(stacked[1:]).any(axis=0)
        return advantages.double().numpy(), valid


def _per_rewrite(scored: BankScores, name: str, n: int) -> tuple[Floats, dict[int, Failed]]:
    valid = scored.part_valid[name].reshape(-1, n)
    values = np.where(valid, scored.parts[name].reshape(-1, n), 0.0)
    counts = valid.sum(axis=1)
    means = np.where(counts > 0, values.sum(axis=1) / np.maximum(counts, 1), np.nan)
    failures: dict[int, Failed] = {}
    for image, failure in scored.failures.get(name, {}).items():
        if counts[image // n] == 0:
            failures.setdefault(image // n, failure)
    return means, failures
