"""RealBench: how real do generated images look, to detectors and to a judge that sees them beside photographs?

After the RealBench of RealGen (arXiv 2512.00473), with what its released scripts lack: photographs are scored too, both
sides go through one codec and size, every pair is judged in both orders, and every rate has an interval.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guerdon.benchmarks.battles import Battle, BattleLog, fight, judge_name
from guerdon.benchmarks.image_scores import ImageScorer, score_images
from guerdon.benchmarks.image_sets import Equaliser, ImageSet, Source, read_prompts
from guerdon.benchmarks.judges import DetectorJudge, Judge
from guerdon.benchmarks.realbench_result import ArenaRow, DetectorRow, RealBenchResult, Variety
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.outcome import Failed
from guerdon.core.progress import Progress, progress
from guerdon.metrics.arena import Ratings, bradley_terry, win_rate
from guerdon.metrics.detection import auroc, pass_rate, tpr_at_fpr
from guerdon.metrics.diversity import features, manifold_scores, mean_pairwise_distance, mmd2
from guerdon.metrics.drift import drift
from guerdon.metrics.intervals import bootstrap, bootstrap_mean, bootstrap_two_sample, paired_difference

__all__ = ["RealBenchResult", "realbench"]

_REAL = "real"
_NEIGHBOURS = 5


def realbench(
    images: Source | Mapping[str, Source],
    reference: Source | None = None,
    against: Source | Mapping[str, Source] | None = None,
    *,
    detectors: Mapping[str, ImageScorer] | None = None,
    training_detectors: Collection[str] = (),
    judge: Judge | None = None,
    prompts: Sequence[str] | str | Path | None = None,
    codec: str | None = "jpeg:90",
    size: int | Literal["auto"] | None = "auto",
    equalise: bool = True,
    out: str | Path | None = None,
    batch_size: int = 16,
    attempts: int = 3,
    backoff: float = 1.0,
    workers: int = 1,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> RealBenchResult:
    """Score ``images`` with detectors and in an arena; write tables to ``out`` when given.

    images, reference, against: a folder, a float tensor [N, 3, H, W] in [0, 1] or a list of PIL images. ``images`` and
      ``against`` may also be {player: source}; ``reference`` holds photographs and plays as "real". Images with the
      same file stem (or position) answer the same prompt; an arena needs all players to match one to one.
    detectors: name -> P(real) in [0, 1], a function of a float tensor [N, 3, H, W] or a reward (prompts, completions).
    training_detectors: names of those that were in the training reward; claims rest on the others.
    judge: compares two images (`guerdon.benchmarks.judges`). With three players or more, Bradley-Terry ratings follow.
    prompts: a list or a text file, one an image; repeated prompts are resampled together in every interval.
    codec ("png", "jpeg:Q", None) and size ("auto" = the shortest side of all, pixels, None): what every image of both
      sides goes through, see `Equaliser`; ``equalise=False`` turns both off.
    out: folder for realbench.md, realbench.json, scores.jsonl and arena.jsonl. A second run takes up the verdicts in
      arena.jsonl that fit its pixels, prompts and judge, and asks again for failed ones.
    attempts, backoff (seconds), workers: see `battles.fight`.
    Sources: RealGen, RealBench (Detector-Scoring, Arena-Scoring); deviations: JPEG 90 and one size for both sides,
    AUROC and TPR at 1% FPR beside the means, both orders, ties.
    Raises GuerdonError for images, prompts or detectors that do not fit; see the messages.
    """
    players = _players(images, against)
    real = ImageSet(_REAL, reference) if reference is not None else None
    sets = [*players, real] if real is not None else players
    detectors = dict(detectors or {})
    for name in training_detectors:
        if name not in detectors:
            raise unknown("training detector", name, detectors)
    if judge is not None and len(sets) < 2:
        raise GuerdonError("a judge compares two pictures: give reference photographs or other images as against")
    for first, second in itertools.combinations(sets, 2) if judge is not None else ():
        mismatch = first.mismatch(second)  # told before an hour of detectors, not after
        if mismatch is not None:
            raise GuerdonError(f"an arena pairs images one to one: {mismatch}")
    texts = read_prompts(prompts) if prompts is not None else None
    for player in players if texts is not None else ():
        if texts is not None and len(texts) != len(player):
            raise GuerdonError(f"{player.name} has {len(player)} images but there are {len(texts)} prompts")
    equaliser = Equaliser.for_sets(sets, codec, size) if equalise else Equaliser(None, None)
    folder = Path(out) if out is not None else None

    result = RealBenchResult(
        settings={
            "images": {s.name: len(s) for s in sets},
            "detectors": list(detectors),
            "training_detectors": sorted(training_detectors),
            "judge": judge_name(judge) if judge is not None else None,
            "codec": equaliser.codec,
            "size": equaliser.side,
            "level": level,
            "resamples": resamples,
            "seed": seed,
        }
    )
    measured = {s.name: _measure(s, equaliser, detectors, texts, batch_size) for s in sets}
    if folder is not None:
        _save_scores(folder, sets, measured)
    real_measured = measured.get(_REAL)
    sampling = _Sampling(resamples, level, seed)
    for player in players:
        paired = real is not None and real.mismatch(player) is None
        for name in detectors:
            row = _detector_row(name, name in training_detectors, player, measured, texts, paired, sampling)
            result.detectors.append(row)
    result.drift = {name: {m: float(v.mean()) for m, v in found.drift.items()} for name, found in measured.items()}
    for s in sets:
        own = texts if texts is not None and len(texts) == len(s) else None
        result.variety[s.name] = _variety(measured[s.name].features, real_measured if s is not real else None, own)

    if judge is not None:
        log = BattleLog(folder / "arena.jsonl" if folder is not None else None)
        battles: list[Battle] = []
        groups: list[str] = []  # what each battle is resampled with: its prompt, else its position
        for first, second in itertools.combinations(sets, 2):
            bar: Progress[int] = progress(len(first), f"arena: {first.name} against {second.name}")
            with bar:
                orders = fight(
                    first,
                    second,
                    judge,
                    log,
                    equaliser,
                    prompts=texts,
                    attempts=attempts,
                    backoff=backoff,
                    workers=workers,
                    on_pair=bar.advance,
                )
            result.arena.append(_arena_row(first.name, second.name, *orders, texts, sampling))
            battles += [*orders[0], *orders[1]]
            groups += 2 * (texts if texts is not None else [str(i) for i in range(len(first))])
        if len(sets) > 2:
            anchor = _REAL if real is not None else sets[0].name
            result.ratings = _ratings(battles, groups, anchor, sampling, result.warnings)
        _arena_warnings(result, battles, log)
    _warnings(result, sets, equaliser, judge, detectors, training_detectors)
    if folder is not None:
        result.save(folder)
    return result


@dataclass(frozen=True)
class _Sampling:
    resamples: int
    level: float
    seed: int


@dataclass
class _Measured:
    scores: dict[str, list[float | Failed]]
    drift: dict[str, Tensor]
    features: Tensor

    def valid(self, detector: str) -> NDArray[np.float64]:
        """P(real) of every image, nan where the detector gave no score."""
        return np.array([math.nan if isinstance(s, Failed) else s for s in self.scores[detector]])


def _players(images: Source | Mapping[str, Source], against: Source | Mapping[str, Source] | None) -> list[ImageSet]:
    named = dict(images) if isinstance(images, Mapping) else {"model": images}
    others: dict[str, Source] = {}
    if against is not None:
        others = dict(against) if isinstance(against, Mapping) else {"against": against}
    for name in [*named, *others]:
        if name == _REAL or (name in named and name in others):
            raise GuerdonError(f"player name {name!r} is taken; {_REAL!r} stands for the reference photographs")
    if not named:
        raise GuerdonError("there are no images to grade")
    return [ImageSet(name, source) for name, source in {**named, **others}.items()]


def _measure(
    images: ImageSet,
    equaliser: Equaliser,
    detectors: Mapping[str, ImageScorer],
    prompts: Sequence[str] | None,
    batch_size: int,
) -> _Measured:
    texts = list(prompts) if prompts is not None and len(prompts) == len(images) else [""] * len(images)
    scores: dict[str, list[float | Failed]] = {name: [] for name in detectors}
    meters: list[dict[str, Tensor]] = []
    rows: list[Tensor] = []
    bar: Progress[int] = progress(len(images), f"detectors: {images.name}")
    with bar:
        for start, batch in equaliser.batches(images, batch_size):
            for name, detector in detectors.items():
                chosen = texts[start : start + len(batch)]
                scores[name] += score_images(detector, batch, chosen, name=name, bounds=(0.0, 1.0))
            meters.append(drift(batch))
            rows.append(features(batch))
            bar.advance(len(batch))
    return _Measured(scores, {m: torch.cat([part[m] for part in meters]) for m in meters[0]}, torch.cat(rows))


def _detector_row(
    detector: str,
    in_training: bool,
    player: ImageSet,
    measured: Mapping[str, _Measured],
    prompts: Sequence[str] | None,
    paired: bool,
    sampling: _Sampling,
) -> DetectorRow:
    options = {"resamples": sampling.resamples, "level": sampling.level, "seed": sampling.seed}
    all_scores = measured[player.name].valid(detector)
    groups = np.array(prompts if prompts is not None else player.keys)
    kept = ~np.isnan(all_scores)
    if not kept.any():
        causes = Counter(s.cause for s in measured[player.name].scores[detector] if isinstance(s, Failed))
        raise GuerdonError(
            f"detector {detector!r} scored none of {player.name}'s images: {causes.most_common(1)[0][0]}"
        )
    scores = all_scores[kept]
    basic = {
        "detector": detector,
        "player": player.name,
        "in_training": in_training,
        "images": int(kept.sum()),
        "failed": int((~kept).sum()),
        "mean": bootstrap_mean(scores, groups=groups[kept], **options),  # type: ignore[arg-type]
        "pass_rate": pass_rate(scores),
    }
    if _REAL not in measured:
        return DetectorRow(**basic)  # type: ignore[arg-type]
    all_photos = measured[_REAL].valid(detector)
    photos = all_photos[~np.isnan(all_photos)]
    if not photos.size:
        raise GuerdonError(f"detector {detector!r} scored none of the reference photographs")
    if paired:
        # The photograph of a prompt is as hard as its image, so both are resampled together.
        both = kept & ~np.isnan(all_photos)
        if not both.any():
            raise GuerdonError(f"detector {detector!r} scored no image of {player.name} together with its photograph")
        a, b, own = all_photos[both], all_scores[both], groups[both]
        gap = paired_difference(a, b, groups=own, **options)  # type: ignore[arg-type]
        area = bootstrap(lambda rows: auroc(1 - b[rows], 1 - a[rows]), len(a), groups=own, **options)  # type: ignore[arg-type]
    else:
        a, b = photos, scores
        split = {"rows": (len(a), len(b)), "groups": (None, groups[kept]), **options}
        gap = bootstrap_two_sample(lambda i, j: float(a[i].mean() - b[j].mean()), **split)  # type: ignore[arg-type]
        area = bootstrap_two_sample(lambda i, j: auroc(1 - b[j], 1 - a[i]), **split)  # type: ignore[arg-type]
    return DetectorRow(
        **basic,  # type: ignore[arg-type]
        reference_mean=bootstrap_mean(photos, **options),  # type: ignore[arg-type]
        reference_pass_rate=pass_rate(photos),
        gap=gap,
        auroc=area,
        tpr_at_fpr=tpr_at_fpr(1 - b, 1 - a, fpr=0.01),
    )


def _variety(rows: Tensor, real: _Measured | None, prompts: Sequence[str] | None) -> Variety:
    within = mean_pairwise_distance(rows, prompts) if prompts is not None else math.nan
    overall = mean_pairwise_distance(rows)
    if real is None or min(len(rows), len(real.features)) <= _NEIGHBOURS:
        return Variety(within, overall)
    # One bandwidth for all players, from the photographs alone, so that their MMD can be compared.
    width = mean_pairwise_distance(real.features) or 1.0
    near = manifold_scores(real.features, rows, k=_NEIGHBOURS)
    return Variety(within, overall, near, mmd2(real.features, rows, bandwidth=width))


def _arena_row(
    player: str,
    opponent: str,
    as_first: Sequence[Battle],
    as_second: Sequence[Battle],
    prompts: Sequence[str] | None,
    sampling: _Sampling,
) -> ArenaRow:
    rows = [*as_first, *as_second]
    outcomes = [row.outcome for row in as_first], [row.outcome for row in as_second]
    score = None
    if any(not math.isnan(a) and not math.isnan(b) for a, b in zip(*outcomes, strict=True)):
        score = win_rate(
            *outcomes,
            groups=np.array(prompts) if prompts is not None else None,
            resamples=sampling.resamples,
            level=sampling.level,
            seed=sampling.seed,
        )
    unparseable = sum(row.kind == "unparseable" for row in rows) / len(rows)
    return ArenaRow(
        player, opponent, score, len(rows), unparseable, sum(row.verdict == "failed" for row in rows) / len(rows)
    )


def _ratings(
    battles: Sequence[Battle], groups: Sequence[str], reference: str, sampling: _Sampling, warnings: list[str]
) -> Ratings | None:
    slots = [(b.player, b.opponent) if b.order == "12" else (b.opponent, b.player) for b in battles]
    outcome = [b.outcome if b.order == "12" else 1.0 - b.outcome for b in battles]
    try:
        return bradley_terry(
            [first for first, _ in slots],
            [second for _, second in slots],
            outcome,
            reference=reference,
            groups=np.array(groups),
            resamples=sampling.resamples,
            level=sampling.level,
            seed=sampling.seed,
        )
    except GuerdonError as error:  # too many failed verdicts; the other tables still stand
        warnings.append(f"no ratings: {error}")
        return None


def _arena_warnings(result: RealBenchResult, battles: Sequence[Battle], log: BattleLog) -> None:
    failed = [battle for battle in battles if battle.verdict == "failed"]
    if failed:
        cause, count = Counter(battle.cause for battle in failed).most_common(1)[0]
        result.warnings.append(f"{len(failed)} of {len(battles)} verdicts failed, {count} of them with: {cause}")
    if log.outdated:
        result.warnings.append(f"{log.outdated} stored verdicts were for other pixels, prompts or judge; asked again")
    for row in result.arena:
        if row.score is not None and not row.score.slot_bias.low <= 0 <= row.score.slot_bias.high:
            bias = f"{row.score.slot_bias.value:+.3f}"
            result.warnings.append(f"{row.player} against {row.opponent}: the judge has a slot bias of {bias}")


def _warnings(
    result: RealBenchResult,
    sets: Sequence[ImageSet],
    equaliser: Equaliser,
    judge: Judge | None,
    detectors: Mapping[str, ImageScorer],
    training: Collection[str],
) -> None:
    warn = result.warnings.append
    for row in result.detectors:
        if row.gap is None or row.reference_mean is None or row.gap.value >= 0:
            continue
        role = "a training detector" if row.in_training else "held out"
        verdict = (
            "it is being hacked or was never valid here"
            if row.hacked
            else "within chance, so not yet a sign of hacking"
        )
        warn(
            f"detector {row.detector} ({role}) gives photographs {row.reference_mean.value:.3f}, less than the "
            f"{row.mean.value:.3f} of {row.player}: {verdict}"
        )
    if detectors and set(detectors) <= set(training):
        warn("every detector was in the training reward; there is no held-out evidence of realism")
    if detectors and len([s for s in sets if s.name == _REAL]) == 0:
        warn("no reference photographs: a high P(real) cannot be told from a hacked detector")
    if isinstance(judge, DetectorJudge) and any(judge.score is detectors.get(name) for name in training):
        warn("the judge is a detector of the training reward; its win rate is no independent evidence")
    if equaliser.codec is None or equaliser.side is None:
        warn("codec and size are not equalised: detectors and judges may tell the sides apart by file format")
    elif equaliser.side > min(min(s.short_sides()) for s in sets):
        warn(f"some images are smaller than {equaliser.side} pixels and were enlarged, which leaves traces")


def _save_scores(folder: Path, sets: Sequence[ImageSet], measured: Mapping[str, _Measured]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "scores.jsonl").open("w", encoding="utf-8") as opened:
        for images in sets:
            for detector, scores in measured[images.name].scores.items():
                for key, score in zip(images.keys, scores, strict=True):
                    row: dict[str, object] = {"images": images.name, "key": key, "detector": detector}
                    row |= {"failed": score.cause} if isinstance(score, Failed) else {"p_real": score}
                    opened.write(json.dumps(row, ensure_ascii=False) + "\n")
