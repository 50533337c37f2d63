"""The commands and their options. Each command imports what it runs, so that help and ``list`` need no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from guerdon import __version__
from guerdon.cli.bench import bench
from guerdon.cli.options import (
    DEBUG,
    Debug,
    Json,
    JudgeModel,
    Mode,
    Model,
    OutFolder,
    RewardOption,
    Settings,
    SkipBadRows,
)
from guerdon.cli.output import Interrupted, tell
from guerdon.core.errors import GuerdonError


class Commands(TyperGroup):
    """A person's mistake is one line and exit status 2; a traceback is for bugs, and for ``--debug``."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (GuerdonError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                sys.stdout = open("/dev/null", "w")  # noqa: SIM115 - so that Python's own flush at exit stays silent
                raise typer.Exit(141) from None
            if ctx.meta.get(DEBUG):
                raise
            tell(f"error: {error}")
            raise typer.Exit(2) from None
        except KeyboardInterrupt as error:
            tell(str(error) if isinstance(error, Interrupted) else "interrupted")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    help="Rewards for generative models: climb them, grade them, and see whether the policy really became better.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(bench, name="bench")


def _print_version(value: bool) -> None:
    if value:
        print(f"guerdon {__version__}")
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Debug = False,
) -> None:
    pass


@app.command()
def run(
    slug: Annotated[str, typer.Argument(help="The system, as in `guerdon list`.")],
    preset: Annotated[str | None, typer.Option(help="One of the system's presets.")] = None,
    data: Annotated[str | None, typer.Option(help="Your own data: a file, an image folder, or a hub id.")] = None,
    model: Annotated[str | None, typer.Option(help="The model to train: a folder or a hub id.")] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file of configuration keys.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key: a.b=c.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; default runs/SLUG-TIME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, or the newest.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run that is in --out.")] = False,
    skip_bad_rows: SkipBadRows = False,
    seed: Annotated[int | None, typer.Option(help="The random seed.")] = None,
    reward: Annotated[
        list[str] | None, typer.Option(help="Of `run language`: a reward to train on, by name (repeatable).")
    ] = None,
    stop_on: Annotated[str | None, typer.Option(help="hack: end a language run at an alarm of its watch.")] = None,
    debug: Debug = False,
) -> None:
    """Run a system from start to report."""
    from guerdon.cli.running import run_system

    changes: dict[str, Any] = {"data": data, "model": model, "seed": seed, "skip_bad_rows": skip_bad_rows or None}
    changes |= {"rewards": reward or None, "training.stop_on": stop_on}
    run_system(slug, preset, config, changes, set_ or [], out, resume=resume, overwrite=overwrite)


@app.command("list")
def list_(json: Json = False, debug: Debug = False) -> None:
    """Show systems, rewards and benchmarks."""
    from guerdon.cli.listing import print_catalogue

    print_catalogue(as_json=json)


@app.command()
def claim(
    slug: Annotated[str, typer.Argument(help="The system, as in `guerdon list`.")],
    seeds: Annotated[str, typer.Option(help="Random seeds, separated by commas.")] = "11,12,13",
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on the last line.")] = False,
    debug: Debug = False,
) -> None:
    """Test a system's central claim on this machine; exit status 0 only where it holds."""
    from guerdon.cli.running import check_claim

    if check_claim(slug, seeds, as_json=json) != "holds":
        raise typer.Exit(1)


@app.command()
def score(
    reward: Annotated[
        str, typer.Option(help="By commas: names, module:function, file.py:function, or folders of detectors.")
    ],
    file: Annotated[str | None, typer.Argument(help="A jsonl, parquet or csv file, image folder, or hub id.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the scored rows go; default scores.jsonl.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="REWARD.KEY=VALUE", help="Configure a reward.")
    ] = None,
    prompt_column: Annotated[str | None, typer.Option(help="Default: prompt, where there is one.")] = None,
    completion_column: Annotated[str | None, typer.Option(help="Default: completion, or image.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows a call of the rewards.")] = 32,
    limit: Annotated[int | None, typer.Option(min=1, help="Score no more than so many rows.")] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds a sample may take, in a process of its own.")] = None,
    max_failure_rate: Annotated[float, typer.Option(min=0, max=1, help="Stop above this share of failures.")] = 0.1,
    skip_bad_rows: SkipBadRows = False,
    rescore: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Instead of FILE: a run's samples, or rows scored before.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Discard the scores that are in --out.")] = False,
    debug: Debug = False,
) -> None:
    """Score rows with one or more rewards; called again, it goes on where it was stopped."""
    from guerdon.cli.scoring import Job, score_rows

    job = Job(
        rewards=reward, settings=set_ or [], out=out, prompt_column=prompt_column, completion_column=completion_column,
        batch_size=batch_size, limit=limit, deadline=deadline, max_failure_rate=max_failure_rate,
        skip_bad_rows=skip_bad_rows, overwrite=overwrite,
    )  # fmt: skip
    score_rows(job, file, rescore)


@app.command()
def inspect(
    file: Annotated[str, typer.Argument(help="Preference pairs: a jsonl, parquet or csv file, or a hub id.")],
    column: Annotated[
        list[str] | None, typer.Option(metavar="OURS=THEIRS", help="Rename a column: chosen=best_answer.")
    ] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="A file with the prompts of an evaluation set, to find contamination.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read no more than so many pairs.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for bad_rows.jsonl.")] = None,
    skip_bad_rows: SkipBadRows = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Report on a preference set: size, ties, noise, length bias, duplicates, overlap, connectivity."""
    from guerdon.cli.inspecting import inspect_pairs

    inspect_pairs(file, column or [], benchmark or [], limit, out, skip=skip_bad_rows, as_json=json)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")], debug: Debug = False
) -> None:
    """Write a run's report anew and print its summary."""
    from guerdon.cli.running import print_report

    print_report(folder)


