"""Follow-up likelihood (arXiv 2409.13948): reactions to responses teach a language model to judge without labels.

Made dialogues of words: a request of two slots, a response that gives each slot's value or its twin with even odds, up
to two words of padding, and a reaction out of ten praises and ten complaints. Praise follows eight in ten responses
that are right in both slots, and two in ten others. A feed-forward language model over a window of words learns
dialogues from nothing; then the reward must tell right from wrong responses, where the likelihood of the response and
its length cannot. The negative controls: reactions dealt out anew among the dialogues, and praise taken for complaint.
The scorer is no transformer: two layers of one need minutes of one core to learn to compare two words at all.

The second part is the paper's fine-tuning claim: a model of dialogues without reactions learns from more and more of
them, against the same number of steps on shuffled ones. The third is its use: a tabular policy trained by DPO on pairs
mined by the reward (highest against lowest of eight) must be right more often than one trained on random pairs.

The speaker of the dialogues is careless by design (even odds), so that how usual a response is says nothing about how
good it is; a speaker who is mostly right would make the likelihood of the response a good judge here. There are only
16 requests, and all of them occur in the dialogues: what generalises is left to larger models.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guerdon.claims.experiment import (
    Arm,
    ClaimResult,
    ProgressBar,
    above,
    arms_section,
    below,
    control_fails,
    difference,
    effect_of,
)
from guerdon.core.progress import progress as default_progress
from guerdon.curation.reward_pairs import mine_preferences
from guerdon.models.follow_up import conditional_log_likelihood
from guerdon.objectives.follow_up import follow_up_value, utterance_log_likelihood

SLUG = "follow-up-likelihood"
CLAIM = (
    "how much likelier a positive than a negative follow-up is after a response tells good responses from bad ones "
    "without preference labels, better once the scorer has learnt from feedback, and pairs mined by it improve a policy"
)
PAD, ASK, SAY, REACT, END, FILLER, BLANK = range(7)
VALUES, SLOTS = 4, 2
FIRST_VALUE = 7
FIRST_WORD = FIRST_VALUE + VALUES * SLOTS
WORDS = 10
VOCABULARY = FIRST_WORD + WORDS
PADDING = 2
LENGTH = 3 + 2 * SLOTS + PADDING + 3 + 1
IGNORED = -100


@dataclass(frozen=True)
class Size:
    """steps: of a model of whole dialogues; tuning: of the tuned ones; feedback: reactions that each learns from."""

    hidden: int = 96
    steps: int = 400
    tuning: int = 400
    batch: int = 128
    lr: float = 1e-2
    dialogues: int = 20_000
    feedback: tuple[int, ...] = (200, 1000, 5000)
    pairs: int = 400
    prompts: int = 400
    k: int = 8
    beta: float = 2.0
    dpo_steps: int = 200


@dataclass(frozen=True)
class Dialogues:
    """requests, said: int64 [N, 2]; filler: [N], words of padding; right: bool [N]; reaction: [N], 0-9 praise."""

    requests: np.ndarray
    said: np.ndarray
    filler: np.ndarray
    right: np.ndarray
    reaction: np.ndarray


def reactions() -> list[list[int]]:
    """Ten praises, then ten complaints: two or three words each, of one vocabulary."""
    rng = np.random.default_rng(5)
    found: list[list[int]] = []
    while len(found) < 20:
        one = (FIRST_WORD + rng.integers(WORDS, size=2 + len(found) % 2)).tolist()
        if one not in found:
            found.append(one)
    return found


def made(count: int, rng: np.random.Generator, *, shuffled: bool = False) -> Dialogues:
    """Dialogues; ``shuffled`` deals their reactions out anew."""
    requests = rng.integers(VALUES, size=(count, SLOTS))
    correct = rng.random((count, SLOTS)) < 0.5
    said = np.where(correct, requests, requests ^ 1)
    right = np.asarray(correct.all(axis=1))
    pleased = rng.random(count) < np.where(right, 0.8, 0.2)
    reaction = rng.integers(10, size=count) + np.where(pleased, 0, 10)
    if shuffled:
        reaction = rng.permutation(reaction)
    return Dialogues(requests, said, rng.integers(3, size=count), right, reaction)


def prefix(request: Sequence[int], said: Sequence[int], filler: int) -> list[int]:
    """Ids up to where the reaction begins."""
    asked = [FIRST_VALUE + VALUES * slot + int(value) for slot, value in enumerate(request)]
    told = [FIRST_VALUE + VALUES * slot + int(value) for slot, value in enumerate(said)]
    return [ASK, *asked, SAY, *told, *[FILLER] * int(filler), *[BLANK] * (PADDING - int(filler)), REACT]


def batch_of(told: Dialogues, *, part: str = "whole") -> tuple[Tensor, Tensor]:
    """(ids, labels) [N, LENGTH]; part "whole", "without" the reaction, or "reaction": only that is learnt."""
    said = reactions()
    ids = np.full((len(told.filler), LENGTH), PAD)
    labels = np.full_like(ids, IGNORED)
    for row in range(len(ids)):
        start = prefix(told.requests[row], told.said[row], told.filler[row])
        rest = [] if part == "without" else [*said[told.reaction[row]], END]
        whole = [*start, *rest]
        ids[row, : len(whole)] = whole
        first = len(start) if part == "reaction" else 1
        labels[row, first : len(whole)] = whole[first:]
    return torch.from_numpy(ids), torch.from_numpy(labels)


def learn(model: Any, data: tuple[Tensor, Tensor], steps: int, size: Size, seed: int) -> Any:
    """``steps`` of Adam on random batches of the data, the rate falling to 0."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=size.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, size.lr, total_steps=steps, pct_start=0.1)
    ids, labels = data
    model.train()
    for _ in range(steps):
        rows = torch.randint(len(ids), (size.batch,), generator=generator)
        logits = model(input_ids=ids[rows]).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, VOCABULARY), labels[rows, 1:].reshape(-1), ignore_index=IGNORED
        )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model.eval()


