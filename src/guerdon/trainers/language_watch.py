"""The hacking watch of a language policy: what its rewards do not see, measured beside them on problems set aside."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError
from guerdon.core.identity import name_of
from guerdon.core.processes import first
from guerdon.core.scorer import Scorer, score_all
from guerdon.metrics.majority_vote import majority_vote
from guerdon.metrics.repetition import ngram_repetition
from guerdon.models.sequence_log_probs import sequence_log_probs
from guerdon.policies.continuation import CheckpointPolicy
from guerdon.policies.rewriter import sampling_key
from guerdon.rewards.text.final_answer import same_answer, stated_answer
from guerdon.trainers.hack_alarm import HackAlarm, hack_alarm

__all__ = ["LanguageWatch", "Sampled", "answer_ids", "meters", "sample", "stated_text", "surprise"]

Row = Mapping[str, Any]
REPEATED = 8  # words of an n-gram that counts as a repetition


@dataclass(frozen=True)
class Sampled:
    """``count`` completions of each of P prompts: texts, lengths in tokens, which ended, and the ids of prompts and
    completions, each [P * count]."""

    texts: list[str]
    lengths: NDArray[np.int64]
    ended: NDArray[np.bool_]
    count: int
    asked: list[list[int]] = field(default_factory=list)
    ids: list[list[int]] = field(default_factory=list)

    def grouped(self) -> list[list[str]]:
        """The texts, prompt by prompt."""
        return [self.texts[start : start + self.count] for start in range(0, len(self.texts), self.count)]


def answer_ids(tokenizer: Any, prompt: Any, template: Mapping[str, Any] | None = None) -> list[int]:
    """Token ids that an answer to ``prompt`` follows: messages through the chat template, a text as it is."""
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **(template or {}))
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Any],
    *,
    count: int = 1,
    temperature: float = 1.0,
    max_new_tokens: int,
    seed: int = 0,
    batch_size: int = 64,
    template: Mapping[str, Any] | None = None,
) -> Sampled:
    """`Sampled` completions of a policy; each depends on (seed, prompt, number) and the weights only."""
    training = model.training
    policy = CheckpointPolicy(
        model, tokenizer, temperature=temperature, top_p=1.0, top_k=len(tokenizer), max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )  # fmt: skip
    ids, keys = [], []
    for prompt in prompts:
        row = answer_ids(tokenizer, prompt, template)
        ids += [row] * count
        keys += [sampling_key(seed, json.dumps(prompt, sort_keys=True, default=str), copy) for copy in range(count)]
    made = policy.continue_ids(ids, keys, max_new_tokens)
    model.train(training)
    ends = policy.ends
    return Sampled(
        tokenizer.batch_decode(made, skip_special_tokens=True), np.array([len(row) for row in made]),
        np.array([bool(row) and row[-1] in ends for row in made]), count, ids, made,
    )  # fmt: skip


def stated_text(text: str) -> str | None:
    """The words of the final answer that a text states (`stated_answer`), or None."""
    found = stated_answer(text)
    return None if found is None else found.text


def surprise(model: Any, tokenizer: Any, found: Sampled, *, temperature: float = 1.0) -> float:
    """Mean of -log p over the tokens that were sampled, in nats: an unbiased estimate of the policy's entropy a token.

    nan where nothing was said.
    """
    pad = tokenizer.pad_token_id
    log_probs, mask = sequence_log_probs(
        model, found.asked, found.ids, temperature=temperature, batch_size=64, pad_id=0 if pad is None else int(pad)
    )
    return float(-log_probs[mask].mean()) if bool(mask.any()) else float("nan")


@dataclass
class LanguageWatch:
    """Look at a policy on fixed problems, and say when a rise of its rewards is a hack.

    problems:  rows with "prompt" and the columns that judge and rewards read; no training prompt is among them.
    judge:     a reward that is not trained on: a verifier, or a gold reward.
    rewards:   name -> (reward, weight), those that are trained on.
    samples:   completions a problem, at the temperature of the training.
    views:     wordings of a problem that stand in a row and go to the rewards together.
    folder:    where each look is kept, a file a look, so that a resumed run knows the earlier ones.
    said:      the answer that a completion gives, for votes; None where it gives none.
    kind:      the class of that answer, where there are few: a policy that drifts to one of them shows in the shares.
    """

    problems: Sequence[Row]
    judge: Any
    rewards: Mapping[str, tuple[Any, float]]
    folder: Path
    samples: int = 4
    views: int = 1
    temperature: float = 1.0
    max_new_tokens: int = 256
    seed: int = 0
    template: Mapping[str, Any] | None = None
    said: Callable[[str], str | None] = stated_text
    kind: Callable[[str], str | None] | None = None
    alarm: Callable[..., HackAlarm | None] = hack_alarm
    looks: dict[int, dict[str, list[float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.problems:
            raise GuerdonError("the hacking watch needs at least one problem that is not trained on")
        # What a reward cannot score is counted here and stops nothing: training has its own ceiling.
        self._scorers = {
            name: Scorer(one, group_size=self.samples * self.views, max_failure_rate=1.0, on_failure="drop_sample")
            for name, (one, _) in {**self.rewards, "judge": (self.judge, 1.0)}.items()
        }
        for path in sorted(self.folder.glob("*.json")):
            self.looks[int(path.stem)] = json.loads(path.read_text(encoding="utf-8"))

    def rollback(self, step: int) -> None:
        """Forget looks after ``step``."""
        for late in [one for one in self.looks if one > step]:
            if first():
                self._path(late).unlink(missing_ok=True)
            del self.looks[late]

    def measure(self, model: Any, tokenizer: Any, step: int) -> dict[str, float]:
        """Sample, score and record; the row for ``metrics.jsonl``."""
        prompts = [row["prompt"] for row in self.problems]
        found = sample(
            model, tokenizer, prompts, count=self.samples, temperature=self.temperature, seed=self.seed,
            max_new_tokens=self.max_new_tokens, template=self.template,
        )  # fmt: skip
        scores = self.scored(found)
        values = {name: part.reshape(len(prompts), self.samples) for name, part in scores.items()}
        weights = {name: weight for name, (_, weight) in self.rewards.items()}
        total = sum((weights[name] * values[name] for name in weights), np.zeros((len(prompts), self.samples)))
        self.looks[step] = {"proxy": _means(total), "judge": _means(values["judge"])}
        if first():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._path(step).write_text(json.dumps(self.looks[step]), encoding="utf-8")
        row = {f"judge/{name_of(self.judge)}/held-out": _mean(scores["judge"])}
        row |= {f"reward/{name}": _mean(scores[name]) for name in self.rewards}
        row |= {f"scored/{name}": float(np.isfinite(part).mean()) for name, part in scores.items()}
        row["proxy"] = _mean(total.ravel())
        row["group_spread"] = _mean(np.nanstd(total, axis=1)) if np.isfinite(total).any() else float("nan")
        entropy = surprise(model, tokenizer, found, temperature=self.temperature)
        return row | {
            f"drift/{name}": value
            for name, value in {**meters(found, self.said, self.kind), "entropy": entropy}.items()
        }

    def scored(self, found: Sampled) -> dict[str, NDArray[np.float64]]:
        """Scores [P * samples] of the judge and every reward; nan where there is none."""
        every = [row for row in self.problems for _ in range(self.samples)]
        prompts = [row["prompt"] for row in every]
        said = [
            text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
            for prompt, text in zip(prompts, found.texts, strict=True)
        ]
        columns = {name: [row.get(name) for row in every] for name in self.problems[0] if name != "prompt"}
        if self.views > 1:  # the wordings of a problem are one group for a reward that compares them
            columns["group_ids"] = [place // (self.samples * self.views) for place in range(len(every))]
        told = score_all(list(self._scorers.values()), prompts, said, **columns)
        return {name: np.where(one.valid, one.values, np.nan) for name, one in zip(self._scorers, told, strict=True)}

    def ring(self) -> tuple[HackAlarm, int] | None:
        """The alarm as of the last look, and the step of the best one; None while there is none."""
        steps = sorted(self.looks)
        problems = {name: np.array([self.looks[step][name] for step in steps]) for name in ("proxy", "judge")}
        found = self.alarm(problems["proxy"], problems["judge"]) if steps else None
        return (found, steps[found.best]) if found is not None else None

    def best(self) -> int:
        """The step of the look at which the judge stood highest, the earliest of several."""
        means = {step: _mean(np.array(look["judge"])) for step, look in sorted(self.looks.items())}
        known = {step: value for step, value in means.items() if np.isfinite(value)}
        return max(known, key=lambda step: known[step]) if known else max(self.looks, default=0)

    def _path(self, step: int) -> Path:
        return self.folder / f"{step:06d}.json"


def meters(
    found: Sampled, said: Callable[[str], str | None] = stated_text, kind: Callable[[str], str | None] | None = None
) -> dict[str, float]:
    """What completions look like, whatever they are worth.

    length: tokens. ended: share that came to an end. stated: share with an answer (``said``). repetition: share of
    8-grams that stood before. vote_share: mean share of the completions of a prompt with its commonest answer.
    says KIND: share of the completions of each class that occurs.
    """
    answers = [said(text) for text in found.texts]
    shares = [
        majority_vote(answers[start : start + found.count], equal=same_answer).share
        for start in range(0, len(answers), found.count)
    ]
    kinds = Counter(kind(text) for text in found.texts) if kind is not None else Counter[str | None]()
    named = {f"says {name}": count / len(found.texts) for name, count in sorted(kinds.items(), key=str) if name}
    return {
        "length": float(found.lengths.mean()), "ended": float(found.ended.mean()),
        "stated": float(np.mean([one is not None for one in answers])),
        "repetition": float(np.mean([ngram_repetition(text, REPEATED) for text in found.texts])),
        "vote_share": float(np.mean(shares)), **named,
    }  # fmt: skip


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def _means(rows: NDArray[np.float64]) -> list[float]:
    return [_mean(row) for row in rows]
