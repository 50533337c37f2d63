"""A detector that is the reward and is trained against the generator that climbs it.

One sampling pass feeds both players: the images that the generator's advantages are computed from are the detector's
negatives. Source: RealGen V2 (adversarially updated detectors) and Adv-GRPO (schedules of the alternating game).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guerdon.core.errors import GuerdonError
from guerdon.models.detectors.corruptions import augment, corrupt
from guerdon.models.detectors.small import FAKE, REAL, load_strictly, p_real
from guerdon.objectives.discriminator import soft_label_cross_entropy
from guerdon.objectives.ema_schedule import ema_decay as decay_after
from guerdon.trainers.detector import check_classes


@dataclass(frozen=True)
class Turn:
    """Which player is trained on this step's samples."""

    detector: bool
    generator: bool


UpdateSchedule = Callable[[int, float, float], Turn]
"""A schedule maps (step from 0, mean reward of the references, mean reward of the generated) to a `Turn`."""


def always() -> UpdateSchedule:
    """Both players learn at every step."""
    return lambda step, reference_mean, generated_mean: Turn(True, True)


def every(detector_steps: int, generator_steps: int, *, share_samples: bool = True) -> UpdateSchedule:
    """A cycle of detector steps followed by generator steps (Adv-GRPO's DINO variant: 9 and 1).

    With `share_samples` the generator learns in the detector's steps as well; the published rule (False) leaves the
    samples of those steps, nine tenths of all, unused by the generator.
    """
    if detector_steps < 0 or generator_steps < 0 or detector_steps + generator_steps == 0:
        raise GuerdonError(
            f"every({detector_steps}, {generator_steps}): the cycle needs at least one step, none negative"
        )

    def schedule(step: int, reference_mean: float, generated_mean: float) -> Turn:
        detector = step % (detector_steps + generator_steps) < detector_steps
        return Turn(detector, share_samples or not detector)

    return schedule


def when_generator_leads(*, share_samples: bool = True) -> UpdateSchedule:
    """The detector learns iff the references' mean reward is below the generated images' (Adv-GRPO, PickScore).

    The published rule (`share_samples=False`) does not train the generator in those steps.
    """

    def schedule(step: int, reference_mean: float, generated_mean: float) -> Turn:
        detector = reference_mean < generated_mean
        return Turn(detector, share_samples or not detector)

    return schedule


def when_above(threshold: float = 0.6) -> UpdateSchedule:
    """The detector learns in the first step (warm-up) and whenever the generated mean exceeds the threshold.

    This rule can oscillate; `always` with few steps an update tracks the generator closer. Source: RealGen V2.
    """
    return lambda step, reference_mean, generated_mean: Turn(step == 0 or generated_mean > threshold, True)


