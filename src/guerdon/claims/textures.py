"""A world small enough to train a text-to-image model in it within a minute: grainy stripes of 16x16 pixels.

A prompt names a colour, the direction of the stripes, and a style word. "Real" textures have a grain whose strength
lies in a range; the base model learnt from textures with less of it, like the over-smoothed models that the paper
starts from, and the style words say how much less: there is a quality axis for a generator, and for a prompt rewriter,
to find, and a way to overshoot it. It is the card's texture world, where the grain was all there was, as images. The
real grain varies from picture to picture because a generator this small misses one exact strength by a few percent,
which any fresh detector would see. Even so 0.5 is out of reach: trained on the real textures themselves, the same net
leaves a fresh convolutional detector an accuracy of about 0.67.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guerdon.claims.tiny_flow import TinyFlow, pretrain, time_features
from guerdon.core.reward import reward
from guerdon.metrics.drift import gradients, luminance
from guerdon.models.detectors.corruptions import blur, corrupt
from guerdon.models.detectors.small import make_detector
from guerdon.policies.rollout import keyed_generator
from guerdon.trainers.detector import train_detector
from guerdon.trainers.diffusion_config import DiffusionConfig, WindowConfig

SIDE, GAIN = 16, 6.0
COLOURS = {"red": (0.65, 0.35, 0.32), "green": (0.36, 0.58, 0.38), "blue": (0.34, 0.42, 0.64)}
DIRECTIONS = ("upright", "level")
GRAIN = 0.08  # standard deviation of each channel
REAL_GRAIN = (0.8, 1.2)  # the range of real pictures' grain, in units of GRAIN
# Style word -> the range of the grain, in units of GRAIN, of the textures that the base saw under it.
STYLES = {"": (0.5, 0.8), ", raw photo": (0.65, 0.95), ", soft": (0.25, 0.5)}
USER_PROMPTS = [f"{colour} {direction} stripes" for colour in COLOURS for direction in DIRECTIONS]
PROMPTS = [prompt + style for style in STYLES for prompt in USER_PROMPTS]


def textures(prompts: Sequence[str], grain: Tensor, generator: torch.Generator) -> Tensor:
    """Textures of the prompts' colour and direction with ``grain`` [N] in units of GRAIN, [N, 3, 16, 16] in [0, 1].

    Stripes of a random wavelength (5 to 9 pixels) and phase, and white grain in each channel.
    """
    count = len(prompts)
    wavelength, phase = (torch.rand(count, 1, generator=generator) for _ in range(2))
    wave = 0.09 * torch.sin(2 * math.pi * (torch.arange(SIDE) / (5 + 4 * wavelength) + phase))
    level = torch.tensor([prompt.split()[1] == "level" for prompt in prompts]).view(-1, 1, 1, 1)
    stripes = torch.where(level, wave[:, None, :, None], wave[:, None, None, :]).expand(-1, -1, SIDE, SIDE)
    noise = GRAIN * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    colour = torch.tensor([COLOURS[prompt.split()[0]] for prompt in prompts])[..., None, None]
    return (colour + stripes + grain.view(-1, 1, 1, 1) * noise).clamp(0, 1)


def real_textures(prompts: Sequence[str], generator: torch.Generator) -> Tensor:
    """Real textures of the prompts (style words change nothing), [N, 3, 16, 16] in [0, 1]."""
    low, high = REAL_GRAIN
    return textures(prompts, low + (high - low) * torch.rand(len(prompts), generator=generator), generator)


def smoothed_textures(prompts: Sequence[str], generator: torch.Generator) -> Tensor:
    """What the base learns from: textures with as much grain as the prompts' style words say."""
    ends = torch.tensor([STYLES[prompt.split("stripes")[1]] for prompt in prompts])
    grain = ends[:, 0] + (ends[:, 1] - ends[:, 0]) * torch.rand(len(prompts), generator=generator)
    return textures(prompts, grain, generator)


def many(prompts: Sequence[str], count: int) -> list[str]:
    """``count`` prompts, each as often as the next."""
    return [prompts[place % len(prompts)] for place in range(count)]


