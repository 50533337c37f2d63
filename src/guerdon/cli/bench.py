"""``guerdon bench``: the benchmarks and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guerdon.cli.options import (
    Columns,
    Data,
    Debug,
    Json,
    JudgeModel,
    Limit,
    Mode,
    Model,
    OutFolder,
    RewardOption,
    Scores,
    Seed,
    Settings,
    SkipBadRows,
    Versus,
)

bench = typer.Typer(help="Grade a model by a benchmark.", no_args_is_help=True, rich_markup_mode=None)


@bench.command()
def realbench(
    images: Annotated[Path, typer.Option(help="The folder of images to grade.")],
    reference: Annotated[Path | None, typer.Option(help="A folder of photographs.")] = None,
    against: Annotated[Path | None, typer.Option(help="A folder of another model's images.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A text file, one prompt an image.")] = None,
    detectors: Annotated[
        str | None, typer.Option(help="By commas: folders of saved detectors, or rewards; NAME=DETECTOR names one.")
    ] = None,
    training: Annotated[str | None, typer.Option(help="Names of those that were in the training reward.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="detector:NAME, a model's folder or hub id, or the URL of an endpoint.")
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="The model that an endpoint should use.")] = None,
    codec: Annotated[str, typer.Option(help="png, jpeg:QUALITY, or none.")] = "jpeg:90",
    size: Annotated[str, typer.Option(help="Pixels a side, auto, or none.")] = "auto",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="DETECTOR.KEY=VALUE", help="Configure a detector.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for tables and verdicts; a second run resumes.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the intervals.")] = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """RealBench: how real do images look to detectors and to a judge?"""
    from guerdon.cli.grading import Judging, grade_images

    judging = Judging(detectors, training, judge, judge_model, set_ or [])
    grade_images(images, reference, against, prompts, judging, codec, size, out, seed, as_json=json)


@bench.command("rewardbench-2")
def rewardbench_2(
    model: Model = None,
    reward: RewardOption = None,
    scores: Scores = None,
    against: Versus = None,
    data: Data = None,
    atol: Annotated[float, typer.Option(min=0, help="Scores this close are tied; the published rule is 0.")] = 0.0,
    judge_model: JudgeModel = None,
    mode: Mode = None,
    set_: Settings = None,
    limit: Limit = None,
    out: OutFolder = None,
    seed: Seed = 0,
    skip_bad_rows: SkipBadRows = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """RewardBench 2: one right answer among four, and the calibration test Ties."""
    from guerdon.cli import benching

    graded = benching.Graded(model, reward, scores, against, judge_model, mode, set_ or [])
    on = benching.On(data, out, limit, seed, skip_bad_rows)
    benching.bench_rewardbench_2(graded, on, atol, as_json=json)


@bench.command("rewardbench-1")
def rewardbench_1(
    model: Model = None,
    reward: RewardOption = None,
    scores: Scores = None,
    against: Versus = None,
    data: Data = None,
    judge_model: JudgeModel = None,
    mode: Mode = None,
    set_: Settings = None,
    limit: Limit = None,
    out: OutFolder = None,
    seed: Seed = 0,
    skip_bad_rows: SkipBadRows = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """RewardBench: chosen against rejected, in four sections."""
    from guerdon.cli import benching

    graded = benching.Graded(model, reward, scores, against, judge_model, mode, set_ or [])
    on = benching.On(data, out, limit, seed, skip_bad_rows)
    benching.bench_rewardbench_1(graded, on, as_json=json)


@bench.command()
def pairs(
    model: Model = None,
    reward: RewardOption = None,
    scores: Scores = None,
    against: Versus = None,
    data: Data = None,
    column: Columns = None,
    judge_model: JudgeModel = None,
    mode: Mode = None,
    set_: Settings = None,
    limit: Limit = None,
    out: OutFolder = None,
    seed: Seed = 0,
    skip_bad_rows: SkipBadRows = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Your own preference pairs: accuracy, calibration, length."""
    from guerdon.cli import benching

    graded = benching.Graded(model, reward, scores, against, judge_model, mode, set_ or [])
    on = benching.On(data, out, limit, seed, skip_bad_rows)
    benching.bench_pairs(graded, on, column or [], as_json=json)


