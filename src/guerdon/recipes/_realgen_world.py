"""What RealGen acts in: generator, rewriter, alignment reward, prompts, and photographs of what the prompts say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.core import photographs
from guerdon.core.data import load_rows
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.progress import progress
from guerdon.core.runs import RunFolder
from guerdon.policies import embedded
from guerdon.policies.flow import FlowPolicy
from guerdon.policies.rewriter import PromptRewriter
from guerdon.policies.tiny_rewriter import started_rewriter
from guerdon.recipes._realgen_config import RealGenConfig
from guerdon.rewards.image.clip import CLIPScore, LongCLIPScore
from guerdon.rewards.image.from_files import effort, omniaid
from guerdon.rewards.image.token_contrast import TokenContrastScorer
from guerdon.trainers.base import to_unit, train_clip, train_flow

Score = Callable[[Tensor], Tensor]


@dataclass
class Captioned:
    """Photographs [N, 3, H, W] in [0, 1] with what a user would ask for to get them, and the number of each subject."""

    images: Tensor
    prompts: list[str]
    groups: list[int]

    def __getitem__(self, rows: slice) -> Captioned:
        return Captioned(self.images[rows], self.prompts[rows], self.groups[rows])


@dataclass
class World:
    """``published``: name -> P(real) of images, where detectors come trained; empty where they are trained here."""

    policy: FlowPolicy
    rewriter: PromptRewriter
    alignment: Any
    train: Captioned
    test: Captioned
    published: dict[str, Score] = field(default_factory=dict)

    def align(self, prompts: list[str], images: Tensor) -> Tensor:
        """Alignment [N] of images with the USER's prompts."""
        return torch.tensor(self.alignment(prompts=prompts, completions=images))

    def draw(self, prompts: list[str], seeds: list[int], *, steps: int, batch_size: int) -> Tensor:
        """Images as a file would hold them: rounded to 8 bits, like the photographs that they are compared with."""
        images = self.policy.generate(prompts, seeds, num_steps=steps, batch_size=batch_size)
        return (images * 255).round() / 255


def load_world(config: RealGenConfig, folder: RunFolder) -> World:
    """Load the preset's models and photographs."""
    return _embedded(config, folder) if config.preset == "embedded" else _hub(config, folder)


def _captioned(crops: photographs.Photographs) -> Captioned:
    return Captioned(to_unit(crops.images), list(crops.captions), crops.subjects.tolist())


def _embedded(config: RealGenConfig, folder: RunFolder) -> World:
    count, held = config.detectors.images, config.evaluation.images + config.evaluation.watch_images
    source = Path(config.reuse) if config.reuse else folder.path
    if config.data is None:
        crops = photographs.sample(count + held, seed=config.seed * 1000 + 7, marked_share=0.0)
        base, clip, rewriter = embedded.load_base(), embedded.load_clip(), embedded.ASSETS / "rewriter"
    else:
        own = _own_photographs(config, folder)
        order = np.random.default_rng(config.seed).permutation(len(own))
        if len(own) < 4 * held // 3:
            raise GuerdonError(f"{config.data}: {len(own)} photographs are too few; evaluation alone holds back {held}")
        folder_of_base = Path(config.base) if config.base else source / "base"
        if not (folder_of_base / "clip").is_dir():
            _retrain(config, folder_of_base, _chosen(own, order[held:]))
        base, clip = embedded.load_base(folder_of_base / "base"), embedded.load_clip(folder_of_base / "clip")
        rewriter = folder_of_base / "rewriter"
        train = np.random.default_rng(config.seed).choice(order[held:], count)
        crops = _chosen(own, np.concatenate([order[:held], train]))
    return World(
        policy=FlowPolicy(base, guidance=config.generator.guidance, max_sequence_length=1),
        rewriter=PromptRewriter.load(rewriter),
        alignment=CLIPScore(clip[0], embedded.clip_processor(clip[1]), name="alignment", batch_size=512),
        train=_captioned(crops)[held:],
        test=_captioned(crops)[:held],
    )


def _chosen(crops: photographs.Photographs, rows: np.ndarray) -> photographs.Photographs:
    return photographs.Photographs(
        crops.images[rows], [crops.captions[row] for row in rows], crops.subjects[rows], crops.smoothed[rows]
    )


