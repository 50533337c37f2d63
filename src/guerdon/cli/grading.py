"""``guerdon bench``: benchmarks with what a command line names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from guerdon.benchmarks.judges import DetectorJudge, Judge, OpenAICompatibleJudge, VLMJudge
from guerdon.benchmarks.realbench import realbench
from guerdon.cli.naming import named_rewards
from guerdon.cli.output import tell
from guerdon.core.errors import GuerdonError, unknown

KEY_VARIABLE = "GUERDON_JUDGE_API_KEY"


@dataclass(frozen=True)
class Judging:
    """Who looks at the images, in the words of ``guerdon bench realbench --help``."""

    detectors: str | None = None
    training: str | None = None
    judge: str | None = None
    judge_model: str | None = None
    settings: Sequence[str] = ()


def grade_images(
    images: Path,
    reference: Path | None,
    against: Path | None,
    prompts: Path | None,
    judging: Judging,
    codec: str,
    size: str,
    out: Path | None,
    seed: int,
    *,
    as_json: bool,
) -> None:
    """Run RealBench on folders of images and print its tables as Markdown, or its JSON."""
    side = _size(size)
    detectors = named_rewards(judging.detectors, judging.settings) if judging.detectors else {}
    judge = make_judge(judging.judge, judging.judge_model, detectors) if judging.judge else None
    if not detectors and judge is None:
        tell("no --detectors and no --judge: only drift and variety are measured")
    result = realbench(
        images, reference, against, detectors=detectors, judge=judge, prompts=prompts, out=out, seed=seed, size=side,
        training_detectors=[name.strip() for name in (judging.training or "").split(",") if name.strip()],
        codec=None if codec == "none" else codec,
    )  # fmt: skip
    print(result.to_json() if as_json else result.to_markdown())
    if out is not None:
        tell(f"tables, scores and verdicts: {out}")


def _size(text: str) -> int | Literal["auto"] | None:
    if text == "auto":
        return "auto"
    if text == "none":
        return None
    if not text.isdigit():
        raise GuerdonError(f"--size is a number of pixels, auto or none, not {text!r}")
    return int(text)


def make_judge(spec: str, model: str | None, detectors: dict[str, Any]) -> Judge:
    """A judge from "detector:NAME", the URL of an OpenAI-compatible endpoint (its key in an environment variable), or
    a vision-language model's folder or hub id."""
    if spec.startswith("detector:"):
        name = spec.removeprefix("detector:")
        if name not in detectors:
            raise unknown("detector for the judge", name, detectors)
        return DetectorJudge(detectors[name], name=name)
    if spec.startswith(("http://", "https://")):
        if model is None:
            raise GuerdonError(f"--judge {spec}: name the endpoint's model with --judge-model")
        return OpenAICompatibleJudge(spec, model, api_key=os.environ.get(KEY_VARIABLE))
    if model is not None:
        raise GuerdonError("--judge-model goes with an endpoint; --judge names the model itself otherwise")
    try:
        return VLMJudge.from_pretrained(spec)
    except OSError as error:
        raise GuerdonError(f"--judge {spec!r} is no folder and no hub id of a vision-language model: {error}") from None
