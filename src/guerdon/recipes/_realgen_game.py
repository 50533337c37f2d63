"""Stage 2's two players: the reward that the generator climbs, and detectors that learn from what it draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from guerdon.core.progress import Progress
from guerdon.core.reward import reward
from guerdon.policies.rollout import keyed_generator
from guerdon.recipes._realgen_config import RealGenConfig
from guerdon.recipes._realgen_world import Score, World
from guerdon.rewards.bank import BankScores, RewardBank
from guerdon.rewards.image.detector import RobustScore, ScoreReward
from guerdon.trainers.adversarial import AdversarialDetector
from guerdon.trainers.diffusion import DiffusionTrainer, Verdict
from guerdon.trainers.watch import HackingWatch


def as_reward(name: str, score: Score) -> Any:
    """A detector's P(real) as a reward that looks at the image only."""

    @reward(name=name, range=(0.0, 1.0))
    def realness(prompts: Any, completions: Tensor, **columns: Any) -> list[float]:
        return score(completions).tolist()

    return realness


@reward(name="random", range=(0.0, 1.0))
def random_reward(prompts: Any, completions: Tensor, **columns: Any) -> list[float]:
    """Noise that depends on the picture's own pixels only: a negative control, not a signal."""
    keys = (completions.flatten(1)[:, :64].double() * 255).sum(1).tolist()
    return [float(torch.rand(1, generator=keyed_generator("random", f"{key:.6f}"))) for key in keys]


@reward(name="smoothness", range=(0.0, 1.0))
def smoothness(prompts: Any, completions: Tensor, **columns: Any) -> list[float]:
    """1 - mean absolute difference of neighbouring pixels: the taste of preference rewards for smooth pictures."""
    across = (completions[..., 1:] - completions[..., :-1]).abs().mean((1, 2, 3))
    down = (completions[..., 1:, :] - completions[..., :-1, :]).abs().mean((1, 2, 3))
    return (1 - (across + down) / 2).clamp(0, 1).tolist()


class Game:
    """Scorer and callback of stage 2: scores each step's images, then lets the detectors learn from the same images.

    ``watch`` measures every few steps; its best validation score marks the checkpoint to keep, its patience stops.
    """

    def __init__(
        self,
        config: RealGenConfig,
        world: World,
        models: dict[str, nn.Module],
        scores: dict[str, Score],
        roles: dict[str, str],
        photographs: Tensor,
        watch: HackingWatch | None,
    ) -> None:
        self.config, self.photographs, self.watch = config, photographs, watch
        self.images: Tensor | None = None
        self.bar: Progress[int] | None = None
        self.adversaries = {
            name: AdversarialDetector(
                _copy(models[name]), steps_per_update=config.detectors.adversarial_steps, batch_size=32,
                lr=config.detectors.adversarial_learning_rate, ema_decay=0.9, seed=config.seed, name=name,
                corrupted=0.25 if config.safeguards.corrupted_negatives else 0.0,
                augment_both=config.safeguards.augmentation,
            )
            for name in config.detectors.training
            if config.safeguards.adversarial and models
        }  # fmt: skip
        terms: dict[str, Any] = {}
        for name in config.detectors.training:
            judge: Any = self.adversaries.get(name) or _Scored(scores[name])
            terms[name] = ScoreReward(
                RobustScore(judge) if config.safeguards.robust_reward else judge, name, range=(0.0, 1.0)
            )
        if config.reward != "detectors":
            terms = {config.reward: random_reward if config.reward == "random" else smoothness}
        weighted = {name: (term, 1.0) for name, term in terms.items()}
        self.bank = RewardBank({**weighted, "alignment": (world.alignment, config.alignment_weight)})

    def __call__(self, prompts: list[str], images: Tensor, step: int, **columns: list[Any]) -> BankScores:
        self.images = (images.detach() * 255).round() / 255
        return self.bank.score(columns["user_prompt"], self.images)

    def begin(self) -> None:
        """Measure the policy before its first step."""
        if self.watch is not None and not self.watch.rows:
            self.watch.measure(0)

    def on_step_end(self, trainer: DiffusionTrainer, step: int, metrics: dict[str, float]) -> Verdict:
        """Train the detectors on this step's images; every few steps, look at what the reward does not see."""
        if self.adversaries and self.images is not None:
            chosen = torch.randint(
                len(self.photographs), (len(self.images),), generator=keyed_generator(self.config.seed, step, "real")
            )
            for name, adversary in self.adversaries.items():
                info = adversary.update(self.photographs[chosen], self.images, step=step - 1)
                metrics[f"detector/{name}/gap"] = info["gap"]
                metrics[f"detector/{name}/accuracy"] = info.get("accuracy", float("nan"))
        verdict: Verdict = None
        if self.watch is not None and step % self.config.evaluation.watch_every == 0:
            row = self.watch.measure(step)
            metrics |= {key: value for key, value in row.items() if key != "step"}
            if self.config.safeguards.early_stopping and self.watch.best()["step"] == step:
                verdict = "best"
            elif self.watch.exhausted():
                verdict = "stop"
        if self.bar is not None:
            rewards = [value for key, value in metrics.items() if key.startswith("reward/")]
            shown = {"reward": sum(rewards) / len(rewards)}
            if self.watch is not None and self.watch.rows:
                shown["validation"] = self.watch.validation(self.watch.rows[-1])
            self.bar.advance(step - self.bar.done, **shown)
        return verdict

    def state_dict(self) -> dict[str, Any]:
        """The watch's rows (JSON)."""
        return {"rows": self.watch.rows if self.watch is not None else []}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.watch is not None:
            self.watch.rows = list(state["rows"])

    def state_tensors(self) -> dict[str, Tensor]:
        """The detectors as they are in the middle of the game, and the watch's reference images."""
        tensors = {
            f"{name}/{key}": tensor
            for name, adversary in self.adversaries.items()
            for key, tensor in adversary.state_dict().items()
        }
        if self.watch is not None and self.watch.base_images is not None:
            tensors["watch/base_images"] = self.watch.base_images
        return tensors

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        for name, adversary in self.adversaries.items():
            adversary.load_state_dict(
                {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}
            )
        if self.watch is not None and "watch/base_images" in tensors:
            self.watch.base_images = tensors["watch/base_images"]


class _Scored:
    """A scoring function as something with ``score``."""

    def __init__(self, score: Callable[[Tensor], Tensor]) -> None:
        self.score = score


def _copy(model: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(model)
