"""Train a tiny reward model from scratch on real preference data, beside a bag of words and the length alone.

    python scripts/real_pairs.py hh-rlhf=harmless-base-test.jsonl.gz gsm8k=model_solutions.jsonl.gz

Each NAME=FILE becomes a run in ``runs/real/NAME`` (a quarter of the prompts held out, bad rows set aside); `make docs`
puts their figures into the README. A model of 64 dimensions that has read a thousand pairs may well know less than a
list of words.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from guerdon.core.config import load_config
from guerdon.core.errors import GuerdonError
from guerdon.core.runs import RunFolder
from guerdon.recipes import skywork_reward_v2
from guerdon.report.html import write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    arguments = parser.parse_args()
    for text in arguments.sets:
        name, equals, file = text.partition("=")
        if not equals:
            raise GuerdonError(f"{text!r}: write it as NAME=FILE")
        path = arguments.out / name
        overrides = [f"data={file}", "skip_bad_rows=true", "held_out=0.25"]
        preset = {"preset": "tiny", **skywork_reward_v2.PRESETS["tiny"]}
        config = load_config(skywork_reward_v2.CONFIG, overrides=overrides, preset=preset)
        folder = RunFolder.open(path, config, resume=path.exists())
        if not (path / "summary.json").exists():
            print(f"== {name}", flush=True)
            skywork_reward_v2.run(config, folder, resume=True)
            write_report(path)


if __name__ == "__main__":
    main()
