"""Small real-versus-fake image detectors of different families.

Each looks at a picture in its own way, so that a generator which fools one has not thereby fooled another: two
convolutional nets (whole picture, local patches), one on the statistics of gradients, one on the power spectrum, one
on wavelet coefficients. All map images [N, 3, H, W] in [0, 1] to logits [N, 2]; index 0 is real and index 1 is fake
(the class order of the RealGen and OmniAID detectors). None has a layer that mixes the samples of a batch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from guerdon.core.errors import GuerdonError, nearest, unknown

REAL, FAKE = 0, 1
WEIGHTS_FILE, CONFIG_FILE = "detector.safetensors", "detector.json"


def check_images(images: Tensor, smallest: int = 1) -> Tensor:
    """Images [N, 3, H, W] as float32, unchanged in value. Raises GuerdonError on another shape or a side too short."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise GuerdonError(f"a detector takes images of shape [N, 3, H, W], got {list(images.shape)}")
    if min(images.shape[-2:]) < smallest:
        raise GuerdonError(
            f"this detector needs images of at least {smallest}x{smallest} pixels, got {list(images.shape[-2:])}"
        )
    return images.float()


def opponent_colours(images: Tensor) -> Tensor:
    """Luminance and two colour differences (BT.601 weights, blue - Y, red - Y): [N, 3, H, W] -> [N, 3, H, W]."""
    red, green, blue = images.unbind(1)
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    return torch.stack([luminance, blue - luminance, red - luminance], dim=1)


class SmallCNN(nn.Module):
    """Whole-picture convolutional detector: three convolutions, mean pooling, one linear layer.

    The first layer is left unnormalised, because a per-picture norm there would remove the noise level itself.
    """

    smallest = 8

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.config = {"width": width}
        self.conv1 = nn.Conv2d(3, width // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(width // 2, width, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.norm2 = nn.GroupNorm(4, width)
        self.norm3 = nn.GroupNorm(4, 2 * width)
        self.head = nn.Linear(4 * width, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] -> logits [N, 2], (real, fake)."""
        x = (check_images(images, self.smallest) - 0.5) * 4.0
        x = F.silu(self.conv1(x))
        x = F.silu(self.norm2(self.conv2(x)))
        x = F.silu(self.norm3(self.conv3(x)))
        # Mean and spread over positions: the spread tells a texture from a flat region of the same mean.
        pooled = torch.cat([x.mean((2, 3)), (x.var((2, 3), unbiased=False) + 1e-6).sqrt()], dim=1)
        return self.head(pooled)


class PatchCNN(nn.Module):
    """Local realness: a logit for every 9x9 patch, averaged over the picture (a patch discriminator).

    No padding and no norm over positions, so each patch is judged by itself; the norm is over channels at one position.
    """

    smallest = 12

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.config = {"width": width}
        self.conv1 = nn.Conv2d(3, width // 2, 3)
        self.conv2 = nn.Conv2d(width // 2, width, 3, stride=2)
        self.conv3 = nn.Conv2d(width, width, 3)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, 2 * width)
        self.head = nn.Linear(2 * width, 2)

    def patch_logits(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] -> logits of each patch [N, h, w, 2], (real, fake)."""
        x = (check_images(images, self.smallest) - 0.5) * 4.0
        x = F.silu(self.conv2(F.silu(self.conv1(x))))
        x = F.silu(self.norm(self.conv3(x).permute(0, 2, 3, 1)))
        return self.head(F.silu(self.hidden(x)))

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] -> logits [N, 2], (real, fake)."""
        return self.patch_logits(images).mean((1, 2))


class StatisticsMLP(nn.Module):
    """A fixed vector of statistics per picture, scaled by stored constants, then a two-hidden-layer perceptron."""

    smallest = 16

    def __init__(self, hidden: int, features: int) -> None:
        super().__init__()
        self.config = {"hidden": hidden}
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.input = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.middle = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, 2)

    def statistics(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def calibrated(self) -> bool:
        """Whether `calibrate` has been called."""
        return not bool((self.scale == 1.0).all())

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Store mean and standard deviation of the statistics over images [N, 3, H, W] as fixed constants.

        Call once, before training, on both classes together; scoring never updates them.
        """
        values = torch.cat([self.statistics(check_images(part, self.smallest)) for part in images.split(256)])
        self.shift.copy_(values.mean(0))
        self.scale.copy_(values.std(0, unbiased=False).clamp_min(1e-3).reciprocal())

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] -> logits [N, 2], (real, fake)."""
        values = self.statistics(check_images(images, self.smallest))
        # asinh: a statistic far outside what calibration saw must not decide alone, but stays visible (no plateau).
        x = torch.asinh((values - self.shift) * self.scale)
        x = F.silu(self.norm(self.input(x)))
        return self.head(F.silu(self.middle(x)))


def _log_rms(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    # Shifted and scaled so that a root mean square of 0.02, usual for photographs, is near 0 before any calibration.
    return (0.5 * torch.log(x.square().mean(dims) + 1e-8) + 4.0) / 1.5


def _shape_moments(x: Tensor, dims: tuple[int, ...]) -> list[Tensor]:
    """Scale-free moments of zero-centred coefficients: mean-absolute / rms ratio, log kurtosis, skewness."""
    second = x.square().mean(dims)
    rms = (second + 1e-8).sqrt()
    ratio = x.abs().mean(dims) / rms
    kurtosis = torch.log((x.pow(4).mean(dims) + 1e-10) / (second.square() + 1e-10))
    skewness = (x.pow(3).mean(dims) / rms.pow(3)).clamp(-4.0, 4.0)
    return [ratio, kurtosis - 1.5, skewness]


class GradientStatsMLP(StatisticsMLP):
    """Detector on moments and histograms of first differences and Laplacians, at two scales, colours included."""

    bins = 9

    def __init__(self, hidden: int = 64) -> None:
        # 2 scales x 4 filters x (3 channels x 4 moments + luminance histogram)
        super().__init__(hidden, 2 * 4 * (3 * 4 + self.bins))

    def statistics(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] -> statistics [N, 168]."""
        x = opponent_colours(images)
        centres = torch.linspace(-4.0, 4.0, self.bins, device=x.device)
        values: list[Tensor] = []
        for scale in range(2):
            if scale:
                x = F.avg_pool2d(x, 2)
            filters = (
                x[..., :, 1:] - x[..., :, :-1],
                x[..., 1:, :] - x[..., :-1, :],
                x[..., 1:, 1:] - x[..., :-1, :-1],
                4 * x[..., 1:-1, 1:-1] - x[..., :-2, 1:-1] - x[..., 2:, 1:-1] - x[..., 1:-1, :-2] - x[..., 1:-1, 2:],
            )
            for response in filters:
                values.append(_log_rms(response, (2, 3)))
                values.extend(_shape_moments(response, (2, 3)))
                # asinh spreads the many small gradients over the bins and keeps the few large ones in range.
                levels = torch.asinh(response[:, 0].flatten(1) / 0.02).clamp(-4.0, 4.0)
                shares = torch.stack([F.relu(1.0 - (levels - c).abs()).mean(1) for c in centres], dim=1)
                values.append((shares + 1e-4).sqrt())
        return torch.cat(values, dim=1)