def content_error(prompts: Sequence[str], images: Tensor) -> Tensor:
    """How far images are from their prompts' content, [N] >= 0: distance of the mean colour in units of 0.1, plus the
    share of gradient energy along the stripes instead of across. Images are blurred first, which takes the grain away.
    """
    distance, along = _content(prompts, images)
    own = torch.tensor([list(COLOURS).index(prompt.split()[0]) for prompt in prompts])
    return distance[torch.arange(len(images)), own] / 0.1 + along


def content_right(prompts: Sequence[str], images: Tensor) -> Tensor:
    """1 for each image whose colour is nearest to its prompt's and whose stripes run the right way, else 0; [N]."""
    distance, along = _content(prompts, images)
    own = torch.tensor([list(COLOURS).index(prompt.split()[0]) for prompt in prompts])
    return ((distance.argmin(1) == own) & (along < 0.5)).float()


def _content(prompts: Sequence[str], images: Tensor) -> tuple[Tensor, Tensor]:
    """Distances of the mean colour to the named ones, [N, 3], and share of gradient energy along the stripes, [N]."""
    distance = torch.cdist(images.mean((2, 3)), torch.tensor(list(COLOURS.values())))
    across, down = (g.square().mean((1, 2, 3)) for g in gradients(luminance(blur(images, 1.2))))
    level = torch.tensor([prompt.split()[1] == "level" for prompt in prompts])
    return distance, torch.where(level, across, down) / (across + down + 1e-6)


@reward(name="alignment")
def alignment(prompts: Any, completions: Tensor, **columns: Any) -> list[float]:
    """Less content error is better; the range is open below."""
    return (-content_error(prompts, completions)).tolist()


@reward(name="smoothness", range=(0.0, 1.0))
def smoothness(prompts: Any, completions: Tensor, **columns: Any) -> list[float]:
    """1 - mean absolute difference of neighbouring pixels: a preference for smooth pictures, a negative control."""
    across = (completions[..., 1:] - completions[..., :-1]).abs().mean((1, 2, 3))
    down = (completions[..., 1:, :] - completions[..., :-1, :]).abs().mean((1, 2, 3))
    return (1 - (across + down) / 2).clamp(0, 1).tolist()


@reward(name="random", range=(0.0, 1.0))
def random_reward(prompts: Any, completions: Tensor, **columns: Any) -> list[float]:
    """A number that has to do with nothing but the picture's bits: the other negative control."""
    keys = completions.flatten(1).double().sum(1).tolist()
    return [float(torch.rand(1, generator=keyed_generator("random", repr(key)))) for key in keys]


def _words(prompt: str) -> list[str]:
    return prompt.replace(",", "").split()


