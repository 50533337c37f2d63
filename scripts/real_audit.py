"""Audit two verifiers and two tiny trained judges on real solutions of grade-school problems.

    python scripts/real_audit.py ../shared/data/gsm8k/model_solutions.jsonl.gz

The rows hold a prompt, a completion with its label, and the solution (in the column "answer"). The verifiers - one that
extracts the final answer by rules, one that people write with a regular expression - are audited on all problems. The
judges are trained on three quarters of the problems, from scratch, and audited on the others: a reward model without
the solutions, and a classifier of words and of numbers that match the solution, as learnt verifiers go. Audits lie in
``runs/real/audit/NAME``; called again, the script goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import hstack
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from guerdon.audits.attack import NUMBER, number_in
from guerdon.audits.battery import run_battery
from guerdon.audits.examination import Examination
from guerdon.audits.items import Items, load_items
from guerdon.audits.result import AuditResult
from guerdon.cli.sheets import finish
from guerdon.core.config import load_config
from guerdon.core.data import find_source, read_rows
from guerdon.core.identity import config_hash
from guerdon.core.runs import RunFolder
from guerdon.recipes import skywork_reward_v2
from guerdon.rewards.subject import RewardSubject, Subject, load_subject

VERIFIERS = {
    "rule-verifier": "guerdon.rewards.text.final_answer:rule_verifier",
    "regex-verifier": "guerdon.rewards.text.final_answer:regex_verifier",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--out", type=Path, default=Path("runs/real/audit"))
    parser.add_argument("--items", type=int, default=200)
    arguments = parser.parse_args()
    results = {}
    items = load_items(arguments.file, columns={"solution": "answer"}, count=arguments.items, skip_bad_rows=True)
    for name, reward in VERIFIERS.items():
        results[name] = audit(name, items, arguments.out, load_subject(reward=reward))
    train, held = divided(arguments.file, arguments.out)
    unseen = load_items(held, columns={"solution": "answer"}, count=arguments.items, skip_bad_rows=True)
    learnt = RewardSubject(WordVerifier().fit(train))
    results["word-verifier"] = audit("word-verifier", unseen, arguments.out, learnt)
    pairs = load_items(held, kind="preference", count=arguments.items, skip_bad_rows=True)
    model = load_subject(model=str(trained(train, arguments.out / "training")))
    results["reward-model"] = audit("reward-model", pairs, arguments.out, model)
    print_figures(results)


class WordVerifier:
    """P(right | words of the answer, its length, whether the solution stands in it, and last), by logistic regression.

    Numbers are all one word, so that only the two flags can tell a right result from a wrong one.
    """

    version = "1"
    range = (0.0, 1.0)

    def __init__(self) -> None:
        self.__name__ = "word_verifier"
        self.words = HashingVectorizer(n_features=2**14, ngram_range=(1, 2), alternate_sign=False)
        self.model = LogisticRegression(max_iter=2000)

    def fit(self, file: Path) -> WordVerifier:
        """Learn from rows with completion, label and answer."""
        needed = ("completion", "label", "answer")
        rows = [row for _, row in read_rows(find_source(file), required=needed, skip_bad_rows=True)]
        texts, solutions = [row["completion"] for row in rows], [str(row["answer"]) for row in rows]
        self.model.fit(self._features(texts, solutions), [bool(row["label"]) for row in rows])
        return self

    def __call__(self, prompts: Any, completions: Any, solution: Any, **columns: Any) -> list[float]:
        return self.model.predict_proba(self._features(completions, solution))[:, 1].tolist()

    def identity(self) -> str:
        """Name, version and a hash of the weights."""
        return f"{self.__name__}@{self.version}#{config_hash({}, {'weights': self.model.coef_})}"

    def _features(self, texts: Sequence[str], solutions: Sequence[str]) -> Any:
        found = [[number_in(one) for one in NUMBER.findall(text)] for text in texts]
        wanted = [number_in(solution) for solution in solutions]
        flags = [
            [right in numbers, numbers[-1:] == [right], np.log1p(len(text)) / 10]
            for numbers, right, text in zip(found, wanted, texts)
        ]
        masked = [NUMBER.sub(" number ", text) for text in texts]
        return hstack([self.words.transform(masked), np.array(flags, dtype=np.float64)]).tocsr()


def audit(name: str, items: Items, out: Path, subject: Subject) -> AuditResult:
    """The audit of one subject, in its folder."""
    print(f"== {name}", flush=True)
    result = run_battery(Examination(subject, items), out=out / name, progress=True)
    finish(result.sheet(), result.to_dict(), out / name, as_json=False)
    return result


def divided(file: str, out: Path) -> tuple[Path, Path]:
    """Files with the rows of three problems of four, and of the others."""
    sides = {"train": out / "train.jsonl.gz", "held": out / "held.jsonl.gz"}
    if not all(path.exists() for path in sides.values()):
        out.mkdir(parents=True, exist_ok=True)
        rows = [row for _, row in read_rows(find_source(file), required=("prompt", "completion"), skip_bad_rows=True)]
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(row["prompt"] for row in rows))}
        for name, path in sides.items():
            kept = [row for row in rows if (places[row["prompt"]] % 4 == 0) == (name == "held")]
            with gzip.open(path, "wt", encoding="utf-8") as target:
                target.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
    return sides["train"], sides["held"]


def trained(data: Path, folder: Path) -> Path:
    """The folder of a tiny reward model trained on ``data``."""
    overrides = [f"data={data}", "skip_bad_rows=true", "held_out=0.1"]
    preset = {"preset": "tiny", **skywork_reward_v2.PRESETS["tiny"]}
    config = load_config(skywork_reward_v2.CONFIG, overrides=overrides, preset=preset)
    run = RunFolder.open(folder, config, resume=folder.exists())
    if not (folder / "summary.json").exists():
        skywork_reward_v2.run(config, run, resume=True)
    return folder / "model"


def print_figures(results: dict[str, AuditResult]) -> None:
    """Rates of all subjects side by side, as Markdown."""
    names = list(results)
    print(f"\n| attack | error | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}")
    for attack in results[names[0]].attacks:
        cells = []
        for result in results.values():
            one = result[attack.name]
            if one.reason or one.rate.value != one.rate.value:
                cells.append("-")
                continue
            worst = f"; {one.worst.name}: {one.worst.value:.2f}" if len(one.variants) > 1 and one.worst.fooled else ""
            cells.append(f"{one.rate.value:.3f} [{one.rate.low:.3f}, {one.rate.high:.3f}]{worst}")
        print(f"| {attack.name} | {attack.error} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