class LogSpectrumMLP(StatisticsMLP):
    """Detector on the log power spectrum of the luminance: radial bins and a coarse two-dimensional map."""

    radial_bins, grid = 14, (8, 4)

    def __init__(self, hidden: int = 64) -> None:
        super().__init__(hidden, 2 * self.radial_bins + self.grid[0] * self.grid[1])
        self._bins: dict[tuple[int, int, str], tuple[Tensor, Tensor]] = {}

    def _window_and_bins(self, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        key = (height, width, str(device))
        if key not in self._bins:
            window = torch.outer(torch.hann_window(height, periodic=False), torch.hann_window(width, periodic=False))
            window = window / window.square().sum().sqrt()
            vertical, horizontal = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
            radius = (vertical[:, None].square() + horizontal[None, :].square()).sqrt() / math.sqrt(0.5)
            index = (radius * self.radial_bins).long().clamp(0, self.radial_bins - 1).flatten()
            members = F.one_hot(index, self.radial_bins).float()
            # The zero frequency is the mean of the picture, which says nothing about its texture.
            members[0] = 0.0
            members = members / members.sum(0).clamp_min(1.0)
            self._bins[key] = (window.to(device), members.to(device))
        return self._bins[key]

    def statistics(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] -> statistics [N, 60]."""
        luminance = opponent_colours(images)[:, 0]
        window, members = self._window_and_bins(luminance.shape[-2], luminance.shape[-1], luminance.device)
        centred = luminance - luminance.mean((1, 2), keepdim=True)
        power = torch.fft.rfft2(centred * window).abs().square()
        logs = (torch.log(power + 1e-7) + 8.0) / 3.0
        bin_power = (torch.log(power.flatten(1) @ members + 1e-7) + 8.0) / 3.0
        coarse = F.adaptive_avg_pool2d(torch.fft.fftshift(logs, dim=1)[:, None], self.grid)
        return torch.cat([bin_power, logs.flatten(1) @ members, coarse.flatten(1)], dim=1)


class WaveletStatsMLP(StatisticsMLP):
    """Detector on three levels of Haar coefficients: energies, tails, and how magnitudes go together.

    Correlations are between orientations of a level, between a level and the next coarser one, and between luminance
    and the colour differences: dependencies of photographs that neither gradient histograms nor a spectrum hold.
    """

    levels = 3
    _pairs = ((0, 1), (0, 2), (1, 2))

    def __init__(self, hidden: int = 64) -> None:
        # Per level: 9 energies, 9 ratios, 9 kurtoses, 3 orientation pairs, 2 colour pairs x 3; 3 parents but the last.
        super().__init__(hidden, self.levels * (27 + 3 + 6) + (self.levels - 1) * 3)

    @staticmethod
    def _correlation(a: Tensor, b: Tensor) -> Tensor:
        a, b = a.flatten(2), b.flatten(2)
        a, b = a - a.mean(2, keepdim=True), b - b.mean(2, keepdim=True)
        return (a * b).mean(2) / ((a.square().mean(2) * b.square().mean(2)).sqrt() + 1e-5)

    def statistics(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] -> statistics [N, 114]."""
        step = 2**self.levels
        low = opponent_colours(images[..., : images.shape[-2] // step * step, : images.shape[-1] // step * step])
        values: list[Tensor] = []
        finer: Tensor | None = None
        for _ in range(self.levels):
            a, b = low[..., ::2, ::2], low[..., ::2, 1::2]
            c, d = low[..., 1::2, ::2], low[..., 1::2, 1::2]
            bands = torch.stack([a - b + c - d, a + b - c - d, a - b - c + d], dim=2) / 2.0  # [N, colour, band, h, w]
            low = (a + b + c + d) / 4.0
            ratio, kurtosis, _ = _shape_moments(bands, (3, 4))
            values += [_log_rms(bands, (3, 4)).flatten(1), ratio.flatten(1), kurtosis.flatten(1)]
            size = torch.log(bands.abs() + 1e-3)
            luminance = size[:, 0]
            for i, j in self._pairs:
                values.append(self._correlation(luminance[:, i : i + 1], luminance[:, j : j + 1]))
            for colour in (1, 2):
                values.append(self._correlation(bands[:, 0], bands[:, colour]))
            if finer is not None:
                values.append(self._correlation(F.avg_pool2d(finer, 2), luminance))
            finer = luminance
        return torch.cat(values, dim=1)


FAMILIES: dict[str, type[nn.Module]] = {
    "cnn": SmallCNN,
    "patch": PatchCNN,
    "gradient": GradientStatsMLP,
    "spectrum": LogSpectrumMLP,
    "wavelet": WaveletStatsMLP,
}


def make_detector(family: str, *, seed: int | None = None, **config: Any) -> nn.Module:
    """A fresh detector of a family of `FAMILIES`; with a seed, its initial weights depend on the seed alone."""
    if family not in FAMILIES:
        raise unknown("detector family", family, FAMILIES)
    if seed is None:
        return FAMILIES[family](**config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FAMILIES[family](**config)


def family_of(model: nn.Module) -> str:
    """The name in `FAMILIES` of a detector's class. Raises GuerdonError for a class that is not there."""
    for name, kind in FAMILIES.items():
        if type(model) is kind:
            return name
    raise GuerdonError(f"{type(model).__name__} is not one of the small detector families: {', '.join(FAMILIES)}")


@torch.no_grad()
def p_real(model: nn.Module, images: Tensor, *, batch_size: int = 256) -> Tensor:
    """P(real) = softmax(logits)[0] of images [N, 3, H, W] in [0, 1] -> float32 [N]; the model's mode is kept."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        parts = [model(part.to(device)).float().softmax(-1)[:, REAL] for part in images.split(batch_size)]
    finally:
        model.train(training)
    return torch.cat(parts).to(images.device) if len(images) else images.new_zeros(0)


def save_detector(model: nn.Module, folder: str | Path) -> Path:
    """Write a small detector to a folder: `detector.safetensors` and `detector.json` (family and configuration)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"family": family_of(model), "config": model.config}
    save_file(
        {key: value.detach().contiguous().cpu() for key, value in model.state_dict().items()}, folder / WEIGHTS_FILE
    )
    (folder / CONFIG_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return folder


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict of which every key and shape must match; the GuerdonError names the first that does not."""
    own = model.state_dict()
    for key in own:
        if key not in state:
            raise GuerdonError(f"{source}: weight '{key}' is missing")
    for key in state:
        if key not in own:
            guess = nearest(key, own)  # not all choices: a large model has hundreds
            raise GuerdonError(f"{source}: unknown weight '{key}'" + (f"; did you mean '{guess}'?" if guess else ""))
    for key, value in own.items():
        if state[key].shape != value.shape:
            raise GuerdonError(
                f"{source}: weight '{key}' has shape {list(state[key].shape)}, this model needs {list(value.shape)}"
            )
    model.load_state_dict(dict(state))


def load_detector(folder: str | Path) -> nn.Module:
    """Read a detector written by `save_detector`, in evaluation mode. Raises GuerdonError naming the file and key."""
    folder = Path(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise GuerdonError(f"{folder}: no saved detector here, file '{name}' is missing")
    try:
        record = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        model = make_detector(record["family"], **record["config"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise GuerdonError(f"{folder / CONFIG_FILE}: not a detector configuration ({error!r})") from error
    try:
        state = load_file(folder / WEIGHTS_FILE)
    except SafetensorError as error:
        raise GuerdonError(f"{folder / WEIGHTS_FILE}: not a safetensors file ({error})") from error
    load_strictly(model, state, str(folder / WEIGHTS_FILE))
    return model.eval()