def _own_photographs(config: RealGenConfig, folder: RunFolder) -> photographs.Photographs:
    rows = load_rows(
        str(config.data), required=("image", "prompt"), skip_bad_rows=config.skip_bad_rows, out=folder.path
    )
    return photographs.from_pictures([row["image"] for row in rows], rows["prompt"])


def _retrain(config: RealGenConfig, folder: Path, crops: photographs.Photographs) -> None:
    """Re-train base and alignment model on a person's own photographs, from scratch, as the shipped ones were made."""
    smoothed = photographs.over_smoothed(crops, seed=config.seed, smoothed_share=0.6)
    tokenizer = embedded.train_tokenizer(smoothed.captions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        base, clip = embedded.new_base(tokenizer), embedded.new_clip(tokenizer)
    with progress(config.base_steps, "base: flow matching on your photographs") as bar:
        train_flow(
            base, smoothed.images, smoothed.captions, steps=config.base_steps, seed=config.seed,
            checkpoint=folder / "flow.safetensors",
            # The first step told by a run that goes on is not the first step.
            on_step=lambda step, figures: bar.advance(step - bar.done, loss=figures["loss"]),
        )  # fmt: skip
    embedded.save_base(base, folder / "base")
    with progress(config.base_steps // 4, "alignment model on your captions") as bar:
        train_clip(
            clip, tokenizer, crops.images, crops.captions, steps=config.base_steps // 4, seed=config.seed,
            on_step=lambda step, figures: bar.advance(loss=figures["loss"]),
        )  # fmt: skip
    subjects = list(dict.fromkeys(photographs.subject_of(text) for text in crops.captions))
    started_rewriter(subjects, steps=config.cold_start_steps).save(folder / "rewriter")
    # Last, because its folder says that all of this is done.
    tokenizer.save_pretrained(folder / "clip.partial")
    clip.save_pretrained(folder / "clip.partial")
    (folder / "clip.partial").rename(folder / "clip")


_GENERATORS = {
    "flux": "black-forest-labs/FLUX.1-dev",
    "sd3.5": "stabilityai/stable-diffusion-3.5-large",
    "z-image": "Tongyi-MAI/Z-Image",
}


def _hub(config: RealGenConfig, folder: RunFolder) -> World:
    """The paper's own models. Needs the hub (or its cache) and a GPU; the loading code is all there is to it here."""
    from diffusers import DiffusionPipeline
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if config.data is None:
        raise GuerdonError(
            f"preset '{config.preset}' needs photographs with captions: --data DIR (or a hub data set such as "
            "Yunncheng/RealGen-V2-real-images)"
        )
    rows = load_rows(config.data, required=("image", "prompt"), skip_bad_rows=config.skip_bad_rows, out=folder.path)
    side = 1024
    pictures = np.stack([np.asarray(row["image"].convert("RGB").resize((side, side))) for row in rows])
    captioned = Captioned(to_unit(pictures), list(rows["prompt"]), list(range(len(rows))))
    held = min(config.evaluation.images + config.evaluation.watch_images, len(rows) // 2)
    dtype = torch.float16 if config.preset == "sd3.5" else torch.bfloat16
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = DiffusionPipeline.from_pretrained(_GENERATORS[config.preset], torch_dtype=dtype).to(device)
    pipeline.vae.to(torch.float32)
    language = "Qwen/Qwen3-4B-Instruct-2507"
    model: Any = AutoModelForCausalLM.from_pretrained(language, dtype=torch.bfloat16)
    return World(
        policy=FlowPolicy(pipeline, guidance=config.generator.guidance),
        rewriter=PromptRewriter(model.to(device), AutoTokenizer.from_pretrained(language)),
        alignment=LongCLIPScore(name="alignment", device=device),
        train=captioned[held:],
        test=captioned[:held],
        published={
            name: _published(name, config, device) for name in [*config.detectors.training, config.detectors.held_out]
        },
    )


def _published(name: str, config: RealGenConfig, device: str) -> Score:
    if name not in ("forensic-chat", "omniaid", "effort"):
        raise unknown("published detector", name, ("forensic-chat", "omniaid", "effort"))
    weights = config.detectors.weights.get(name)
    if weights is None:
        raise GuerdonError(
            f"detector '{name}' needs its published weights as safetensors: --set detectors.weights.{name}=FILE"
        )
    if name == "forensic-chat":
        scorer = TokenContrastScorer(weights)
        return lambda images: torch.tensor(scorer(prompts=[""] * len(images), completions=images))
    return (omniaid if name == "omniaid" else effort)(weights, device=device).score
