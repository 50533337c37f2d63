"""``guerdon bench mrmbench``: probes of a reward model's states, and the one that gates rewards by distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guerdon.benchmarks.mrmbench import RECIPES, MRMBench
from guerdon.benchmarks.mrmbench_tasks import HUB, load_tasks
from guerdon.cli.output import tell
from guerdon.cli.sheets import finish
from guerdon.core.errors import GuerdonError
from guerdon.models.representation import RepresentationReader

__all__ = ["Probed", "bench_mrmbench"]


@dataclass(frozen=True)
class Probed:
    """What is read, in the words of ``guerdon bench mrmbench --help``.

    model:         folder or hub id of a reward model, or of any language model. baseline: one to stand beside it.
    layer, pool, template, end, max_length:  of `models.representation.RepresentationReader`.
    device:        default a GPU where there is one.
    """

    model: str | None = None
    baseline: str | None = None
    layer: int = -1
    pool: str = "last_nonpad"
    template: bool = False
    end: bool = False
    max_length: int | None = 2048
    device: str | None = None
    trust_remote_code: bool = False

    def reader(self, source: str, cache: Path | None) -> RepresentationReader:
        """The reader of a model."""
        return RepresentationReader(
            source, layer=self.layer, pool=self.pool, template=self.template, end=self.end, max_length=self.max_length,
            cache=cache, device=self.device, trust_remote_code=self.trust_remote_code,
        )  # fmt: skip


def bench_mrmbench(
    probed: Probed,
    data: str | None = None,
    level: str = "easy",
    recipe: str | None = None,
    dimensions: Sequence[str] = (),
    seeds: str = "0,1,2",
    limit: int | None = None,
    out: Path | None = None,
    *,
    skip_bad_rows: bool = False,
    as_json: bool = False,
) -> None:
    """MRMBench: what a reward model's frozen states tell a linear probe about six dimensions of preference.

    data:        a folder in MRMBench's layout, a hub id, or None for the published one.
    level:       easy (two labels) or hard (three). recipe: converged or paper; None for both.
    dimensions:  a choice; none for all six. limit: training rows a dimension.
    out:         folder for result.json, report.html, states/, which a second run takes up again, and the fitted
                 inference-time probe, for `rewards.confidence.load`.
    """
    if probed.model is None:
        raise GuerdonError("bench mrmbench needs --model: a reward model's or language model's folder or hub id")
    numbers = _seeds(seeds)
    tasks = load_tasks(
        data, level=level, dimensions=list(dimensions) or None, limit=limit, skip_bad_rows=skip_bad_rows, out=out,  # type: ignore[arg-type]
        seed=numbers[0],
    )  # fmt: skip
    bench = MRMBench(
        tasks, level=level, recipes=RECIPES if recipe is None else (recipe,), seeds=numbers, data=data or HUB  # type: ignore[arg-type]
    )  # fmt: skip
    states = None if out is None else out / "states"
    reader = probed.reader(probed.model, states)
    baseline = None if probed.baseline is None else probed.reader(probed.baseline, states)
    if baseline is not None and baseline.identity == reader.identity:
        raise GuerdonError(f"--baseline {probed.baseline} is the very same as --model")
    result = bench.run(reader, baseline=baseline)
    finish(result.sheet(), result.to_dict(), out, as_json=as_json)
    if out is not None and result.probe is not None:
        tell(f"inference-time probe: {result.probe.save(out / 'probe.safetensors')}")


def _seeds(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise GuerdonError(f"--seeds are whole numbers by commas, not {text!r}") from None
    if not found or min(found) < 0:
        raise GuerdonError(f"--seeds are whole numbers from 0 by commas, not {text!r}")
    return found
