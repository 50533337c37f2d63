"""Co-Reward (arXiv 2508.00410): labels from another wording of a question teach more than labels from one's own vote.

A tabular policy answers 300 questions in two wordings, with four possible answers each. Its logits are an advantage of
the right answer plus noise that both wordings share plus noise of each wording. It climbs the group-relative advantage
of a reward: the truth, its own majority (8 rollouts, and 16 for the same cost), or the majority of the other wording.
Cross-labels must beat own votes where the wordings err independently. They must not where the second wording is a copy
of the first (the negative control), where both share their errors, or where the base is below chance.

The second part is a transformer whose parameters are shared by all questions: sums modulo 11 in two surface forms, an
answer being one token. A small ``Qwen3ForCausalLM`` first learns answers to every question, of which in each form one
wrong answer takes a share of its own, independently of the other form or, as a control, the same one in both.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guerdon.claims.experiment import (
    Arm,
    ClaimResult,
    ProgressBar,
    above,
    arms_section,
    below,
    control_fails,
    difference,
)
from guerdon.core.progress import progress as default_progress

SLUG = "co-reward"
CLAIM = (
    "when the majority answer to a paraphrase labels the answers to a question, and the other way round, a policy "
    "learns more without labels than from its own majority, because a wording's errors do not reward themselves"
)
Source = Literal["truth", "own", "other"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Size:
    """The bandit; the card's numbers."""

    questions: int = 300
    answers: int = 4
    rollouts: int = 8
    updates: int = 120
    lr: float = 0.6


@dataclass(frozen=True)
class Base:
    """The policy before training: advantage of the right answer (answer 0), and the two kinds of noise (sd)."""

    right: float
    shared: float
    own: float


INDEPENDENT, SHARED, WEAK = Base(1.2, 0.3, 1.0), Base(1.2, 1.0, 0.05), Base(-0.3, 0.3, 1.0)
ARMS: dict[str, tuple[Base, Source, int, bool]] = {
    # name: base, label, rollouts as a multiple, the second wording a copy
    "truth": (INDEPENDENT, "truth", 1, False),
    "own vote": (INDEPENDENT, "own", 1, False),
    "own vote, 16 rollouts": (INDEPENDENT, "own", 2, False),
    "cross-view": (INDEPENDENT, "other", 1, False),
    "cross-view, copies": (INDEPENDENT, "other", 1, True),
    "own vote, shared errors": (SHARED, "own", 1, False),
    "cross-view, shared errors": (SHARED, "other", 1, False),
    "own vote, weak base": (WEAK, "own", 1, False),
    "cross-view, weak base": (WEAK, "other", 1, False),
}


def first_mode(answers: NDArray[np.int64], kinds: int) -> NDArray[np.int64]:
    """The most frequent answer of each group [..., n] -> [...]; among equals the one seen first."""
    counts = (answers[..., None] == np.arange(kinds)).sum(axis=-2)
    own = np.take_along_axis(counts, answers, axis=-1)
    first = np.argmax(own == counts.max(axis=-1, keepdims=True), axis=-1)
    return np.take_along_axis(answers, first[..., None], axis=-1)[..., 0]


def advantages(rewards: Floats) -> Floats:
    """(r - mean) / (sample deviation + 1e-6) over the last axis: each view's group on its own."""
    return (rewards - rewards.mean(axis=-1, keepdims=True)) / (rewards.std(axis=-1, ddof=1, keepdims=True) + 1e-6)


def train(
    base: Base, source: Source, size: Size, seed: int, *, times: int = 1, copies: bool = False
) -> dict[str, float]:
    """Mean probability of the right answer "before" and "after", and how many "labels" were right over the run.

    copies: both wordings are the first one, with the same parameters, so that each update moves both.
    """
    rng = np.random.default_rng(seed)
    shape = (size.questions, 2, size.answers)
    logits = base.shared * rng.normal(size=shape)[:, :1] + base.own * rng.normal(size=shape)
    logits[..., 0] += base.right
    if copies:
        logits[:, 1] = logits[:, 0]
    before = float(_chances(logits)[..., 0].mean())
    right = []
    for _ in range(size.updates):
        chance = _chances(logits)
        noise = rng.gumbel(size=(size.questions, 2, size.rollouts * times, size.answers))
        answers = np.argmax(logits[:, :, None] + noise, axis=-1)
        if source == "truth":
            labels = np.zeros(answers.shape[:2], dtype=np.int64)
        else:
            labels = first_mode(answers, size.answers)
            labels = labels if source == "own" else labels[:, ::-1]
        right.append(float((labels == 0).mean()))
        gains = advantages((answers == labels[..., None]).astype(float))
        taken = (answers[..., None] == np.arange(size.answers)) - chance[:, :, None]
        step = (gains[..., None] * taken).mean(axis=2)
        if copies:
            step = np.repeat(step.mean(axis=1, keepdims=True), 2, axis=1)
        logits = logits + size.lr * step
    return {"before": before, "after": float(_chances(logits)[..., 0].mean()), "labels": float(np.mean(right))}


