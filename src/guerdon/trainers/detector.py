"""Training a detector of generated images on real and fake pictures, with corrupted photographs among the fakes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from guerdon.core.errors import GuerdonError
from guerdon.metrics.detection import auroc, balanced_accuracy
from guerdon.models.detectors.corruptions import augment, corrupt
from guerdon.models.detectors.small import FAKE, REAL, StatisticsMLP, make_detector, p_real
from guerdon.objectives.discriminator import soft_label_cross_entropy


@dataclass(frozen=True)
class DetectorReport:
    """How well a detector tells held-out real from held-out fake pictures.

    `balanced_accuracy` is at P(real) = 0.5, `auroc` is threshold-free; the means are mean P(real) of each kind;
    `corrupted_mean` is that of corrupted real pictures, which a robust detector keeps low; `loss` is the mean training
    loss of the last tenth of the steps.
    """

    balanced_accuracy: float
    auroc: float
    real_mean: float
    fake_mean: float
    corrupted_mean: float
    loss: float
    steps: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def check_classes(real: Tensor, fake: Tensor, least: int) -> None:
    """Raise GuerdonError unless both are images of one size, at least `least` of each."""
    for name, images in (("real", real), ("fake", fake)):
        if images.ndim != 4 or images.shape[1] != 3:
            raise GuerdonError(f"{name} images must be a tensor [N, 3, H, W] in [0, 1], got {list(images.shape)}")
        if len(images) < least:
            raise GuerdonError(f"{name} images: need at least {least}, got {len(images)}")
    if real.shape[1:] != fake.shape[1:]:
        raise GuerdonError(
            f"real and fake images differ in size ({list(real.shape[2:])} and {list(fake.shape[2:])}): "
            "bring both to one size the same way, or the detector learns the size"
        )


def evaluate_detector(
    model: nn.Module, real: Tensor, fake: Tensor, *, generator: torch.Generator, loss: float = math.nan, steps: int = 0
) -> DetectorReport:
    """Score held-out images of both classes, [N, 3, H, W] in [0, 1], and corrupted copies of the real ones."""
    real_scores, fake_scores = p_real(model, real), p_real(model, fake)
    corrupted_scores = p_real(model, corrupt(real, generator))
    return DetectorReport(
        balanced_accuracy=balanced_accuracy(real_scores.cpu().numpy(), fake_scores.cpu().numpy()),
        auroc=auroc(real_scores.cpu().numpy(), fake_scores.cpu().numpy()),
        real_mean=float(real_scores.mean()),
        fake_mean=float(fake_scores.mean()),
        corrupted_mean=float(corrupted_scores.mean()),
        loss=loss,
        steps=steps,
    )


def train_detector(
    model: nn.Module,
    real: Tensor,
    fake: Tensor,
    *,
    corrupt_real_as_fake: bool | float = 0.5,
    augment_both: bool = True,
    label_smoothing: float = 0.05,
    steps: int = 300,
    batch_size: int = 64,
    lr: float = 1e-3,
    weight_decay: float = 1e-4,
    holdout: float = 0.2,
    generator: torch.Generator | None = None,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> DetectorReport:
    """Train a two-logit detector in place on images [N, 3, H, W] in [0, 1] and report on a held-out share.

    Every batch is half real, half fake. `corrupt_real_as_fake` is the share of the fake half that is corrupted pictures
    (True = 0.5, False = 0): real ones, and as many fakes, since noise added to a fake is the generator's shortest way
    past a detector that saw noise on photographs only. `augment_both` blurs, noises and mirrors both alike. Targets are
    soft, (1 - s, s) and (s, 1 - s). A statistics model not yet calibrated is calibrated on the training share.
    Everything random comes from `generator` (default: seed 0), so equal calls give equal weights. `progress` is called
    as progress(step, {"loss": ..., "accuracy": ...}). The model is left in evaluation mode.

    Source: RealGen V1 README (corrupted negatives), V2 (soft targets .95/.05, augmentation); the rates are ours.
    Raises GuerdonError for classes that are too small or of different sizes, or a share outside [0, 1).
    """
    check_classes(real, fake, least=4)
    share = 0.5 * corrupt_real_as_fake if isinstance(corrupt_real_as_fake, bool) else float(corrupt_real_as_fake)
    limits = (
        ("corrupt_real_as_fake", share, 1.0),
        ("holdout", holdout, 1.0),
        ("label_smoothing", label_smoothing, 0.5),
    )
    for name, value, limit in limits:
        if not 0.0 <= value < limit:
            raise GuerdonError(f"{name} must lie in [0, {limit:g}), got {value:g}")
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    real_train, real_test = _split(real.float(), holdout, generator)
    fake_train, fake_test = _split(fake.float(), holdout, generator)

    if isinstance(model, StatisticsMLP) and not model.calibrated:
        seen = torch.cat([real_train, fake_train])
        if share > 0.0:  # the spread of the statistics has to cover what the detector will be shown
            seen = torch.cat([seen, corrupt(real_train, generator)])
        model.calibrate(augment(seen, generator) if augment_both else seen)

    half = max(1, batch_size // 2)
    corrupted = round(share * half)
    optimiser = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=lr, betas=(0.9, 0.999), weight_decay=weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / 10) * 0.5 * (1.0 + math.cos(math.pi * step / max(1, steps)))
    )
    losses: list[float] = []
    model.train()
    for step in range(steps):
        positives = _draw(real_train, half, generator)
        negatives = _draw(fake_train, half - corrupted, generator)
        if corrupted:
            from_fake = corrupted // 2
            sources = [_draw(real_train, corrupted - from_fake, generator), _draw(fake_train, from_fake, generator)]
            negatives = torch.cat([negatives, corrupt(torch.cat(sources), generator)])
        batch = torch.cat([positives, negatives])
        if augment_both:
            batch = augment(batch, generator)
        logits = model(batch)
        loss = soft_label_cross_entropy(logits[:half], logits[half:], confidence=1.0 - label_smoothing, real_index=REAL)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if progress is not None:
            right = (logits[:half].argmax(1) == REAL).sum() + (logits[half:].argmax(1) == FAKE).sum()
            progress(step, {"loss": losses[-1], "accuracy": float(right) / (2 * half)})
    model.eval()
    tail = losses[-max(1, len(losses) // 10) :]
    return evaluate_detector(
        model,
        real_test,
        fake_test,
        generator=generator,
        loss=sum(tail) / len(tail) if tail else math.nan,
        steps=steps,
    )


def fresh_detector_accuracy(
    real: Tensor,
    fake: Tensor,
    family: str = "cnn",
    *,
    seed: int = 0,
    steps: int = 300,
    both_ways: bool = True,
    **options: object,
) -> float:
    """Balanced accuracy in [0, 1] of a NEW detector trained on one half and judged on the other; 0.5 is chance.

    A detector that never was a reward cannot have been hacked: the lower its accuracy, the nearer the fakes are to the
    real pictures. `both_ways` averages over the two choices of the training half. Corrupted negatives are off by
    default here, because only these two sets are to be told apart; `options` go to `train_detector`.
    """
    check_classes(real, fake, least=8)
    generator = torch.Generator().manual_seed(seed)
    halves = _split(real.float(), 0.5, generator), _split(fake.float(), 0.5, generator)
    results: list[float] = []
    for turn in range(2 if both_ways else 1):
        model = make_detector(family, seed=seed + turn).to(real.device)
        settings: dict[str, object] = {"corrupt_real_as_fake": 0.0, "steps": steps, "holdout": 0.0, **options}
        train_detector(model, halves[0][turn], halves[1][turn], generator=generator, **settings)  # type: ignore[arg-type]
        scores = p_real(model, halves[0][1 - turn]), p_real(model, halves[1][1 - turn])
        results.append(balanced_accuracy(*(part.cpu().numpy() for part in scores)))
    return sum(results) / len(results)


def _split(images: Tensor, holdout: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random (train, test) parts; with holdout 0 both are all of the images."""
    order = torch.randperm(len(images), generator=generator).to(images.device)
    if holdout == 0.0:
        return images[order], images[order]
    test = min(len(images) - 1, max(1, round(holdout * len(images))))
    return images[order[test:]], images[order[:test]]


def _draw(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return images[torch.randint(len(images), (count,), generator=generator).to(images.device)]