class WindowModel(nn.Module):
    """A language model of a fixed window: the next word by a layer over the embeddings of the last ``LENGTH`` words."""

    def __init__(self, hidden: int, *, width: int = 12) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.hidden = nn.Linear(LENGTH * width, hidden)
        self.out = nn.Linear(hidden, VOCABULARY)

    @property
    def device(self) -> torch.device:
        return self.out.weight.device

    def forward(self, input_ids: Tensor, **options: Any) -> SimpleNamespace:
        """``logits`` [B, T, V], as a causal language model of transformers gives them; padding stands behind."""
        before = input_ids.new_full((len(input_ids), LENGTH - 1), PAD)
        windows = torch.cat([before, input_ids], dim=1).unfold(1, LENGTH, 1)
        return SimpleNamespace(logits=self.out(self.hidden(self.embedding(windows).flatten(2)).relu()))


def fresh(size: Size, seed: int) -> WindowModel:
    """A model that knows nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return WindowModel(size.hidden)


def worth(model: Any, request: Sequence[int], said: Sequence[int], filler: int) -> float:
    """The follow-up likelihood reward of a response: the library's own, on ids."""
    log_probs, mask = conditional_log_likelihood(model, prefix(request, said, filler), reactions(), cache=False)
    likelihoods = utterance_log_likelihood(log_probs, mask)
    return float(follow_up_value(likelihoods[:10], likelihoods[10:]))


def likelihood(model: Any, request: Sequence[int], said: Sequence[int], filler: int) -> float:
    """log q(response | request), per token: the baseline."""
    whole = prefix(request, said, filler)
    log_probs, mask = conditional_log_likelihood(model, whole[: SLOTS + 2], [whole[SLOTS + 2 :]], cache=False)
    return float(utterance_log_likelihood(log_probs, mask)[0])


Judge = Callable[[Any, Any, int], float]


def remembered(judge: Judge) -> Judge:
    """The judge, asked once a response: there are only 192 in all."""
    known: dict[tuple[int, ...], float] = {}

    def ask(request: Sequence[int], said: Sequence[int], filler: int) -> float:
        key = (*map(int, request), *map(int, said), int(filler))
        if key not in known:
            known[key] = judge(request, said, filler)
        return known[key]

    return ask