def _chances(logits: Floats) -> Floats:
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)


@dataclass(frozen=True)
class FormSize:
    """modulus: of the sums. lean, spread: mean and deviation of the log-odds of right over wrong, a question a form."""

    modulus: int = 11
    lean: float = 0.5
    spread: float = 1.5
    hidden: int = 64
    steps: int = 400
    rollouts: int = 8
    updates: int = 100
    learning_rate: float = 3e-3
    climbing_rate: float = 3e-4


@dataclass(frozen=True)
class Forms:
    """asked: ids [2, Q, 4] of questions in both forms; right [Q]; taught [2, Q, modulus]: how often which answer."""

    asked: Tensor
    right: Tensor
    taught: Tensor


def forms(size: FormSize, seed: int, *, shared: bool = False) -> Forms:
    """All questions "a + b" and "b and a", with the answers that a model will be taught; ``shared``: the same ones."""
    rng = np.random.default_rng(seed)
    first, second = (part.ravel() for part in np.divmod(np.arange(size.modulus**2), size.modulus))
    plus, also, equals = size.modulus, size.modulus + 1, size.modulus + 2
    count = len(first)
    one = np.stack([first, np.full(count, plus), second, np.full(count, equals)], axis=1)
    two = np.stack([np.full(count, also), second, first, np.full(count, equals)], axis=1)
    right = (first + second) % size.modulus
    wrong = (right + rng.integers(1, size.modulus, size=(2, count))) % size.modulus
    share = 1 / (1 + np.exp(-rng.normal(size.lean, size.spread, size=(2, count))))
    if shared:
        wrong, share = wrong[[0, 0]], share[[0, 0]]
    taught = np.zeros((2, count, size.modulus))
    for form in range(2):
        taught[form, np.arange(count), right] = share[form]
        taught[form, np.arange(count), wrong[form]] += 1 - share[form]
    asked = torch.from_numpy(np.stack([one, two]))
    return Forms(asked, torch.from_numpy(right), torch.from_numpy(taught).float())


