"""One adapter over the flow-matching pipelines of diffusers: Stable Diffusion 3, FLUX.1 and Z-Image.

Convention everywhere in guerdon: x_t = (1 - t) x_0 + t x_1 with x_1 the noise and t = sigma in [0, 1]; the policy
predicts v = x_1 - x_0, and time runs from t = 1 to t = 0. Latents are float32 [B, C, H, W] in every family.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from peft import LoraConfig
from torch import Tensor, nn

from guerdon.core.errors import GuerdonError
from guerdon.objectives.flow_sde import ode_step
from guerdon.policies.families import FAMILIES, SD3, Conditions, Flux, ZImage
from guerdon.policies.shards import put, whole

_ADAPTER = "default"


class FlowPolicy:
    """A flow-matching text-to-image pipeline as a policy: embeddings, velocity, decoding, LoRA.

    ``guidance`` has the meaning of the pipeline's own ``guidance_scale``: SD3 v_u + w (v_c - v_u), active for w > 1;
    FLUX an embedded scale (true classifier-free guidance is not offered there); Z-Image v_c + w (v_c - v_u), active
    for w > 0, so pass 0 to Z-Image-Turbo. ``detach_uncond`` keeps the gradient of the unconditional branch out of
    training. ``max_sequence_length`` None means the pipeline's default, and 1 for SD3 without its T5 encoder, where
    the T5 part is zeros. ``height`` and ``width`` are pixels; None means the pipeline's default.

    Every component is frozen and set to eval: dropout would make rollout and training disagree.
    Raises GuerdonError for a transformer that belongs to none of the three families.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        guidance: float = 1.0,
        max_sequence_length: int | None = None,
        negative_prompt: str = "",
        detach_uncond: bool = False,
        height: int | None = None,
        width: int | None = None,
    ) -> None:
        family = next((f for kind, f in FAMILIES.items() if isinstance(pipeline.transformer, kind)), None)
        if family is None:
            known = ", ".join(kind.__name__ for kind in FAMILIES)
            raise GuerdonError(
                f"no flow policy for transformer '{type(pipeline.transformer).__name__}'; known: {known}"
            )
        self.pipeline = pipeline
        self.family = family
        self.guidance = guidance
        self.negative_prompt = negative_prompt
        self.detach_uncond = detach_uncond
        if max_sequence_length is None:
            no_t5 = isinstance(family, SD3) and pipeline.text_encoder_3 is None
            max_sequence_length = 1 if no_t5 else family.length
        self.max_sequence_length = max_sequence_length
        self.latent_shape = self._latent_shape(height, width)
        #: What ``velocity`` calls; a trainer sets it to the module that accelerate prepared.
        self.module: nn.Module = pipeline.transformer
        self._encoded: dict[str, tuple[Tensor, Tensor | None]] = {}
        self._sigmas: dict[int, Tensor] = {}
        adapted = getattr(pipeline.transformer, "_hf_peft_config_loaded", False)
        for component in pipeline.components.values():
            if isinstance(component, nn.Module):
                component.eval()
                if component is not pipeline.transformer or not adapted:
                    component.requires_grad_(False)

    @property
    def transformer(self) -> Any:
        """The bare transformer, unwrapped."""
        return self.pipeline.transformer

    @property
    def device(self) -> torch.device:
        return next(self.transformer.parameters()).device

    def to(self, device: torch.device | str) -> FlowPolicy:
        """Move every component of the pipeline to ``device``."""
        self.pipeline.to(device)
        return self

    def _latent_shape(self, height: int | None, width: int | None) -> tuple[int, int, int]:
        config, scale = self.transformer.config, self.pipeline.vae_scale_factor
        # FLUX and Z-Image pack 2 x 2 latents into one token, so their sides are even.
        unit = 2 if self.family.packed else 1
        side = (config.sample_size if isinstance(self.family, SD3) else 128) * scale
        if isinstance(self.family, ZImage):
            side = 1024
        sides = [unit * (int(given or side) // (scale * unit)) for given in (height, width)]
        channels = config.in_channels // 4 if isinstance(self.family, Flux) else config.in_channels
        return channels, sides[0], sides[1]

    def encode(self, prompts: Sequence[str]) -> Conditions:
        """Embed ``prompts``; each distinct text is encoded once in the policy's life and kept in main memory.

        One text at a time, so that an embedding never depends on what shared its batch.
        """
        unique = list(dict.fromkeys(prompts))
        for text in unique:
            if text not in self._encoded:
                with torch.no_grad():
                    embeds, pooled = self.family.encode(self.pipeline, text, self.max_sequence_length)
                self._encoded[text] = (embeds.cpu(), None if pooled is None else pooled.cpu())
        rows = [self._encoded[text] for text in unique]
        numbers = {text: number for number, text in enumerate(unique)}
        pooled_rows = [pooled for _, pooled in rows if pooled is not None]
        return Conditions(
            embeds=nn.utils.rnn.pad_sequence([embeds for embeds, _ in rows], batch_first=True).to(self.device),
            pooled=torch.stack(pooled_rows).to(self.device) if pooled_rows else None,
            lengths=tuple(len(embeds) for embeds, _ in rows),
            index=torch.tensor([numbers[text] for text in prompts], device=self.device),
        )

    def sigmas(self, num_steps: int) -> Tensor:
        """Return the sampler's time grid float32 [num_steps + 1] on the CPU, from about 1 down to exactly 0.

        It is the pipeline's own grid: the scheduler with its static or resolution-dependent shift.
        """
        if num_steps not in self._sigmas:
            scheduler = copy.deepcopy(self.pipeline.scheduler)
            options: dict[str, Any] = {}
            if scheduler.config.get("use_dynamic_shifting"):
                options["mu"] = self._shift(scheduler.config)
            if self.family.packed and not scheduler.config.get("use_flow_sigmas"):
                options["sigmas"] = np.linspace(1.0, 1 / num_steps, num_steps).tolist()
            else:
                options["num_inference_steps"] = num_steps
            scheduler.set_timesteps(**options)
            self._sigmas[num_steps] = scheduler.sigmas.float().cpu()
        return self._sigmas[num_steps]

    def _shift(self, config: Any) -> float:
        # Linear in the number of image tokens between the scheduler's two anchors, as in all three pipelines.
        patch = self.transformer.config.patch_size if isinstance(self.family, SD3) else 2
        tokens = (self.latent_shape[1] // patch) * (self.latent_shape[2] // patch)
        low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        base, top = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        slope = (top - base) / (high - low)
        return tokens * slope + base - slope * low

    def velocity(self, x: Tensor, t: Tensor | float, cond: Conditions) -> Tensor:
        """Predict v = x_1 - x_0, float32 [B, C, H, W], from latents ``x`` at time ``t`` (scalar or [B]).

        With classifier-free guidance both branches go through the transformer in one doubled batch; with
        ``detach_uncond`` the unconditional branch runs apart and without a graph, in sampling too, so that rollout and
        training see the same batches.
        """
        t = torch.as_tensor(t, dtype=torch.float32, device=x.device).expand(x.shape[0])
        if not self.family.guided(self.guidance):
            return self._predict(x, t, cond)
        empty = self._unconditional(len(cond))
        if self.detach_uncond:
            with torch.no_grad():
                v_empty = self._predict(x, t, empty)
            v_text = self._predict(x, t, cond)
        else:
            both = self._predict(torch.cat([x, x]), torch.cat([t, t]), cond.joined(empty))
            v_text, v_empty = both.chunk(2)
        return self.family.guide(v_text, v_empty, self.guidance)

    def _predict(self, x: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        return self.family.v(self.module, self.pipeline, x, t, cond, self.guidance).float()

    def _unconditional(self, count: int) -> Conditions:
        return self.encode([self.negative_prompt])[torch.zeros(count, dtype=torch.long)]

    def initial_noise(self, n: int, generator: torch.Generator | Sequence[torch.Generator] | None = None) -> Tensor:
        """Draw x_1 ~ N(0, I), float32 [n, C, H, W]; from n generators, row i comes from the i-th alone."""
        return gaussian((n, *self.latent_shape), generator, self.device)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents to images, float32 [N, 3, H, W] in [0, 1]."""
        config, vae = self.pipeline.vae.config, self.pipeline.vae
        scaled = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
        return (vae.decode(scaled.to(vae.dtype), return_dict=False)[0].float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def integrate(self, x: Tensor, cond: Conditions, num_steps: int) -> Tensor:
        """Follow the probability-flow ODE by Euler from noise ``x`` to latents x_0, both [B, C, H, W]."""
        sigmas = self.sigmas(num_steps).to(x.device)
        for t, t_next in pairwise(sigmas):
            x = ode_step(x, self.velocity(x, t, cond), t, t_next)
        return x

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], *, num_steps: int = 40, batch_size: int = 16
    ) -> Tensor:
        """Draw one image a (prompt, seed), float32 [N, 3, H, W] in [0, 1], by the ODE.

        Image i depends on (prompts[i], seeds[i]) only: its noise has its own generator, and ``batch_size`` changes
        nothing but rounding.
        """
        if len(prompts) != len(seeds):
            raise GuerdonError(f"generate needs one seed a prompt, got {len(prompts)} prompts and {len(seeds)} seeds")
        images = []
        for first in range(0, len(prompts), batch_size):
            chunk = slice(first, first + batch_size)
            generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds[chunk]]
            noise = self.initial_noise(len(generators), generators)
            images.append(self.decode(self.integrate(noise, self.encode(list(prompts[chunk])), num_steps)))
        return torch.cat(images)

    def add_lora(
        self,
        rank: int,
        alpha: float,
        targets: Sequence[str] | None = None,
        init: str = "gaussian",
        seed: int = 0,
    ) -> None:
        """Add trainable low-rank adapters (float32, scale alpha / rank) to the frozen transformer.

        ``targets`` None means the family's: SD3 the eight attention projections; FLUX these and both feed-forwards;
        Z-Image attention and feed_forward.w1/w2/w3 (RealGen's released configs). A target is a suffix of module
        names and is met wherever it occurs. ``seed`` fixes the initial weights without touching the global generator.
        """
        config = LoraConfig(
            r=rank, lora_alpha=alpha, init_lora_weights=init,  # type: ignore[arg-type]
            target_modules=list(targets or self.family.targets),
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.transformer.add_adapter(config, adapter_name=_ADAPTER)
        self.transformer.eval()
        for parameter in self.trainable_parameters():
            parameter.data = parameter.data.float()

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that require a gradient, in the transformer's order."""
        return [parameter for parameter in self.transformer.parameters() if parameter.requires_grad]

    def _lora(self) -> dict[str, nn.Parameter]:
        # diffusers' and peft's saved names leave the adapter's name out
        return {
            name.replace(f".{_ADAPTER}.", "."): parameter
            for name, parameter in self.transformer.named_parameters()
            if f".{_ADAPTER}." in name and "lora_" in name
        }

    def lora_state(self) -> dict[str, Tensor]:
        """Return a copy of the adapter's tensors on the CPU, named as peft and diffusers save them."""
        return {name: whole(parameter.detach()).cpu().clone() for name, parameter in self._lora().items()}

    def load_lora_state(self, state: dict[str, Tensor]) -> None:
        """Copy ``state`` into the adapter. Raises GuerdonError if a name or a shape does not match."""
        lora = self._lora()
        if not lora:
            raise GuerdonError("the policy has no LoRA adapter to load into; call add_lora first")
        odd = sorted(lora.keys() ^ state.keys())
        odd += sorted(name for name in lora.keys() & state.keys() if lora[name].shape != state[name].shape)
        if odd:
            raise GuerdonError(f"LoRA state does not fit the adapter: {len(odd)} tensors differ, first '{odd[0]}'")
        for name, parameter in lora.items():
            put(parameter, state[name])

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Evaluate the frozen base inside the block: adapters disabled, no gradients."""
        if not getattr(self.transformer, "_hf_peft_config_loaded", False):
            raise GuerdonError("the policy has no LoRA adapter, so it has no reference; call add_lora first")
        self.transformer.disable_adapters()
        try:
            with torch.no_grad():
                yield
        finally:
            self.transformer.enable_adapters()

    @contextmanager
    def using(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Evaluate with other values of the trainable parameters inside the block (an average, an older policy)."""
        parameters = self.trainable_parameters()
        own = [parameter.detach().clone() for parameter in parameters]
        # Copied in place: FSDP gathers from storage of its own and would not see another tensor under ``data``.
        _assign(parameters, tensors)
        try:
            yield
        finally:
            _assign(parameters, own)


def _assign(parameters: Sequence[nn.Parameter], tensors: Sequence[Tensor]) -> None:
    for parameter, tensor in zip(parameters, tensors, strict=True):
        parameter.data.copy_(tensor)


def gaussian(
    shape: tuple[int, ...],
    generator: torch.Generator | Sequence[torch.Generator] | None,
    device: torch.device,
) -> Tensor:
    """Draw N(0, I) of ``shape`` float32 on ``device``; from shape[0] generators, row i comes from the i-th alone."""
    if generator is None or isinstance(generator, torch.Generator):
        source = torch.device("cpu") if generator is None else generator.device
        return torch.randn(shape, generator=generator, device=source).to(device)
    if len(generator) != shape[0]:
        raise GuerdonError(f"{shape[0]} samples need {shape[0]} generators, got {len(generator)}")
    rows = [torch.randn(shape[1:], generator=one, device=one.device) for one in generator]
    return torch.stack(rows).to(device) if rows else torch.empty(shape, device=device)
