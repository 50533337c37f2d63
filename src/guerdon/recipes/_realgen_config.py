"""The configuration of RealGen and its presets: the embedded default, and the paper's models from the hub."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from guerdon.core.config import Config
from guerdon.trainers.diffusion_config import DiffusionConfig
from guerdon.trainers.rewriter import RewriterTrainingConfig

Preset = Literal["embedded", "flux", "sd3.5", "z-image"]


class Safeguards(Config):
    """What keeps the generator from pleasing the detectors instead of becoming more real. Each can be switched off.

    corrupted_negatives: noisy, blurred, JPEG-coded and ringing photographs are fakes to every training detector.
    augmentation: both classes are blurred and noised alike when a training detector learns.
    adversarial: training detectors learn from the generator's own images, every step (RealGen V2, Adv-GRPO).
    robust_reward: P(real) is averaged over mild fixed views of a picture.
    early_stopping: the validation judge stops the run and chooses its checkpoint; otherwise the last one is kept.
    """

    corrupted_negatives: bool = True
    augmentation: bool = True
    adversarial: bool = True
    robust_reward: bool = True
    early_stopping: bool = True


class DetectorsConfig(Config):
    """Which detectors are the reward, which one chooses the checkpoint, and which one only judges.

    On the hub's presets the names are those of published detectors; embedded they are families of
    ``guerdon.models.detectors``, trained on the photographs and on the base's own images.
    weights: published detector -> hub id or folder (forensic-chat), or safetensors file (omniaid, effort: their hub
    files are pickles, which guerdon does not open; convert them first).
    """

    training: list[str] = ["cnn", "patch", "gradient"]
    validation: str | None = "wavelet"
    held_out: str = "spectrum"
    weights: dict[str, str] = {}
    images: int = Field(768, ge=16)
    steps: int = Field(300, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    adversarial_steps: int = Field(4, ge=1)
    adversarial_learning_rate: float = Field(3e-4, gt=0)


class EvaluationConfig(Config):
    """RealBench at the end of a run: ``images`` of each arm, drawn in ``steps`` ODE steps from the same seeds.

    fresh_seeds detectors are trained anew for each arm; watch_every generator steps the hacking watch measures
    ``watch_images`` images, and ``patience`` measurements without a better validation score stop the run.
    """

    images: int = Field(384, ge=24)
    steps: int = Field(10, ge=1)
    fresh_family: str = "cnn"
    fresh_seeds: int = Field(3, ge=1)
    fresh_steps: int = Field(150, ge=1)
    watch_every: int = Field(4, ge=1)
    watch_images: int = Field(96, ge=12)
    patience: int = Field(4, ge=1)
    shown: int = Field(12, ge=1)


class RealGenConfig(Config):
    """RealGen. ``reward`` other than "detectors" is a negative control.

    data: the person's own photographs with captions (folder, zip or hub data set); None: the embedded photographs.
    base: folder of an embedded base re-trained on ``data`` (made in the run folder when None).
    base_steps: flow-matching steps of that re-training; cold_start_steps: supervised steps of its tiny rewriter.
    reuse: folder of a finished run whose base, judges and rewriter are taken over (for ablations).
    skip_bad_rows: set unreadable rows of ``data`` aside instead of stopping.
    """

    preset: Preset = "embedded"
    seed: int = Field(11, ge=0)
    data: str | None = None
    skip_bad_rows: bool = False
    base: str | None = None
    base_steps: int = Field(3000, ge=1)
    cold_start_steps: int = Field(600, ge=1)
    reuse: str | None = None
    reward: Literal["detectors", "random", "smoothness"] = "detectors"
    alignment_weight: float = Field(1.0, ge=0)
    detectors: DetectorsConfig = DetectorsConfig()
    safeguards: Safeguards = Safeguards()
    rewriter: RewriterTrainingConfig = RewriterTrainingConfig()
    images_per_rewrite: int = Field(1, ge=1)
    generator: DiffusionConfig = DiffusionConfig()
    evaluation: EvaluationConfig = EvaluationConfig()


def _hub(algorithm: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What the hub's presets share: published detectors, frozen (V1), and evaluation at the published size."""
    return {
        "detectors": {
            "training": ["forensic-chat", "omniaid"], "validation": None, "held_out": "effort", "images": 1041,
            "weights": {"forensic-chat": "lokiz666/Realgen-detection-models"},
        },
        "safeguards": {
            "corrupted_negatives": False, "augmentation": False, "adversarial": False, "robust_reward": False,
            "early_stopping": False,
        },
        "rewriter": {"steps": 200, "prompts_per_step": 8, "num_generations": 8, "lora_rank": 32, "bf16": True},
        "generator": algorithm,
        "evaluation": {"images": 1040, "steps": algorithm["eval_steps"], "watch_every": 10, "watch_images": 110},
        **changes,
    }  # fmt: skip


# RealGen's released configurations (card, section 6); the SD3.5 window is that of its "fast" script.
PRESETS: dict[str, dict[str, Any]] = {
    "embedded": {
        "alignment_weight": 2.0,
        "rewriter": dict(
            steps=20, prompts_per_step=12, num_generations=8, learning_rate=4e-4, beta=0.04, save_every=10
        ),
        "generator": dict(
            algorithm="grpo", steps=40, num_steps=10, eval_steps=10, guidance=1.0, group_size=8, prompts_per_step=12,
            sample_batch=96, micro_batch=16, noise_level=0.7, window=dict(size=3, lo=0, hi=8), branches=1,
            learning_rate=5e-4, clip_range=1e-3, kl="velocity", kl_weight=1e-4, updates_per_step=2, lora_rank=16,
            lora_alpha=32, ema_decay=0.5, ema_every=1, checkpoint_every=4, keep_checkpoints=2,
        ),
    },
    "flux": _hub(
        dict(algorithm="guard", num_steps=28, eval_steps=28, guidance=3.5, group_size=21, prompts_per_step=24,
             branches=3, learning_rate=1e-4, clip_range=2e-6, kl="velocity", kl_weight=4e-4, lora_rank=64,
             lora_alpha=128, noise_level=0.9)
    ),
    "sd3.5": _hub(
        dict(algorithm="grpo", num_steps=28, eval_steps=28, guidance=4.5, group_size=21, prompts_per_step=24,
             branches=3, learning_rate=1e-4, clip_range=1e-4, kl="mu", kl_weight=0.01, lora_rank=32, lora_alpha=64,
             noise_level=0.9, detach_uncond=True)
    ),
    "z-image": _hub(
        dict(algorithm="guard", num_steps=40, eval_steps=40, guidance=4.0, group_size=24, prompts_per_step=24,
             branches=1, window=dict(size=3, lo=0, hi=20), learning_rate=4e-4, clip_range=1e-4, kl="velocity",
             kl_weight=1e-5, lora_rank=64, lora_alpha=128, noise_level=0.9)
    ),
}  # fmt: skip
