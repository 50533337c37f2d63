"""Pre-training of the embedded base: flow matching for the generator, contrast for the alignment model.

The same two functions made the weights in the package (``scripts/train_base.py``) and re-train them on a
person's own photographs (``guerdon run realgen --data``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

Progress = Callable[[int, dict[str, float]], None]


def to_unit(images: np.ndarray) -> torch.Tensor:
    """uint8 [N, H, W, 3] to float32 [N, 3, H, W] in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def train_flow(
    pipeline: Any,
    images: np.ndarray,
    captions: list[str],
    *,
    steps: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    caption_dropout: float = 0.1,
    ema_decay: float = 0.999,
    seed: int = 0,
    checkpoint: Path | None = None,
    checkpoint_every: int = 250,
    on_step: Progress | None = None,
) -> None:
    """Train an SD3 pipeline's transformer and text encoder by rectified-flow matching; leaves their EMA weights in it.

    x_t = (1 - t) x_0 + t x_1 with x_1 ~ N(0, I) and t logit-normal (Esser et al. 2024, arXiv 2403.03206, section 3.1);
    the loss is the mean square of v - (x_1 - x_0). Each step draws from a generator keyed by (seed, step), so a run
    continued from ``checkpoint`` (safetensors) is the run that was interrupted.
    """
    transformer, text_encoder, vae = pipeline.transformer, pipeline.text_encoder, pipeline.vae
    modules = torch.nn.ModuleDict({"transformer": transformer, "text_encoder": text_encoder}).train()
    names, parameters = zip(*modules.named_parameters(), strict=True)
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    average = [parameter.detach().clone() for parameter in parameters]
    pixels = to_unit(images)
    ids = pipeline.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    empty = pipeline.tokenizer([""], padding="max_length", return_tensors="pt").input_ids
    first = 0
    if checkpoint is not None and checkpoint.exists():
        first = _restore(checkpoint, names, parameters, average, optimizer)
    for step in range(first, steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rate = (
            learning_rate
            * min(1.0, (step + 1) / min(200, max(1, steps // 10)))
            * 0.5
            * (1 + np.cos(np.pi * step / steps))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        index = torch.randint(len(pixels), (batch_size,), generator=generator)
        dropped = torch.rand(batch_size, generator=generator) < caption_dropout
        clean = (pixels[index] * 2 - 1) * vae.config.scaling_factor
        noise = torch.randn(clean.shape, generator=generator)
        t = torch.sigmoid(torch.randn(batch_size, generator=generator))
        encoded = text_encoder(torch.where(dropped[:, None], empty, ids[index]), output_hidden_states=True)
        hidden, pooled = encoded.hidden_states[-2], encoded.text_embeds
        tokens = torch.cat([hidden, hidden], dim=-1)
        # One zero token where SD3 puts T5: what the pipeline does with max_sequence_length=1 and no T5.
        tokens = torch.cat([tokens, torch.zeros_like(tokens[:, :1])], dim=1)
        velocity = transformer(
            hidden_states=torch.lerp(clean, noise, t[:, None, None, None]), encoder_hidden_states=tokens,
            pooled_projections=torch.cat([pooled, pooled], dim=-1), timestep=t * 1000, return_dict=False,
        )[0]  # fmt: skip
        loss = F.mse_loss(velocity, noise - clean)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - min((1 + step) / (10 + step), ema_decay))
        if on_step:
            on_step(step + 1, {"loss": loss.item()})
        if checkpoint is not None and (step + 1) % checkpoint_every == 0:
            _store(checkpoint, step + 1, names, parameters, average, optimizer)
    for parameter, mean in zip(parameters, average, strict=True):
        parameter.data.copy_(mean)
    modules.eval()


def _store(path: Path, step: int, names: Any, parameters: Any, average: Any, optimizer: Any) -> None:
    tensors = {"step": torch.tensor(step)}
    for name, parameter, mean in zip(names, parameters, average, strict=True):
        state = optimizer.state[parameter]
        tensors |= {
            f"parameter.{name}": parameter.detach(), f"average.{name}": mean,
            f"exp_avg.{name}": state["exp_avg"], f"exp_avg_sq.{name}": state["exp_avg_sq"],
        }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    partial.replace(path)


def _restore(path: Path, names: Any, parameters: Any, average: Any, optimizer: Any) -> int:
    tensors = load_file(path)
    step = int(tensors["step"])
    for name, parameter, mean in zip(names, parameters, average, strict=True):
        parameter.data.copy_(tensors[f"parameter.{name}"])
        mean.copy_(tensors[f"average.{name}"])
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step)),
            "exp_avg": tensors[f"exp_avg.{name}"],
            "exp_avg_sq": tensors[f"exp_avg_sq.{name}"],
        }
    return step


def train_clip(
    model: CLIPModel,
    tokenizer: CLIPTokenizer,
    images: np.ndarray,
    captions: list[str],
    *,
    steps: int,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
    on_step: Progress | None = None,
) -> None:
    """Train the alignment model by contrast (Radford et al. 2021) on captions that say nothing about sharpness.

    Equal captions in a batch are all positives. Every image is blurred and noised by a random amount, so that the
    score tells content and not detail: alignment must not be a second realism reward.
    """
    pixels = (to_unit(images) - 0.5) / 0.5
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    unique = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    keys = torch.tensor([unique[caption] for caption in captions])
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.05)
    model.train()
    for step in range(steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * step / steps))
        index = torch.randint(len(pixels), (batch_size,), generator=generator)
        batch = pixels[index]
        soft = F.interpolate(F.avg_pool2d(batch, 2), scale_factor=2, mode="bilinear")
        batch = torch.lerp(batch, soft, torch.rand(batch_size, 1, 1, 1, generator=generator))
        level = torch.rand(batch_size, 1, 1, 1, generator=generator) * 0.3
        batch = batch + level * torch.randn(batch.shape, generator=generator)
        image = F.normalize(model.get_image_features(pixel_values=batch).pooler_output, dim=-1)
        text = F.normalize(model.get_text_features(input_ids=tokens[index]).pooler_output, dim=-1)
        logits = model.logit_scale.clamp(max=4.0).exp() * image @ text.T
        same = (keys[index][:, None] == keys[index][None]).float()
        target = same / same.sum(1, keepdim=True)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if on_step:
            on_step(step + 1, {"loss": loss.item()})
    model.eval()