def learnt(made: Forms, size: FormSize, seed: int) -> Any:
    """A model that answers as often right and wrong as it was taught."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=size.modulus + 3, hidden_size=size.hidden, intermediate_size=2 * size.hidden, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, head_dim=size.hidden // 4, max_position_embeddings=8,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=size.learning_rate, weight_decay=0.0)
    for _ in range(size.steps):
        loss = -(made.taught * log_chances(model, made.asked, size)).sum(dim=-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


def log_chances(model: Any, asked: Tensor, size: FormSize) -> Tensor:
    """log p of each answer, [2, Q, modulus]."""
    logits = model(input_ids=asked.flatten(0, 1)).logits[:, -1, : size.modulus]
    return logits.log_softmax(dim=-1).unflatten(0, asked.shape[:2])


def climbed(
    model: Any, made: Forms, source: Source, size: FormSize, seed: int, *, copies: bool = False
) -> dict[str, float]:
    """Train ``model`` in place; the mean chance of the right answer "before" and "after", their difference "gain", and
    how many "labels" were right.

    copies: the second form is the first one again, asked apart.
    """
    asked = made.asked[:1].expand(2, -1, -1) if copies else made.asked
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=size.climbing_rate, weight_decay=0.0)
    truth = made.right.expand(2, -1)

    def chance() -> float:
        with torch.no_grad():
            return float(log_chances(model, asked, size).exp().gather(-1, truth[..., None]).mean())

    before, told = chance(), []
    for _ in range(size.updates):
        logs = log_chances(model, asked, size)
        noise = rng.gumbel(size=(*truth.shape, size.rollouts, size.modulus))
        answers = np.argmax(logs.detach().double().numpy()[:, :, None] + noise, axis=-1)
        labels = truth.numpy()
        if source != "truth":
            labels = first_mode(answers, size.modulus)
            labels = labels if source == "own" else labels[::-1]
        told.append(float((labels == truth.numpy()).mean()))
        gains = torch.from_numpy(advantages((answers == labels[..., None]).astype(float))).float()
        # Both views' losses are summed, as published.
        loss = -2 * (gains * logs.gather(-1, torch.from_numpy(answers))).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    after = chance()
    return {"before": before, "after": after, "gain": after - before, "labels": float(np.mean(told))}


FORM_ARMS: dict[str, tuple[Source, bool, bool]] = {
    # name: label, the second form a copy, errors shared by the forms
    "transformer: truth": ("truth", False, False),
    "transformer: own vote": ("own", False, False),
    "transformer: cross-view": ("other", False, False),
    "transformer: cross-view, copies": ("other", True, False),
    "transformer: own vote, shared errors": ("own", False, True),
    "transformer: cross-view, shared errors": ("other", False, True),
}


def _forms_of(seed: int, size: FormSize, arms: dict[str, Arm], bar: Any) -> None:
    for shared in (False, True):
        made = forms(size, seed, shared=shared)
        base = learnt(made, size, seed)
        for name, (source, copies, common) in FORM_ARMS.items():
            if common == shared:
                arms[name].add(climbed(copy.deepcopy(base), made, source, size, seed, copies=copies))
                bar.advance(1, seed=seed, arm=name)


def run(
    seeds: Sequence[int] = (11, 12, 13), *, size: Size | None = None, form_size: FormSize | None = None,
    progress: ProgressBar = default_progress,
) -> ClaimResult:  # fmt: skip
    """Measure the claim over ``seeds``."""
    started = time.monotonic()
    size, form_size = size or Size(), form_size or FormSize()
    arms, formed = ({name: Arm(name) for name in names} for names in (ARMS, FORM_ARMS))
    with progress(len(seeds) * (len(ARMS) + len(FORM_ARMS)), SLUG) as bar:
        for seed in seeds:
            for name, (base, source, times, copies) in ARMS.items():
                arms[name].add(train(base, source, size, seed, times=times, copies=copies))
                bar.advance(1, seed=seed, arm=name)
            _forms_of(seed, form_size, formed, bar)
    own, cross, copied = arms["own vote"], arms["cross-view"], arms["cross-view, copies"]
    effect = difference(cross, own, "after")
    shared = difference(arms["cross-view, shared errors"], arms["own vote, shared errors"], "after")
    weak = arms["cross-view, weak base"]
    start = Arm("weak base before", {"after": list(weak.measures["before"])})
    shown = difference(copied, own, "after")
    # No gain means less than half of the effect, everywhere. Decided on seeds 1 to 3, where a weak base lost 0.05.
    little = max(effect.value, 0.0) / 2
    read = {name.removeprefix("transformer: "): arm for name, arm in formed.items()}
    carried = difference(read["cross-view"], read["own vote"], "gain")
    some = max(carried.value, 0.0) / 2
    checks = [
        above("labels of the other wording beat the own vote", effect),
        control_fails("a copy for a second wording gives nothing", effect, shown, difference(cross, copied, "after")),
        above("also at equal cost", difference(cross, arms["own vote, 16 rollouts"], "after")),
        below("where the wordings share their errors there is little to gain", shared, little),
        below("on a base below chance there is no gain", difference(weak, start, "after"), little),
        above("a transformer gains more by them than by its own vote", carried),
        below("there a copy gives little", difference(read["cross-view, copies"], read["own vote"], "gain"), some),
        below("and shared errors leave little to gain",
              difference(read["cross-view, shared errors"], read["own vote, shared errors"], "gain"), some),
    ]  # fmt: skip
    return ClaimResult(
        slug=SLUG,
        claim=CLAIM,
        measure="mean probability of the right answer",
        effect=effect,
        control=shown.value,
        checks=checks,
        arms=[*arms.values(), *formed.values()],
        seeds=list(seeds),
        seconds=time.monotonic() - started,
        sections=[
            arms_section("right answer, and share of labels that were right", list(arms.values()), MEASURES),
            arms_section("the same of a transformer", list(formed.values()), [*MEASURES, "gain"]),
        ],
    )


MEASURES = ["before", "after", "labels"]
quick = partial(
    run, size=replace(Size(), questions=40, updates=15),
    form_size=replace(FormSize(), modulus=5, hidden=16, steps=5, updates=2),
)  # fmt: skip
"""The same in a second, for tests: it shows that everything runs, not that the claim holds."""
