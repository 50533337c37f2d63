"""Re-make the weights in ``src/guerdon/assets``: alignment model, prompt rewriter, and the embedded base.

    python scripts/train_base.py --out src/guerdon/assets --work runs/base

About an hour and a half on two cores. Killed and started again with the same ``--work`` it goes on where it was.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from guerdon.core import photographs
from guerdon.policies import embedded
from guerdon.policies.tiny_rewriter import started_rewriter
from guerdon.trainers.base import train_clip, train_flow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("src/guerdon/assets"))
    parser.add_argument("--work", type=Path, default=Path("runs/base"))
    parser.add_argument("--flow-steps", type=int, default=4000)
    parser.add_argument("--clip-steps", type=int, default=800)
    parser.add_argument("--crops", type=int, default=24000)
    parser.add_argument("--smoothed-share", type=float, default=0.6)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    crops = photographs.sample(arguments.crops, seed=1, smoothed_share=arguments.smoothed_share)
    tokenizer = embedded.train_tokenizer(crops.captions)
    started = time.monotonic()

    def report(step: int, figures: dict[str, float]) -> None:
        if step % 50 == 0:
            print(f"step {step}  loss {figures['loss']:.4f}  {time.monotonic() - started:.0f} s", flush=True)

    plain = photographs.sample(arguments.crops, seed=2, marked_share=0.0)
    clip = embedded.new_clip(tokenizer)
    if not (arguments.out / "clip").exists():
        print("alignment model", flush=True)
        train_clip(clip, tokenizer, plain.images, plain.captions, steps=arguments.clip_steps, on_step=report)
        clip.half().save_pretrained(arguments.out / "clip")
        tokenizer.save_pretrained(arguments.out / "clip")
    if not (arguments.out / "rewriter").exists():
        started_rewriter().save(arguments.out / "rewriter")
    print("base", flush=True)
    torch.manual_seed(0)
    base = embedded.new_base(tokenizer)
    train_flow(
        base, crops.images, crops.captions, steps=arguments.flow_steps,
        checkpoint=arguments.work / "flow.safetensors", on_step=report,
    )  # fmt: skip
    embedded.save_base(base, arguments.out / "base")


if __name__ == "__main__":
    main()
