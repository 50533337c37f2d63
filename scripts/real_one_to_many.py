"""RewardMATH's protocol on real sampled solutions: an answer verifier, length, words, and a tiny trained model.

    python scripts/real_one_to_many.py model_solutions.jsonl.gz

The file holds rows of prompt, completion, label (and answer, the reference). Half of the problems train what learns,
the others grade everybody: one right solution against all wrong ones of its problem, best of n over all of its
solutions, and rules that read nothing. Each subject becomes a folder in ``runs/one-to-many`` with its page. The
verifiers are told the reference answer and the others are not: they say how many labels follow from the final answer
alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.benchmarks.one_to_many_items import OneToManyItem, OneToManyItems, load_one_to_many
from guerdon.benchmarks.rewardmath import rewardmath
from guerdon.cli.output import show, table
from guerdon.cli.sheets import finish
from guerdon.core.preferences import Pair
from guerdon.models.baselines import BagOfWords, LengthBaseline
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone
from guerdon.rewards.subject import RewardSubject, ScalarSubject, Subject
from guerdon.rewards.text.final_answer import regex_verifier, rule_verifier
from guerdon.trainers.preference import PreferenceConfig, RewardModelTrainer


def split(data: OneToManyItems, seed: int) -> tuple[list[OneToManyItem], OneToManyItems]:
    """Half of the problems with a right and a wrong solution to learn from, and the other half of all problems."""
    rng = np.random.default_rng(seed)

    def halves(items: Sequence[OneToManyItem]) -> tuple[list[OneToManyItem], list[OneToManyItem]]:
        learnt = set(rng.permutation(len(items))[: len(items) // 2].tolist())
        first, second = (
            [item for place, item in enumerate(items) if (place in learnt) == side] for side in (True, False)
        )
        return first, second

    (train, test), (_, sided) = halves(data.items), halves(data.one_sided)
    return train, replace(data, items=test, one_sided=sided, left_out={})


def pairs_of(items: Sequence[OneToManyItem]) -> list[Pair]:
    """Every right solution over every wrong one to the same problem."""
    made = []
    for item in items:
        said = [[{"role": "assistant", "content": text}] for text in item.answers]
        for right in range(item.right):
            made += [Pair(item.prompt, said[right], wrong, where=item.id) for wrong in said[item.right :]]
    return made


def trained(pairs: Sequence[Pair], steps: int, seed: int) -> ScalarRewardModel:
    """A transformer of 64 dimensions and two layers, from scratch."""
    words = [message["content"] for pair in pairs for message in (*pair.prompt, *pair.chosen, *pair.rejected)]
    backbone, tokenizer = tiny_backbone(words, hidden=64, vocab=2000, seed=seed)
    model = ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer, max_length=512, seed=seed, name="tiny model")
    settings = PreferenceConfig(steps=steps, batch_size=32, learning_rate=2e-3, seed=seed)
    RewardModelTrainer(model, list(pairs), settings).train()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--out", type=Path, default=Path("runs/one-to-many"))
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train, test = split(load_one_to_many(given.file, seed=given.seed), given.seed)
    pairs = pairs_of(train)
    print(f"{len(train)} problems and {len(pairs)} pairs to learn from, {len(test)} problems to grade on", flush=True)
    subjects: dict[str, Subject] = {
        "rule verifier": RewardSubject(rule_verifier, name="rule verifier"),
        "regex verifier": RewardSubject(regex_verifier, name="regex verifier"),
        "length": ScalarSubject(LengthBaseline().fit(pairs), name="length"),
        "words": ScalarSubject(BagOfWords().fit(pairs), name="words"),
        "tiny model": ScalarSubject(trained(pairs, given.steps, given.seed), name="tiny model"),
    }
    rows: list[list[Any]] = []
    for name, subject in subjects.items():
        out = given.out / name.replace(" ", "-")
        result = rewardmath(subject, test, out=out, seed=given.seed)
        finish(result.sheet(), result.to_dict(), out, as_json=False)
        ranks, chosen = result.ranked[0].ranks, result.selection
        assert chosen is not None
        interval = result.graded.subjects[0].totals[result.graded.headline]
        told = (ranks.acc_tie, ranks.acc_by_lot, ranks.mrr, ranks.mean_pairwise, chosen.curves[name][-1])
        unmeasured = len(ranks) - int(ranks.measured.sum())
        rows.append([name, str(interval), *(f"{value:.3f}" for value in told), unmeasured])
    first = result.ranked[0].ranks
    fixed = {key: f"{chosen.curves[key][-1]:.3f}" for key in ("one at random", "majority", "any right")}
    rows.append(
        ["chance", f"{first.chance:.3f}", "", "", f"{first.chance_mrr:.3f}", "0.500", fixed["one at random"], ""]
    )
    columns = ["subject", "acc [95%]", "with ties", "ties by lot", "MRR", "pairwise", f"best of {chosen.sizes[-1]}",
               "not measured"]  # fmt: skip
    show(table(f"One against many, {len(test)} problems", columns, rows))
    show(
        f"Of {chosen.problems} problems the majority answer is right in {fixed['majority']}, any in "
        f"{fixed['any right']}."
    )


if __name__ == "__main__":
    main()
