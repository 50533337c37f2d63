"""Gold against proxy on answers from a file or sampled on the spot: curves, policies, failures, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from guerdon.cli.benching_overoptimisation import Climbed, bench_overoptimisation
from guerdon.comparisons.answer_sets import AnswerSet, load_answers, sampled_answers
from guerdon.comparisons.overoptimisation import Scored, overoptimisation, sizes
from guerdon.core.errors import GuerdonError
from guerdon.metrics.overoptimisation import best_of_n_kl

NORMAL_MAX_8 = 1.4236


def answers(number: int, count: int, policy: str = "base", kl: float | None = None) -> AnswerSet:
    texts = tuple(f"answer {place}" for place in range(count))
    prompt = [{"role": "user", "content": f"prompt {number}"}]
    return AnswerSet(policy, prompt, texts, None if kl is None else (kl,) * count)


def world(prompts: int = 250, count: int = 16, *, bend: float = 0.0, seed: int = 0) -> list[Scored]:
    """Proxy x + e and gold x - bend (x + e)^2, x and e standard normal: gold falls where the proxy is far up."""
    rng = np.random.default_rng(seed)
    x, e = rng.standard_normal((2, prompts, count))
    return [
        Scored(answers(row, count), x[row] + e[row], x[row] - bend * (x[row] + e[row]) ** 2) for row in range(prompts)
    ]


def test_sizes() -> None:
    assert sizes(2) == [1, 2] and sizes(4) == [1, 2, 3, 4] and sizes(20) == [1, 2, 3, 4, 8, 16, 20]


def test_a_noisy_proxy_carries_gold_part_of_the_way() -> None:
    found = overoptimisation(world())
    at = found.ns.index(8)
    assert found.proxy[at].value == pytest.approx(NORMAL_MAX_8, abs=0.08)
    assert found.gold[at].value == pytest.approx(NORMAL_MAX_8 / math.sqrt(2), abs=0.08)
    assert found.ceiling[at].value == pytest.approx(NORMAL_MAX_8, abs=0.08)
    assert found.gold[0].value == pytest.approx(0.0, abs=1e-9) == found.proxy[0].value
    assert found.kl == [best_of_n_kl(n) for n in found.ns]
    assert found.turn.over_optimised is not True
    assert found.agreement.order.value == pytest.approx(0.75, abs=0.02)  # correlation 1/sqrt 2: 1/2 + asin(r)/pi


def test_a_proxy_that_is_hacked_far_up_is_caught() -> None:
    found = overoptimisation(world(bend=0.25))
    assert found.turn.over_optimised is True and found.ns[found.turn.peak] < 16
    assert found.gold[-1].value < found.gold[found.turn.peak].value
    assert found.proxy[-1].value > found.proxy[found.turn.peak].value
    assert found.fit is not None and found.fit.beta > 0 and found.fit.peak_kl < found.kl[-1]
    assert "has lost" in found.sheet().lead and found.examples
    assert found.examples[0].best_scores[1] > found.examples[0].chosen_scores[1]


def test_policies_stand_at_their_measured_divergence() -> None:
    rng = np.random.default_rng(1)
    scored = world(60, 8)
    for name, shift in (("one", 0.5), ("two", 1.0), ("three", 2.0)):
        for row in range(60):
            x = rng.standard_normal(4) + shift
            # N(shift, 1) is shift^2 / 2 nats from N(0, 1).
            scored.append(Scored(answers(row, 4, name, shift**2 / 2), x, x))
    found = overoptimisation(scored)
    assert [one.name for one in found.policies] == ["one", "two", "three"]
    assert [one.kl.value for one in found.policies if one.kl] == pytest.approx([0.125, 0.5, 2.0])
    values = [one.gold.value for one in found.policies]
    assert values == sorted(values) and found.policy_fit is not None and found.policy_fit.form == "rl"
    titles = [part.title for part in found.sheet().parts]
    assert {"Best-of-n by the proxy", "Policies", "Fitted forms", "By divergence from the base"} <= set(titles)
    json.dumps(found.to_dict())


def test_answers_without_a_score_are_left_out_and_counted() -> None:
    scored = world(40, 8)
    gaps = scored[0].proxy.copy()
    gaps[:5] = np.nan
    scored[0] = Scored(scored[0].answers, gaps, scored[0].gold)
    found = overoptimisation(scored, largest=8, problems={"proxy": {"failed": 5}})
    assert found.left_out == 1 and found.prompts == 39 and found.ns[-1] == 8
    assert "5 failed" in found.sheet().facts["answers without a score"]


def test_refusals() -> None:
    flat = [Scored(one.answers, np.ones(16), one.gold) for one in world(5)]
    for make, said in (
        (lambda: overoptimisation([]), "no answers"),
        (lambda: overoptimisation(flat), "same score"),
        (lambda: overoptimisation(world(5, 1)), "at least 2 prompts with 2 answers"),
        (lambda: overoptimisation(world(5), largest=40), "at least 2 prompts with 40"),
    ):
        with pytest.raises(GuerdonError, match=said):
            make()


def test_answers_from_rows(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    rows: list[dict[str, Any]] = [
        {"prompt": "p", "completion": "a", "solution": "5", "note": 1},
        {"prompt": "p", "completion": "b", "solution": "5", "note": 2},
        {"prompt": "q", "completions": ["c", "d", "e"], "solution": "6"},
        {"prompt": "p", "completion": "f", "policy": "later", "log_prob": -1.0, "reference_log_prob": -1.5},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = load_answers(path)
    assert [(one.policy, one.answers, one.kl) for one in found] == [
        ("base", ("a", "b"), None), ("base", ("c", "d", "e"), None), ("later", ("f",), (0.5,)),
    ]  # fmt: skip
    assert found[0].columns == {"solution": "5"}  # "note" differs, so it belongs to no prompt
    assert len(load_answers(path, limit=1)) == 2
    path.write_text('{"prompt": "p", "completion": " "}\n{"prompt": "p", "completions": ["a"], "kl": [1, 2]}\n')
    with pytest.raises(GuerdonError, match="2 bad rows"):
        load_answers(path)


class Wordy:
    """Answers of 1 to ``most`` words, uniformly; log(most / 4) nats from the one of 4 words at most."""

    def __init__(self, most: int) -> None:
        self.name, self.most, self.calls = f"up to {most}", most, 0

    def samples(self, prompts: Any, seed: int) -> tuple[list[str], list[float]]:
        self.calls += 1
        random = Random(f"{seed} {self.name}")
        texts = [" ".join(["word"] * random.randint(1, self.most)) for _ in prompts]
        return texts, [0.7] * len(texts)


def test_what_was_sampled_is_not_sampled_again(tmp_path: Path) -> None:
    policies = [Wordy(4), Wordy(8)]
    first = sampled_answers(policies, ["p", "q"], each=[6, 3], out=tmp_path)
    assert [len(one.answers) for one in first] == [6, 6, 3, 3] and first[2].kl == (0.7, 0.7, 0.7)
    again = sampled_answers(policies, ["p", "q"], each=[6, 3], out=tmp_path)
    assert again == first and [policy.calls for policy in policies] == [1, 1]
    with pytest.raises(GuerdonError, match="another seed"):
        sampled_answers(policies, ["p", "q"], each=[6, 3], seed=1, out=tmp_path)
    with pytest.raises(GuerdonError, match="given twice"):
        sampled_answers(policies, ["p", "p"], each=[2, 2])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Length is climbed; what is meant is as close to six words as can be."""
    module = tmp_path / "lengths.py"
    module.write_text(
        "def longer(prompts, completions, **columns):\n"
        "    return [float(len(text.split())) for text in completions]\n\n"
        "def fitting(prompts, completions, **columns):\n"
        "    return [-abs(len(text.split()) - 6.0) for text in completions]\n"
    )
    random = Random(0)
    data = tmp_path / "data.jsonl"
    rows = [[" ".join("w" * random.randint(1, 12)) for _ in range(12)] for _ in range(40)]
    data.write_text(
        "".join(json.dumps({"prompt": f"p{row}", "completions": one}) + "\n" for row, one in enumerate(rows))
    )
    climbed = Climbed(f"{module}:longer", f"{module}:fitting")
    out = tmp_path / "out"
    bench_overoptimisation(climbed, str(data), out=out)
    told = json.loads((out / "result.json").read_text())
    assert told["over_optimised"] is True and told["peak_n"] in (1, 2, 3) and told["prompts"] == 40
    assert (out / "report.html").is_file() and (out / "proxy.jsonl").is_file() and "has lost" in capsys.readouterr().out
    with pytest.raises(GuerdonError, match="very same reward"):
        bench_overoptimisation(Climbed(climbed.proxy, climbed.proxy), str(data))
    with pytest.raises(GuerdonError, match="needs --data"):
        bench_overoptimisation(climbed, None)