class TextureNet(nn.Module):
    """Velocity of a texture: residual dilated 3x3 convolutions, scaled and shifted by time and prompt, plus a multiple
    of the state that depends on both.

    The velocity of white grain is linear in the state; convolutions alone have to learn that, and a fresh detector then
    finds their pictures by a grain that is not white, however strong it is.
    """

    def __init__(self, width: int = 16, dilations: Sequence[int] = (2, 4, 2)) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        words = sorted({word for prompt in PROMPTS for word in _words(prompt)})
        self.said: Tensor
        self.register_buffer("said", torch.tensor([[float(w in _words(prompt)) for w in words] for prompt in PROMPTS]))
        self.words = nn.Linear(len(words), width, bias=False)
        self.lift = nn.Conv2d(3, width, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in dilations)
        self.films = nn.ModuleList(nn.Linear(width, 2 * width) for _ in dilations)
        self.out = nn.Conv2d(width, 3, 3, padding=1)
        self.grain = nn.Linear(width, 3)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.grain.weight)
        for weight in (p for p in self.parameters() if p.ndim == 4):
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)  # a third faster, so few channels

    def forward(self, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
        condition = F.silu(self.time(time_features(t)) + self.words(self.said[prompt]))
        h = self.lift(x)
        for layer, film in zip(self.layers, self.films):
            scale, shift = film(condition)[..., None, None].chunk(2, dim=1)
            h = h + layer(F.silu(h * (1 + scale) + shift))
        return self.out(F.silu(h)) + self.grain(condition)[..., None, None] * x


def train_base(seed: int, steps: int, *, images: int = 3000, batch: int = 48) -> TinyFlow:
    """The base: a flow net fitted to over-smoothed textures of all prompts."""
    generator = keyed_generator(seed, "base")
    prompts = many(PROMPTS, images)
    latents = (smoothed_textures(prompts, generator) - 0.5) * GAIN
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = TinyFlow(TextureNet(), PROMPTS, (3, SIDE, SIDE), gain=GAIN)
    numbers = policy.encode(prompts).index
    pretrain(policy, latents, numbers, steps=steps, batch=batch, lr=3e-3, seed=seed, decay=0.99)
    return policy


@dataclass
class World:
    """Base, textures and judges of one seed. real, test: textures that judges learn from, and that nothing else saw.

    robust: detectors whose negatives include corrupted textures, by family; naive: without, the training families only.
    """

    base: TinyFlow
    real: Tensor
    test: Tensor
    robust: dict[str, nn.Module]
    naive: dict[str, nn.Module]


TRAINING, VALIDATION, HELD_OUT = ("cnn", "spectrum"), "wavelet", "gradient"


def corrupted(real: Tensor, generator: torch.Generator) -> Tensor:
    """Real pictures noised, blurred, compressed or ringing, as negatives for a detector that is to be robust.

    The noise starts at the strength of the grain, so that what is called fake has clearly too much of it. Only real
    pictures are corrupted: a little noise on an over-smoothed one would make it real.
    """
    return eight_bit(corrupt(real, generator, ranges={"noise": (GRAIN, 0.25)}))


def eight_bit(images: Tensor) -> Tensor:
    """Rounded to 256 levels, as a stored picture is."""
    return (images * 255).round() / 255


def new_world(seed: int, *, base_steps: int, images: int, detector_steps: int, base: TinyFlow | None = None) -> World:
    """Train a base (unless given) and its judges on ``images`` real and as many base pictures of the user's prompts.

    No detector here is trained on blurred and noised versions of both classes: where the quality is the strength of
    white grain, that would hide the very thing that a detector is to see. The robust ones learn from corrupted
    negatives only.
    """
    base = base if base is not None else train_base(seed, base_steps)
    prompts = many(USER_PROMPTS, images)
    generator = keyed_generator(seed, "real")
    real, test = (eight_bit(real_textures(prompts, generator)) for _ in range(2))
    fake = eight_bit(base.generate(prompts, range(seed * 10_000, seed * 10_000 + images), num_steps=10, batch_size=96))

    def detector(family: str, negatives: Tensor) -> nn.Module:
        model = make_detector(family, seed=seed)
        train_detector(
            model, real, negatives, corrupt_real_as_fake=False, augment_both=False, steps=detector_steps,
            generator=keyed_generator(seed, family, "detector"),
        )  # fmt: skip
        return model

    wary = torch.cat([fake, corrupted(real, generator)])
    robust = {family: detector(family, wary) for family in (*TRAINING, VALIDATION, HELD_OUT)}
    return World(base, real, test, robust, {family: detector(family, fake) for family in TRAINING})


def grpo_settings(*, steps: int, group: int, groups: int, lr: float, kl_weight: float, seed: int) -> DiffusionConfig:
    """Flow-GRPO-Fast as all arms of all texture claims use it: 10 steps, a window of 3, one shared prefix a group.

    The window lies in the later steps, where a picture this small gets its grain.

    With a shared prefix the reward differs within a group by the trained steps' noise alone. Without it most of the
    difference comes from the initial noise, for which the policy gets credit and blame that it cannot use.
    """
    return DiffusionConfig(
        algorithm="grpo", steps=steps, num_steps=10, eval_steps=10, guidance=1.0, group_size=group,
        prompts_per_step=groups, sample_batch=group * groups, micro_batch=group * groups, noise_level=0.7,
        window=WindowConfig(size=3, lo=3, hi=9), branches=group, learning_rate=lr, clip_range=1e-3,
        kl="velocity" if kl_weight else "none", kl_weight=kl_weight, updates_per_step=1, ema_decay=0.5, ema_every=1,
        seed=seed,
    )  # fmt: skip


__all__ = [
    "HELD_OUT", "PROMPTS", "STYLES", "TRAINING", "USER_PROMPTS", "VALIDATION", "World", "alignment", "content_error",
    "content_right", "corrupted", "eight_bit", "grpo_settings", "many", "new_world", "random_reward",
    "real_textures", "smoothed_textures", "smoothness", "train_base",
]  # fmt: skip
