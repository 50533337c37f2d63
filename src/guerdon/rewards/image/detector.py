"""Detectors of generated images as rewards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from guerdon.core.errors import GuerdonError
from guerdon.core.identity import config_hash
from guerdon.core.images import as_tensor
from guerdon.core.reward import check_range
from guerdon.models.detectors.corruptions import blur
from guerdon.models.detectors.small import check_images
from guerdon.rewards.image.completions import pixels


class DetectorReward:
    """P(real) = softmax(logits)[real_index] of any two-logit classifier, one score in [0, 1] an image.

    `transform` maps images [N, 3, H, W] in [0, 1] to what the model takes (default: as they are). The model is looked
    at as it is now, in evaluation mode, so a detector that is being trained can be a reward, and its identity changes
    with its weights. Source: RealGen, feature detectors (OmniAID, Effort), where index 0 is real.
    """

    groupwise = False
    range = (0.0, 1.0)
    on_failure = "raise"
    version = "1"

    def __init__(
        self,
        model: nn.Module,
        real_index: int = 0,
        transform: Callable[[Tensor], Tensor] | None = None,
        name: str = "detector",
        *,
        batch_size: int = 64,
    ) -> None:
        if real_index not in (0, 1):
            raise GuerdonError(f"real_index must be 0 or 1, got {real_index}")
        self.__name__ = name
        self.model, self.real_index, self.transform, self.batch_size = model, real_index, transform, batch_size

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        """P(real) of images [N, 3, H, W] in [0, 1] -> float32 [N] on the CPU."""
        images = check_images(images)
        device = next(self.model.parameters()).device
        training = self.model.training
        self.model.eval()
        try:
            scores = [self._score(part.to(device)).cpu() for part in images.split(self.batch_size)]
        finally:
            self.model.train(training)
        return torch.cat(scores) if len(images) else torch.zeros(0)

    def _score(self, images: Tensor) -> Tensor:
        logits = self.model(images if self.transform is None else self.transform(images))
        if logits.ndim != 2 or logits.shape[1] != 2:
            raise GuerdonError(
                f"reward '{self.__name__}' needs a model with two logits an image, got shape {list(logits.shape)}"
            )
        return logits.float().softmax(-1)[:, self.real_index]

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float]:
        """One P(real) an image; `prompts` are not looked at."""
        if isinstance(completions, Tensor):
            return self.score(as_tensor(completions)).tolist()
        return pixels(completions, self.score).tolist()

    def identity(self) -> str:
        """Name, version and a hash of the configuration and the weights as they are now."""
        config = [self.real_index, self.transform, type(self.model).__name__]
        return f"{self.__name__}@{self.version}#{config_hash(config, self.model.state_dict())}"


class Scorable(Protocol):
    """Anything with `score`: images [N, 3, H, W] in [0, 1] -> [N]."""

    def score(self, images: Tensor) -> Tensor: ...


class RobustScore:
    """The mean score of a judge over mild fixed views of a picture: as it is, mirrored, a bit blurred, a bit noisy.

    A pattern that pleases a detector in one exact form of the picture rarely survives all four. The views do not
    depend on the batch: the blur is fixed and every picture gets the same noise field.
    """

    def __init__(self, judge: Scorable, *, blur_sigma: float = 0.45, noise_sigma: float = 0.02, seed: int = 0) -> None:
        self.judge, self.blur_sigma, self.noise_sigma, self.seed = judge, blur_sigma, noise_sigma, seed
        self.config = {"blur_sigma": blur_sigma, "noise_sigma": noise_sigma, "seed": seed}

    def score(self, images: Tensor) -> Tensor:
        """Mean score [N] of images [N, 3, H, W] in [0, 1] over the four views."""
        field = torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(self.seed)).to(images.device)
        views = [
            images,
            images.flip(-1),
            blur(images, self.blur_sigma),
            (images + self.noise_sigma * field).clamp(0, 1),
        ]
        return torch.stack([self.judge.score(view) for view in views]).mean(0)

    def state_dict(self) -> dict[str, Tensor]:
        """The judge's weights, for the identity of a reward."""
        judge: Any = getattr(self.judge, "ema", self.judge)
        return judge.state_dict() if hasattr(judge, "state_dict") else {}


class ScoreReward:
    """The `score` of a judge as a reward: an adversarially trained detector (its EMA), or a `FoundationHead`.

    `range` is what the scores are checked against: (0, 1) for probabilities, None for logits.
    """

    groupwise = False
    on_failure = "raise"
    version = "1"

    def __init__(self, judge: Scorable, name: str = "realness", *, range: tuple[float, float] | None = None) -> None:
        self.__name__ = name
        self.judge = judge
        self.range = check_range(range, name)

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float]:
        """One score an image; `prompts` are not looked at."""
        return pixels(completions, self.judge.score).float().cpu().tolist()

    def identity(self) -> str:
        """Name, version and a hash of the judge's weights as they are now (of the scoring copy, if it keeps one)."""
        judge: Any = getattr(self.judge, "ema", self.judge)
        state = judge.state_dict() if hasattr(judge, "state_dict") else {}
        config = [type(self.judge).__name__, type(judge).__name__, getattr(self.judge, "config", {})]
        return f"{self.__name__}@{self.version}#{config_hash(config, state)}"