class ReplayBuffer:
    """At most `capacity` pairs of (real, fake) pictures as 8-bit tensors; once full, a new pair replaces a random one.

    Source: RealGen V2 (1,000 pairs a rank).
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 0:
            raise GuerdonError(f"buffer_size must not be negative, got {capacity}")
        self.capacity = capacity
        self.real = torch.empty(0, dtype=torch.uint8)
        self.fake = torch.empty(0, dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.real)

    def add(self, real: Tensor, fake: Tensor, generator: torch.Generator) -> None:
        """Add pairs of images [n, 3, H, W] in [0, 1]."""
        real, fake = ((x.detach().cpu() * 255.0).round().to(torch.uint8) for x in (real, fake))
        if len(self) and self.real.shape[1:] != real.shape[1:]:
            raise GuerdonError(
                f"the replay buffer holds {list(self.real.shape[2:])} images, these are {list(real.shape[2:])}"
            )
        room = min(len(real), self.capacity - len(self))
        if room > 0:
            held = (self.real, self.fake) if len(self) else (real[:0], fake[:0])
            self.real, self.fake = torch.cat([held[0], real[:room]]), torch.cat([held[1], fake[:room]])
        if self.capacity:
            for index in range(max(0, room), len(real)):
                slot = int(torch.randint(self.capacity, (1,), generator=generator))
                self.real[slot], self.fake[slot] = real[index], fake[index]

    def sample(self, count: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
        """At most `count` different pairs, as floats in [0, 1]."""
        index = torch.randperm(len(self), generator=generator)[:count]
        return self.real[index].to(device) / 255.0, self.fake[index].to(device) / 255.0


class AdversarialDetector:
    """A two-logit detector as a reward that is trained on the generator's own images.

    The reward is P(real) from an exponential moving average (EMA) of the trained weights, which keeps one update from
    turning the reward around. `update` runs passes over the given pairs in minibatches, each joined by as many replayed
    pairs, until the mean accuracy of a pass reaches `target_accuracy` or `max_passes` are done; with `steps_per_update`
    it runs exactly that many minibatches instead (cheap, for an update at every step). The loss is the mean of the soft
    cross-entropies of both classes, targets (1 - s, s) and (s, 1 - s) with s = `label_smoothing`, plus
    `extra_loss(detector)`. Fakes are joined by a share `corrupted` of corrupted pictures of both classes, so that
    noise, blur, JPEG and ringing do not become real by forgetting. Both classes are rounded to 8 bits, in scoring as in
    training, so that the detector cannot tell a stored photograph from a float tensor.

    Source: RealGen V2 (buffer 1,000, batch 16 + 16, .95/.05, 0.90 or 20 passes, AdamW 4e-5, EMA .99 with warm-up
    min((1 + n) / (10 + n), decay)). Ours: corrupted negatives during updates, 8-bit rounding, EMA counted in optimiser
    steps. `trainable` keeps only parameters whose name contains one of the words (V2: "head", "experts").
    """

    def __init__(
        self,
        detector: nn.Module,
        *,
        schedule: UpdateSchedule | None = None,
        buffer_size: int = 1000,
        batch_size: int = 16,
        target_accuracy: float = 0.9,
        max_passes: int = 20,
        steps_per_update: int | None = None,
        label_smoothing: float = 0.05,
        ema_decay: float = 0.99,
        lr: float = 4e-5,
        weight_decay: float = 0.01,
        corrupted: float = 0.25,
        augment_both: bool = True,
        trainable: Sequence[str] | None = None,
        extra_loss: Callable[[nn.Module], Tensor] | None = None,
        seed: int = 0,
        name: str = "detector",
    ) -> None:
        for option, value, limit in (
            ("label_smoothing", label_smoothing, 0.5),
            ("ema_decay", ema_decay, 1.0),
            ("corrupted", corrupted, 1.0),
        ):
            if not 0.0 <= value < limit:
                raise GuerdonError(f"{option} must lie in [0, {limit:g}), got {value:g}")
        if batch_size < 1 or max_passes < 1 or (steps_per_update is not None and steps_per_update < 1):
            raise GuerdonError("batch_size, max_passes and steps_per_update must be at least 1")
        self.name = name
        self.detector = detector
        self.ema = copy.deepcopy(detector).eval().requires_grad_(False)
        self.schedule = schedule if schedule is not None else always()
        self.buffer = ReplayBuffer(buffer_size)
        self.batch_size, self.target_accuracy, self.max_passes = batch_size, target_accuracy, max_passes
        self.steps_per_update, self.label_smoothing, self.ema_decay = steps_per_update, label_smoothing, ema_decay
        self.corrupted, self.augment_both, self.extra_loss = corrupted, augment_both, extra_loss
        self.generator = torch.Generator().manual_seed(seed)
        self.updates = 0
        self.optimiser_steps = 0
        chosen = [
            p
            for key, p in detector.named_parameters()
            if p.requires_grad and (trainable is None or any(word in key for word in trainable))
        ]
        if not chosen:
            raise GuerdonError(f"no trainable parameter of the detector has one of {list(trainable or ())} in its name")
        self._parameters = chosen
        self.optimiser = torch.optim.AdamW(chosen, lr=lr, betas=(0.9, 0.999), weight_decay=weight_decay)

    def score(self, images: Tensor) -> Tensor:
        """P(real) in [0, 1] of images [N, 3, H, W] in [0, 1] -> float32 [N], from the EMA weights."""
        return p_real(self.ema, _eight_bit(images))

    def turn(
        self,
        real: Tensor,
        fake: Tensor,
        *,
        step: int,
        mean_reward: float | None = None,
        reference_mean: float | None = None,
    ) -> tuple[Turn, float, float]:
        """What the schedule says for this step, with the (reference, generated) mean rewards it was told."""
        reference = float(self.score(real).mean()) if reference_mean is None else reference_mean
        generated = float(self.score(fake).mean()) if mean_reward is None else mean_reward
        return self.schedule(step, reference, generated), reference, generated

    def update(
        self,
        real: Tensor,
        fake: Tensor,
        *,
        step: int,
        mean_reward: float | None = None,
        reference_mean: float | None = None,
    ) -> dict[str, float]:
        """Train the detector on these images if the schedule says so; returns what happened.

        `real`, `fake`: [n, 3, H, W] and [m, 3, H, W] in [0, 1]; the shorter list is repeated to make pairs.
        `mean_reward` and `reference_mean` are the mean P(real) of the two if the caller has them (else: scored).
        Result: updated and train_generator (0 or 1), passes, steps, loss and accuracy of the last pass (if updated),
        real_mean and fake_mean (P(real) before the update), gap (real - fake), buffer (pairs held). Raises GuerdonError
        for images of different sizes.
        """
        check_classes(real, fake, least=1)
        turn, reference, generated = self.turn(
            real, fake, step=step, mean_reward=mean_reward, reference_mean=reference_mean
        )
        info = {
            "updated": float(turn.detector),
            "train_generator": float(turn.generator),
            "real_mean": reference,
            "fake_mean": generated,
            "gap": reference - generated,
            "passes": 0.0,
            "steps": 0.0,
        }
        if turn.detector:
            info.update(self._train(real, fake))
        info["buffer"] = float(len(self.buffer))
        return info

    def _train(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        device = next(self.detector.parameters()).device
        real, fake = real.to(device), fake.to(device)
        count = max(len(real), len(fake))
        pairing = torch.randperm(len(real), generator=self.generator).to(real.device)
        real = _eight_bit(real.detach())[pairing[torch.arange(count, device=real.device) % len(real)]]
        fake = _eight_bit(fake.detach())[torch.arange(count, device=fake.device) % len(fake)]
        per_pass = math.ceil(count / self.batch_size)
        budget = self.max_passes * per_pass if self.steps_per_update is None else self.steps_per_update
        steps, passes, accuracy, loss = 0, 0, 0.0, 0.0
        self.detector.train()
        while steps < budget:
            order = torch.randperm(count, generator=self.generator).to(real.device)
            results: list[tuple[float, float]] = []
            for index in order.split(self.batch_size):
                results.append(self._step(real[index], fake[index]))
                steps += 1
                if steps >= budget:
                    break
            passes += 1
            loss = sum(r[0] for r in results) / len(results)
            accuracy = sum(r[1] for r in results) / len(results)
            if self.steps_per_update is None and accuracy >= self.target_accuracy:
                break
        self.detector.eval()
        self.buffer.add(real, fake, self.generator)
        self.updates += 1
        return {"passes": float(passes), "steps": float(steps), "loss": loss, "accuracy": accuracy}

    def _step(self, real: Tensor, fake: Tensor) -> tuple[float, float]:
        if len(self.buffer):
            old_real, old_fake = self.buffer.sample(len(real), self.generator, real.device)
            real, fake = torch.cat([real, old_real]), torch.cat([fake, old_fake])
        clean = len(fake)
        extra = round(self.corrupted * len(real))
        if extra:
            chosen = torch.randperm(len(real), generator=self.generator)[:extra].to(real.device)
            sources = torch.cat([real[chosen[extra // 2 :]], fake[chosen[: extra // 2]]])
            fake = torch.cat([fake, corrupt(sources, self.generator)])
        images = torch.cat([real, fake])
        if self.augment_both:
            images = augment(images, self.generator)
        logits = self.detector(images)
        real_logits, fake_logits = logits[: len(real)], logits[len(real) :]
        loss = soft_label_cross_entropy(
            real_logits, fake_logits, confidence=1.0 - self.label_smoothing, real_index=REAL
        )
        if self.extra_loss is not None:
            loss = loss + self.extra_loss(self.detector)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self._update_ema()
        # Accuracy is over the two classes of the game; corrupted negatives are practice, not opponents.
        right = (real_logits.argmax(1) == REAL).float().mean() + (fake_logits[:clean].argmax(1) == FAKE).float().mean()
        return float(loss.detach()), float(right) / 2.0

    @torch.no_grad()
    def _update_ema(self) -> None:
        self.optimiser_steps += 1
        decay = decay_after(self.optimiser_steps, self.ema_decay)
        own = self.detector.state_dict()
        for key, average in self.ema.state_dict().items():
            if average.is_floating_point():
                average.lerp_(own[key], 1.0 - decay)
            else:
                average.copy_(own[key])

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to go on with the same numbers, as flat tensors (fit for safetensors)."""
        state = {
            "counters": torch.tensor([self.updates, self.optimiser_steps], dtype=torch.int64),
            "generator": self.generator.get_state(),
            "buffer.real": self.buffer.real,
            "buffer.fake": self.buffer.fake,
        }
        for prefix, model in (("detector", self.detector), ("ema", self.ema)):
            state |= {f"{prefix}.{key}": value for key, value in model.state_dict().items()}
        for index, parameter in enumerate(self._parameters):
            for key, value in self.optimiser.state.get(parameter, {}).items():
                state[f"optimiser.{index}.{key}"] = torch.as_tensor(value)
        return {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` gave. Raises GuerdonError naming a missing, unknown or misshapen key."""
        for key in ("counters", "generator", "buffer.real", "buffer.fake"):
            if key not in state:
                raise GuerdonError(f"adversarial detector '{self.name}': state key '{key}' is missing")
        if len(state["buffer.real"]) > self.buffer.capacity:
            raise GuerdonError(
                f"adversarial detector '{self.name}': the saved buffer holds {len(state['buffer.real'])} pairs, "
                f"buffer_size is {self.buffer.capacity}"
            )
        for prefix, model in (("detector", self.detector), ("ema", self.ema)):
            load_strictly(model, _below(state, prefix), f"adversarial detector '{self.name}' ({prefix})")
        saved = self.optimiser.state_dict()
        saved["state"] = {}
        for key, value in _below(state, "optimiser").items():
            number, _, field = key.partition(".")
            index = int(number)
            if index >= len(self._parameters):
                raise GuerdonError(f"adversarial detector '{self.name}': state key 'optimiser.{key}' has no parameter")
            saved["state"].setdefault(index, {})[field] = value.clone()
        self.optimiser.load_state_dict(saved)
        self.buffer.real, self.buffer.fake = state["buffer.real"].clone(), state["buffer.fake"].clone()
        self.generator.set_state(state["generator"].to(torch.uint8).cpu())
        self.updates, self.optimiser_steps = (int(value) for value in state["counters"])


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) + 1 :]: value for key, value in state.items() if key.startswith(prefix + ".")}


def _eight_bit(images: Tensor) -> Tensor:
    return (images.float().clamp(0.0, 1.0) * 255.0).round() / 255.0