def accuracy(judge: Judge, pairs: int, rng: np.random.Generator) -> float:
    """Share of (right, wrong) responses to new requests that the judge ranks so; a tie counts half."""
    told = 0.0
    for _ in range(pairs):
        request = rng.integers(VALUES, size=SLOTS)
        wrong = request ^ np.array([(1, 0), (0, 1), (1, 1)][rng.integers(3)])
        good, bad = (judge(request, said, int(rng.integers(3))) for said in (request, wrong))
        told += float(good > bad) + 0.5 * float(good == bad)
    return told / pairs


def mined_policy(judge: Judge | None, size: Size, rng: np.random.Generator) -> float:
    """How often a policy is right in both slots after DPO on mined pairs; ``judge`` None pairs samples at random.

    The policy chooses for each slot whether to be right and how much to pad: 12 responses with a logit each. It begins
    as the careless speaker.
    """
    kinds = [(first, second, filler) for first in (1, 0) for second in (1, 0) for filler in range(3)]

    def reward(prompts: Sequence[Any], completions: Sequence[int], **columns: Any) -> list[float]:
        if judge is None:
            return rng.random(len(completions)).tolist()
        found = []
        for request, kind in zip(prompts, completions):
            first, second, filler = kinds[kind]
            said = np.array(request) ^ np.array([1 - first, 1 - second])
            found.append(judge(request, said, filler))
        return found

    requests = [tuple(int(value) for value in rng.integers(VALUES, size=SLOTS)) for _ in range(size.prompts)]
    rows = mine_preferences(requests, lambda _, k: rng.integers(len(kinds), size=k).tolist(), reward, k=size.k).rows
    logits = torch.zeros(len(kinds), requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    chosen, rejected = (torch.tensor([row[side] for row in rows]) for side in ("chosen", "rejected"))
    for _ in range(size.dpo_steps):
        # The reference is uniform, so its part of DPO's margin is 0.
        policy = logits.log_softmax(dim=0)
        loss = -torch.nn.functional.logsigmoid(size.beta * (policy[chosen] - policy[rejected])).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    chance = logits.detach().softmax(dim=0)
    return float(sum(chance[place] for place, kind in enumerate(kinds) if kind[:2] == (1, 1)))


def _seed(seed: int, size: Size, arms: dict[str, Arm], advance: Callable[[str], None]) -> None:
    rng = np.random.default_rng([seed, 1])
    told = made(size.dialogues, rng)
    model = learn(fresh(size, seed), batch_of(told), size.steps, size, seed)
    judges: dict[str, Judge] = {
        "follow-up likelihood": remembered(partial(worth, model)),
        "response likelihood": remembered(partial(likelihood, model)),
        "length": lambda request, said, filler: float(filler),
        "praise taken for complaint": lambda request, said, filler: (
            -judges["follow-up likelihood"](request, said, filler)
        ),
    }
    advance("learnt")
    dealt = made(size.dialogues, np.random.default_rng([seed, 1]), shuffled=True)
    control = learn(fresh(size, seed), batch_of(dealt), size.steps, size, seed)
    judges["reactions dealt out anew"] = remembered(partial(worth, control))
    advance("control")
    for name, judge in judges.items():
        arms[name].add({"accuracy": accuracy(judge, size.pairs, np.random.default_rng([seed, 2]))})
    silent = learn(fresh(size, seed), batch_of(told, part="without"), size.steps, size, seed)
    state = {name: value.clone() for name, value in silent.state_dict().items()}
    arms["no feedback"].add(
        {"accuracy": accuracy(remembered(partial(worth, silent)), size.pairs, np.random.default_rng([seed, 2]))}
    )
    advance("without reactions")
    for name, count, shuffled in _tunings(size):
        silent.load_state_dict(state)
        some = made(count, np.random.default_rng([seed, 3]), shuffled=shuffled)
        learn(silent, batch_of(some, part="reaction"), size.tuning, size, seed)
        found = accuracy(remembered(partial(worth, silent)), size.pairs, np.random.default_rng([seed, 2]))
        arms[name].add({"accuracy": found})
        advance(name)
    mining: dict[str, Judge | None] = {
        "DPO, follow-up": judges["follow-up likelihood"],
        "DPO, random pairs": None,
        "DPO, length": judges["length"],
        "DPO, dealt out anew": judges["reactions dealt out anew"],
    }
    for name, chooser in mining.items():
        arms[name].add({"right": mined_policy(chooser, size, np.random.default_rng([seed, 4]))})


def _advanced(bar: Any, seed: int, step: str) -> None:
    bar.advance(1, seed=seed, arm=step)


def _tunings(size: Size) -> list[tuple[str, int, bool]]:
    counts = [(f"{count} reactions", count, False) for count in size.feedback]
    return [*counts, (f"{size.feedback[-1]} shuffled", size.feedback[-1], True)]


def run(
    seeds: Sequence[int] = (11, 12, 13), *, size: Size | None = None, progress: ProgressBar = default_progress
) -> ClaimResult:
    """Measure the claim over ``seeds``."""
    started = time.monotonic()
    size = size or Size()
    judged = [
        "follow-up likelihood", "response likelihood", "length", "praise taken for complaint",
        "reactions dealt out anew",
    ]  # fmt: skip
    tuned = ["no feedback", *(name for name, _, _ in _tunings(size))]
    policies = ["DPO, follow-up", "DPO, random pairs", "DPO, length", "DPO, dealt out anew"]
    arms = {name: Arm(name) for name in (*judged, *tuned, *policies)}
    with progress(len(seeds) * (3 + len(_tunings(size))), SLUG) as bar:
        for seed in seeds:
            _seed(seed, size, arms, partial(_advanced, bar, seed))
    own, usual, length, turned, control = (arms[name] for name in judged)
    silent, *learnt, shuffled = (arms[name] for name in tuned)
    gain, shown = difference(own, usual, "accuracy"), difference(control, usual, "accuracy")
    mined, at_random, by_length, by_control = (arms[name] for name in policies)
    checks = [
        above("the reward tells right from wrong better than the response's likelihood", gain, 0.1),
        control_fails("reactions dealt out anew teach nothing", gain, shown, difference(own, control, "accuracy")),
        above("it does so better than length", difference(own, length, "accuracy"), 0.1),
        below("praise taken for complaint ranks them the wrong way", effect_of(turned.values("accuracy") - 0.5), -0.1),
        above("a scorer learns from feedback", difference(learnt[-1], silent, "accuracy"), 0.1),
        above("more of it teaches more", difference(learnt[-1], learnt[0], "accuracy")),
        above("than as many steps on shuffled feedback do", difference(learnt[-1], shuffled, "accuracy"), 0.1),
        above(
            "pairs mined by it make a policy right more often than random ones", difference(mined, at_random, "right")
        ),
        above("and than pairs by length", difference(mined, by_length, "right")),
        above("and than pairs mined by the control", difference(mined, by_control, "right")),
    ]
    return ClaimResult(
        slug=SLUG,
        claim=CLAIM,
        measure="accuracy on pairs over the response's likelihood",
        effect=gain,
        control=shown.value,
        checks=checks,
        arms=list(arms.values()),
        seeds=list(seeds),
        seconds=time.monotonic() - started,
        sections=[
            arms_section("right above wrong, pairs", [arms[name] for name in judged], ["accuracy"]),
            arms_section("a scorer tuned on reactions", [arms[name] for name in tuned], ["accuracy"]),
            arms_section("right in both slots after DPO (0.25 before)", [arms[name] for name in policies], ["right"]),
        ],
        notes=[
            "The speaker of the dialogues is right in each slot half of the time, so its own likelihood is no judge."
        ],
    )


quick = partial(
    run,
    size=replace(
        Size(), hidden=16, steps=20, tuning=20, batch=32, dialogues=500, feedback=(50, 100), pairs=10, prompts=4
    ),
)
"""The same in seconds, for tests: it shows that everything runs, not that the claim holds."""
