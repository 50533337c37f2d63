"""``guerdon bench overoptimisation``: gold against proxy, by best-of-n and by divergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guerdon.benchmarks.protocol import Question, run_rows
from guerdon.cli.inspecting import renamed
from guerdon.cli.output import tell
from guerdon.cli.sheets import finish
from guerdon.comparisons.answer_sets import BASE, AnswerSet, load_answers, sampled_answers
from guerdon.comparisons.overoptimisation import Scored, overoptimisation
from guerdon.core.data import load_rows
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import text_of
from guerdon.rewards.outcomes import problem_kind
from guerdon.rewards.subject import Subject, subject_of_spec

__all__ = ["Climbed", "Sampling", "bench_overoptimisation"]


@dataclass(frozen=True)
class Climbed:
    """Which rewards, in the words of ``guerdon bench overoptimisation --help``."""

    proxy: str
    gold: str
    proxy_settings: Sequence[str] = ()
    gold_settings: Sequence[str] = ()


@dataclass(frozen=True)
class Sampling:
    """Policies to sample answers of, where the data hold prompts only; ``policy`` is the base."""

    policy: str | None = None
    checkpoints: Sequence[str] = ()
    temperatures: Sequence[float] = ()
    samples: int = 16
    max_new_tokens: int = 256
    chat: bool = False


def bench_overoptimisation(
    climbed: Climbed,
    data: str | None,
    sampling: Sampling = Sampling(),
    *,
    columns: Sequence[str] = (),
    largest: int | None = None,
    limit: int | None = None,
    out: Path | None = None,
    seed: int = 0,
    skip_bad_rows: bool = False,
    as_json: bool = False,
) -> None:
    """Score answers by both rewards and show how gold moves while the proxy is climbed.

    data: rows with prompt and completions (`load_answers`), or, with ``sampling.policy``, prompts.
    """
    if data is None:
        raise GuerdonError(
            "bench overoptimisation needs --data: rows with prompt and completions, or prompts and a --policy that "
            "answers them"
        )
    proxy = subject_of_spec(climbed.proxy, settings=climbed.proxy_settings)
    gold = subject_of_spec(climbed.gold, settings=climbed.gold_settings)
    if proxy.identity == gold.identity:
        raise GuerdonError(f"--proxy and --gold are the very same reward ({proxy.identity})")
    names = renamed(list(columns))
    if sampling.policy is None:
        if sampling.checkpoints or sampling.temperatures:
            raise GuerdonError("--checkpoints and --temperatures go with --policy, the base that they came from")
        sets = load_answers(data, columns=names, skip_bad_rows=skip_bad_rows, limit=limit, out=out)
    else:
        column = names.get("prompt", "prompt")
        rows = load_rows(data, required=(column,), limit=limit, skip_bad_rows=skip_bad_rows, out=out)
        prompts = list(dict.fromkeys(text_of(prompt) for prompt in rows[column]))
        sets = _sampled(sampling, prompts, out, seed)
    told = {name: _scored(subject, sets, out, name) for name, subject in (("proxy", proxy), ("gold", gold))}
    scored = [Scored(one, told["proxy"][0][at], told["gold"][0][at]) for at, one in enumerate(sets)]
    problems = {name: told[which][1] for name, which in ((proxy.name, "proxy"), (gold.name, "gold"))}
    result = overoptimisation(
        scored, names=(proxy.name, gold.name), identities=(proxy.identity, gold.identity), largest=largest,
        problems=problems, seed=seed,
    )  # fmt: skip
    finish(result.sheet(), result.to_dict(), out, as_json=as_json)


Found = tuple[list[Any], dict[str, int]]


def _scored(subject: Subject, sets: Sequence[AnswerSet], out: Path | None, name: str) -> Found:
    if not subject.modes & {"score", "rate"}:
        raise GuerdonError(f"{subject.name} ranks answers; a curve needs a score for each")
    questions = [
        Question(str(number), list(one.prompt), one.answers, subset=one.policy, columns=dict(one.columns))
        for number, one in enumerate(sets)
    ]
    found = run_rows(subject, questions, out, benchmark="overoptimisation", file=f"{name}.jsonl")
    problems: dict[str, int] = {}
    for row in found:
        for problem in row.problems.values():
            problems[problem_kind(problem)] = problems.get(problem_kind(problem), 0) + 1
    return [row.values for row in found], problems


def _sampled(sampling: Sampling, prompts: Sequence[str], out: Path | None, seed: int) -> list[AnswerSet]:
    """The base's ``samples`` answers to every prompt, and a quarter as many (two at least) of every other policy."""
    from guerdon.policies.continuation import CheckpointPolicy
    from guerdon.policies.divergence import MovedPolicy

    assert sampling.policy is not None
    if sampling.samples < 2:
        raise GuerdonError(f"--samples is the number of answers to choose from, at least 2, not {sampling.samples}")
    loaded = CheckpointPolicy.from_pretrained(sampling.policy, chat=sampling.chat)
    base, tokenizer = loaded.model, loaded.tokenizer
    options: dict[str, Any] = {"chat": sampling.chat, "max_new_tokens": sampling.max_new_tokens}
    policies = [MovedPolicy(base, base, tokenizer, name=BASE, **options)]
    for temperature in sampling.temperatures:
        name = f"{BASE} at temperature {temperature:g}"
        policies.append(MovedPolicy(base, base, tokenizer, temperature=temperature, name=name, **options))
    for checkpoint in sampling.checkpoints:
        tell(f"loading {checkpoint}")
        moved = CheckpointPolicy.from_pretrained(checkpoint, chat=sampling.chat).model
        policies.append(MovedPolicy(moved, base, tokenizer, name=checkpoint, **options))
    each = [sampling.samples, *[max(2, sampling.samples // 4)] * (len(policies) - 1)]
    return sampled_answers(policies, prompts, each=each, seed=seed, out=out)
