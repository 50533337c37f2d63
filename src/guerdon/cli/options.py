"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEBUG = "guerdon.debug"


def _set_debug(ctx: typer.Context, value: bool) -> None:
    if value:
        ctx.meta[DEBUG] = True


Debug = Annotated[
    bool, typer.Option("--debug", callback=_set_debug, expose_value=False, help="Show the traceback of an error.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
SkipBadRows = Annotated[bool, typer.Option("--skip-bad-rows", help="Set rows that cannot be read aside.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="REWARD.KEY=VALUE", help="Configure a reward.")]
Model = Annotated[
    str | None,
    typer.Option(help="A reward model's or language model's folder or hub id, or the URL of an endpoint."),
]
RewardOption = Annotated[str | None, typer.Option("--reward", help="A reward's name, or module:function.")]
JudgeModel = Annotated[str | None, typer.Option(help="The model that an endpoint should use.")]
Mode = Annotated[str | None, typer.Option(help="How a language model judges: rate or rank.")]
OutFolder = Annotated[
    Path | None, typer.Option("--out", help="Folder for result.json and report.html; a second run resumes.")
]
Scores = Annotated[str | None, typer.Option(help="Instead: a file of scores computed elsewhere.")]
Versus = Annotated[
    str | None, typer.Option("--against", help="A second one to compare with: a model, a reward, or a file of scores.")
]
Data = Annotated[str | None, typer.Option(help="A hub id, or a local file in the published columns.")]
Limit = Annotated[int | None, typer.Option(min=1, help="A sample of so many rows.")]
Seed = Annotated[int, typer.Option(help="Seed of samples, places and intervals.")]
Columns = Annotated[
    list[str] | None, typer.Option("--column", metavar="OURS=THEIRS", help="Rename a column of --data.")
]