@bench.command()
def rewardmath(
    model: Model = None,
    reward: RewardOption = None,
    scores: Scores = None,
    against: Versus = None,
    data: Data = None,
    reducer: Annotated[str, typer.Option(help="How step scores of a published file become one score.")] = "prod",
    both_orders: Annotated[bool, typer.Option("--both-orders", help="Ask a judge of pairs in both orders.")] = False,
    judge_model: JudgeModel = None,
    mode: Mode = None,
    set_: Settings = None,
    limit: Limit = None,
    out: OutFolder = None,
    seed: Seed = 0,
    skip_bad_rows: SkipBadRows = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """RewardMATH: is the right solution above every wrong one?"""
    from guerdon.cli import benching
    from guerdon.cli.benching_rewardmath import bench_rewardmath

    graded = benching.Graded(model, reward, scores, against, judge_model, mode, set_ or [])
    on = benching.On(data, out, limit, seed, skip_bad_rows)
    bench_rewardmath(graded, on, reducer, both_orders, as_json=json)


@bench.command()
def mrmbench(
    model: Annotated[str | None, typer.Option(help="A reward model's or language model's folder or hub id.")] = None,
    baseline: Annotated[str | None, typer.Option(help="A model to stand beside it, such as its base.")] = None,
    data: Annotated[str | None, typer.Option(help="A folder in MRMBench's layout, or a hub id.")] = None,
    level: Annotated[str, typer.Option(help="easy (two labels) or hard (three).")] = "easy",
    recipe: Annotated[str | None, typer.Option(help="Of the probes: converged or paper; default both.")] = None,
    dimension: Annotated[list[str] | None, typer.Option(help="One of the six (repeatable); default all.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of the probes, by commas.")] = "0,1,2",
    layer: Annotated[int, typer.Option(help="Which layer's states.")] = -1,
    pool: Annotated[str, typer.Option(help="Which state of a text: last_nonpad or mean.")] = "last_nonpad",
    template: Annotated[bool, typer.Option("--template", help="Through the chat template, not as plain text.")] = False,
    end: Annotated[bool, typer.Option("--end", help="Append the end token.")] = False,
    max_length: Annotated[int | None, typer.Option(min=1, help="Longer texts are left out and counted.")] = 2048,
    device: Annotated[str | None, typer.Option(help="Default: a GPU where there is one.")] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run the model's own code.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Training rows a dimension.")] = None,
    out: OutFolder = None,
    skip_bad_rows: SkipBadRows = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """MRMBench: what a reward model's states tell a probe about six dimensions of preference."""
    from guerdon.cli.benching_mrmbench import Probed, bench_mrmbench

    bench_mrmbench(
        Probed(model, baseline, layer, pool, template, end, max_length, device, trust_remote_code), data, level, recipe,
        dimension or [], seeds, limit, out, skip_bad_rows=skip_bad_rows, as_json=json,
    )  # fmt: skip


@bench.command()
def remodetect(
    model: Model = None,
    reward: RewardOption = None,
    scores: Scores = None,
    against: Versus = None,
    data: Data = None,
    reads: Annotated[str, typer.Option(help="text, or answer: the text as an answer to its prompt.")] = "text",
    same_length: Annotated[bool, typer.Option(help="Cut both texts of a pair to as many words.")] = True,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of a text that a reward model reads.")] = 512,
    trained_on: Annotated[
        list[str] | None, typer.Option(help="Files that it was trained on; their human texts are left out.")
    ] = None,
    column: Columns = None,
    judge_model: JudgeModel = None,
    mode: Mode = None,
    set_: Settings = None,
    limit: Limit = None,
    out: OutFolder = None,
    seed: Seed = 0,
    skip_bad_rows: SkipBadRows = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """ReMoDetect: does a reward model tell generated from human texts?"""
    from guerdon.cli import benching
    from guerdon.cli.benching_remodetect import bench_remodetect

    graded = benching.Graded(model, reward, scores, against, judge_model, mode, set_ or [])
    on = benching.On(data, out, limit, seed, skip_bad_rows)
    bench_remodetect(
        graded, on, reads=reads, same_length=same_length, tokens=tokens, trained_on=trained_on or [],
        columns=column or [], as_json=json,
    )  # fmt: skip


@bench.command()
def overoptimisation(
    proxy: Annotated[str, typer.Option(help="The reward that is climbed.")],
    gold: Annotated[str, typer.Option(help="The reward that counts.")],
    data: Annotated[
        str | None, typer.Option(help="Rows with prompt and completions; or prompts, with --policy.")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="A language model to sample answers of.")] = None,
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="A tuned model: its KL from the policy is measured (repeatable).")
    ] = None,
    temperature: Annotated[
        list[float] | None, typer.Option(help="A temperature to sample the policy at (repeatable).")
    ] = None,
    samples: Annotated[int, typer.Option(min=2, help="Answers a prompt.")] = 16,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 256,
    chat: Annotated[bool, typer.Option("--chat", help="Put prompts through the policy's chat template.")] = False,
    largest: Annotated[int | None, typer.Option(min=1, help="The largest n of best-of-n.")] = None,
    proxy_set: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Configure the proxy.")] = None,
    gold_set: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Configure gold.")] = None,
    column: Columns = None,
    limit: Limit = None,
    out: OutFolder = None,
    seed: Seed = 0,
    skip_bad_rows: SkipBadRows = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """How a gold reward moves while a proxy is climbed: by best-of-n, and by KL."""
    from guerdon.cli.benching_overoptimisation import Climbed, Sampling, bench_overoptimisation

    bench_overoptimisation(
        Climbed(proxy, gold, proxy_set or [], gold_set or []), data,
        Sampling(policy, checkpoint or [], temperature or [], samples, max_new_tokens, chat), columns=column or [],
        largest=largest, limit=limit, out=out, seed=seed, skip_bad_rows=skip_bad_rows, as_json=json,
    )  # fmt: skip


@bench.command()
def lvis(
    gt: Annotated[Path, typer.Option(help="Annotations in COCO's or LVIS's JSON, also .gz.")],
    dt: Annotated[list[Path], typer.Option(help="Results in COCO's JSON (repeatable: files are compared).")],
    kind: Annotated[str, typer.Option("--type", help="bbox, or segm for masks (extra bench).")] = "bbox",
    convention: Annotated[str, typer.Option(help="coco, lvis or auto.")] = "auto",
    per_image: Annotated[int, typer.Option(min=0, help="Detections an image for LVIS's AP; 0 for all.")] = 300,
    per_class: Annotated[int, typer.Option(min=1, help="Detections a class for AP-Fixed and AP-Pool.")] = 10_000,
    mask_area: Annotated[bool, typer.Option("--mask-area", help="Sizes by the mask's area, not the box's.")] = False,
    calibrate: Annotated[str | None, typer.Option(help="By commas: calibrators to fit a class, or all.")] = None,
    calibrate_gt: Annotated[Path | None, typer.Option(help="Annotations of the images to fit on.")] = None,
    calibrate_dt: Annotated[Path | None, typer.Option(help="Results on these.")] = None,
    folds: Annotated[int, typer.Option(min=1, help="Without them: folds of the images; 1 is an oracle.")] = 5,
    fallback: Annotated[str, typer.Option(help="Classes with nothing right: zero, keep or borrow.")] = "zero",
    gaming: Annotated[int, typer.Option(min=0, help="Re-scorings of classes to search for a higher AP.")] = 0,
    resamples: Annotated[int, typer.Option(min=0, help="Of the images, for intervals.")] = 100,
    skip_bad_rows: SkipBadRows = False,
    out: OutFolder = None,
    seed: Seed = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Detection: AP, AP-Fixed, AP-Pool and calibration, by LVIS's or COCO's conventions."""
    from guerdon.cli.benching_lvis import bench_lvis

    bench_lvis(
        gt, dt, kind, convention, per_image, per_class, mask_area, calibrate, calibrate_gt, calibrate_dt, folds,
        fallback, gaming, resamples, skip_bad_rows, out, seed, as_json=json,
    )  # fmt: skip