@app.command()
def audit(
    model: Model = None,
    reward: RewardOption = None,
    data: Annotated[
        str | None,
        typer.Option(help="Preference pairs, or prompts with a column solution; default the embedded items."),
    ] = None,
    attacks: Annotated[str | None, typer.Option(help="By commas: attacks or families; default all.")] = None,
    fail_above: Annotated[
        float | None, typer.Option(help="Exit status 1 where an attack works more often than this share.")
    ] = None,
    items: Annotated[int, typer.Option(min=2, help="Prompts to attack on.")] = 48,
    kind: Annotated[str, typer.Option(help="auto, preference or verifier.")] = "auto",
    threshold: Annotated[float, typer.Option(help="A verifier accepts from this score on.")] = 0.5,
    quantile: Annotated[
        float | None, typer.Option(help="A bad answer passes above this quantile of honest answers, not its own.")
    ] = None,
    budget: Annotated[int, typer.Option(min=1, help="Rows that one search may score.")] = 2000,
    column: Annotated[list[str] | None, typer.Option(metavar="OURS=THEIRS", help="Rename a column of --data.")] = None,
    judge_model: JudgeModel = None,
    mode: Mode = None,
    set_: Settings = None,
    list_attacks: Annotated[bool, typer.Option("--list", help="Show the attacks and do nothing.")] = False,
    out: OutFolder = None,
    seed: Annotated[int, typer.Option(help="The random seed.")] = 0,
    skip_bad_rows: SkipBadRows = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Attack a reward, a judge or a verifier: how often is it fooled, and by what?"""
    from guerdon.cli import auditing

    if list_attacks:
        auditing.list_attacks(as_json=json)
        return
    audited = auditing.Audited(model, reward, judge_model, mode, set_ or [])
    against = auditing.Against(data, column or [], kind, items, threshold, quantile, budget, skip_bad_rows)
    if not auditing.audit_subject(audited, against, attacks, fail_above, out, seed, as_json=json):
        raise typer.Exit(1)


@app.command()
def compare(
    names: Annotated[list[str] | None, typer.Argument(metavar="[REWARD]...", help="Two or more rewards.")] = None,
    mdp: Annotated[
        str | None, typer.Option(help="A world with rewards: a JSON or NPZ file, or the name of a built-in one.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Prompts with several completions each, or preference pairs.")
    ] = None,
    set_: Settings = None,
    out: OutFolder = None,
    prompt_column: Annotated[str | None, typer.Option(help="Default: prompt.")] = None,
    completion_column: Annotated[str | None, typer.Option(help="Default: completion, or image.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows a call of the rewards.")] = 32,
    limit: Annotated[int | None, typer.Option(min=1, help="Read no more than so many rows.")] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds a sample may take.")] = None,
    max_failure_rate: Annotated[float, typer.Option(min=0, max=1, help="Stop above this share of failures.")] = 0.1,
    skip_bad_rows: SkipBadRows = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Discard the scores that are in --out.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the intervals.")] = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare rewards: do they ask for the same behaviour?"""
    from guerdon.cli import comparing

    comparing.compare(
        names or [], mdp, data, set_ or [], out=out, prompt_column=prompt_column, completion_column=completion_column,
        batch_size=batch_size, limit=limit, deadline=deadline, max_failure_rate=max_failure_rate,
        skip_bad_rows=skip_bad_rows, overwrite=overwrite, showing=comparing.Showing(seed=seed), as_json=json,
    )  # fmt: skip
