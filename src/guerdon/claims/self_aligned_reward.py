"""Self-Aligned Reward (arXiv 2509.05489): an answer that its question explains is short without saying less.

A. An exact toy: an answer names some of three entities of its question and up to six filler tokens; an entity has
probability 0.6 with the question and 0.02 without, filler 0.5 either way. The policy has two parameters, how surely
it names an entity and how surely it fills, and starts out verbose; six rollouts a group, advantages without division
by the deviation, as in the paper. Where only the whole answer is right, the reward must shorten answers at equal
accuracy, more than entropy minimisation does, and alone must lose accuracy, since one entity pays as well as three.
Where each entity adds a little accuracy, a length penalty must drop entities that the self-aligned reward keeps: that
is what sets the two apart. Negative control: the same values dealt to other rollouts at random shorten nothing.

B. The embedded reasoner, asked about held-out problems: right solutions must score above solutions whose later steps
are another problem's, those above whole solutions of another problem, and padding must lower the score. Negative
control: with the questions shuffled the mean must fall to about zero (0.1 at most).

On the seeds 1 to 3, on which the number of problems was set, every check passes. On the seeds it is judged on,
entropy minimisation ends anywhere between verbose and short (5.7 tokens, deviation 1.9), which leaves that check
unclear; on nine further seeds, run afterwards, self-alignment saves 2.0 tokens more (1.1 to 2.8).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.claims.experiment import (
    Arm,
    ClaimResult,
    ProgressBar,
    Section,
    above,
    arms_section,
    below,
    control_fails,
    difference,
    effect_of,
)
from guerdon.core.arithmetic import Problem, solution_text, wrong_solution
from guerdon.core.progress import progress as default_progress
from guerdon.objectives.length_penalties import relative_length
from guerdon.objectives.self_alignment import self_aligned
from guerdon.policies.reasoner import embedded_reasoner, split_problems
from guerdon.rewards.text.self_aligned import SelfAlignment

SLUG = "self-aligned-reward"
CLAIM = (
    "adding to a verifier's reward how much the question lowers the perplexity of the answer makes answers shorter at "
    "equal accuracy, where a length penalty drops what the question asked for, and the part alone loses accuracy"
)
ENTITIES, FILLER = 3, 6
NAMED = (0.6, 0.02)
"""Probability of an entity's first mention with the question and without."""
FILLED = 0.5
ALPHA = 0.2
WHOLE = ("verifier", "with self-alignment", "with entropy", "with length penalty", "self-alignment alone", "dealt out")
CHEAP = ("verifier", "with self-alignment", "with length penalty")
TEXTS = ("right", "another's end", "another's", "padded", "one slip")


@dataclass(frozen=True)
class Size:
    """groups of ``rollouts`` an update of the toy; problems that the reasoner is asked about."""

    groups: int = 64
    rollouts: int = 6
    updates: int = 400
    lr: float = 2.0
    problems: int = 240


def alignment(named: Tensor, filled: Tensor) -> tuple[Tensor, Tensor]:
    """(R_SA, -log perplexity given the question) of toy answers: which entities [B, 3] and fillers [B, 6] they hold."""
    mask = torch.cat([named, filled], dim=1)
    chances = [torch.tensor([chance] * ENTITIES + [FILLED] * FILLER) for chance in NAMED]
    asked, alone = (chance.log().expand(mask.shape) for chance in chances)
    entropy = (asked * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return self_aligned(asked, alone, mask), entropy


def climb(reward: str, cheap: bool, size: Size, seed: int) -> dict[str, float]:
    """Policy gradient of the toy on one of the rewards -> expected accuracy, length and entities of its last policy.

    cheap: each entity adds 0.03 to an accuracy of 0.7; else 0.9 with all of them and 0.1 with fewer.
    """
    generator = torch.Generator().manual_seed(seed)
    logits = torch.tensor([0.5, 1.7])
    count = size.groups * size.rollouts
    ids = torch.arange(size.groups).repeat_interleave(size.rollouts)
    for _ in range(size.updates):
        chance = torch.sigmoid(logits)
        named = torch.rand(count, ENTITIES, generator=generator) < chance[0]
        filled = torch.rand(count, FILLER, generator=generator) < chance[1]
        length = (named.sum(dim=1) + filled.sum(dim=1)).float()
        right = (torch.rand(count, generator=generator) < _accuracy(named, cheap)).float()
        aligned, entropy = alignment(named, filled)
        dealt = aligned[torch.randperm(count, generator=generator)]
        own = {
            "verifier": right, "with self-alignment": right + ALPHA * aligned, "with entropy": right + ALPHA * entropy,
            "with length penalty": right + ALPHA * relative_length(length, ids), "self-alignment alone": aligned,
            "dealt out": right + ALPHA * dealt,
        }[reward].view(size.groups, size.rollouts)  # fmt: skip
        gains = (own - own.mean(dim=1, keepdim=True)).flatten()
        # d log P / d logit of each parameter: how many more tokens than expected it chose.
        more = torch.stack([named.sum(dim=1) - ENTITIES * chance[0], filled.sum(dim=1) - FILLER * chance[1]], dim=1)
        logits = logits + size.lr * (gains[:, None] * more).mean(dim=0)
    naming, filling = torch.sigmoid(logits).tolist()
    accuracy = 0.7 + 0.03 * ENTITIES * naming if cheap else 0.1 + 0.8 * naming**ENTITIES
    return {"accuracy": accuracy, "length": ENTITIES * naming + FILLER * filling, "entities": ENTITIES * naming}


def _accuracy(named: Tensor, cheap: bool) -> Tensor:
    if cheap:
        return 0.7 + 0.03 * named.sum(dim=1)
    return torch.where(named.all(dim=1), 0.9, 0.1)


def solutions(problems: Sequence[Problem]) -> dict[str, list[str]]:
    """Texts to each problem: right; with the later steps of the next problem; of the next; padded; with one slip."""
    right = [solution_text(one.solution) for one in problems]
    others = right[1:] + right[:1]
    padded = []
    for problem, text in zip(problems, right):
        first, rest = text.split("\n", 1)
        check = f"Let me check: {problem.solution.steps[0].expression} = {problem.solution.steps[0].result}."
        padded.append("\n".join([first, *[check] * 3, rest]))
    ends = ["\n".join([text.split("\n", 1)[0], other.split("\n", 1)[1]]) for text, other in zip(right, others)]
    slips = [solution_text(wrong_solution(one, place, fault="slip")) for place, one in enumerate(problems)]
    return dict(zip(TEXTS, (right, ends, others, padded, slips), strict=True))


def ask(model: Any, tokenizer: Any, size: Size, seed: int) -> dict[str, float]:
    """Mean R_SA of each kind of text, by the reasoner, over held-out problems of the series of ``seed``."""
    reward = SelfAlignment(batch_size=32)
    reward.bind_policy(model, tokenizer)
    problems = split_problems(size.problems, seed, "held_out")
    prompts = [[{"role": "user", "content": problem.question}] for problem in problems]
    found = {}
    for name, texts in solutions(problems).items():
        # With the closing token, as a policy in training ends its answers.
        ids = [[*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for text in texts]
        found[name] = float(np.mean(reward(prompts, texts, completion_ids=ids)))
    return found


def run(
    seeds: Sequence[int] = (11, 12, 13), *, size: Size | None = None, progress: ProgressBar = default_progress
) -> ClaimResult:
    """Measure the claim over ``seeds``."""
    started = time.monotonic()
    size = size or Size()
    whole = {name: Arm(name) for name in WHOLE}
    cheap = {name: Arm(f"{name}, each entity counts") for name in CHEAP}
    texts = Arm("embedded reasoner")
    model, tokenizer = embedded_reasoner()
    with progress(len(seeds) * (len(whole) + len(cheap) + 1), SLUG) as bar:
        for seed in seeds:
            for name, arm in whole.items():
                arm.add(climb(name, False, size, seed))
                bar.advance(1, seed=seed, arm=arm.name)
            for name, arm in cheap.items():
                arm.add(climb(name, True, size, seed))
                bar.advance(1, seed=seed, arm=arm.name)
            texts.add(ask(model, tokenizer, size, seed))
            bar.advance(1, seed=seed, arm=texts.name)
    verifier, aligned, entropy, _, alone, dealt = (whole[name] for name in WHOLE)
    kept, dropped = cheap["with self-alignment"], cheap["with length penalty"]
    saved, shown = difference(verifier, aligned, "length"), difference(verifier, dealt, "length")
    read = {name: texts.values(name) for name in TEXTS}
    checks = [
        above("answers become shorter, in tokens of about nine", saved, 2.0),
        control_fails("values dealt to other answers shorten nothing", saved, shown, difference(
            dealt, aligned, "length")),
        above("at equal accuracy", difference(aligned, verifier, "accuracy"), -0.02),
        above("and more than by entropy minimisation", difference(entropy, aligned, "length"), 0.5),
        below("alone it loses accuracy", difference(alone, verifier, "accuracy"), -0.03),
        above("a length penalty drops entities that it keeps", difference(kept, dropped, "entities"), 0.5),
        above("and with them accuracy", difference(kept, dropped, "accuracy"), 0.01),
        above("right solutions score above those with another's end", effect_of(read["right"] - read["another's end"])),
        above("and those above another problem's", effect_of(read["another's end"] - read["another's"])),
        control_fails("shuffled questions explain nothing", effect_of(read["right"]), effect_of(
            read["another's"]), effect_of(read["right"] - read["another's"])),
        above("padding lowers the score", effect_of(read["right"] - read["padded"]), 0.05),
        below("and the score falls to about zero", effect_of(read["another's"]), 0.1),
    ]  # fmt: skip
    rows = [[name, f"{read[name].mean():.3f}"] for name in TEXTS]
    return ClaimResult(
        slug=SLUG,
        claim=CLAIM,
        measure="tokens saved by self-alignment beside the verifier",
        effect=saved,
        control=shown.value,
        checks=checks,
        arms=[*whole.values(), *cheap.values(), texts],
        seeds=list(seeds),
        seconds=time.monotonic() - started,
        sections=[
            arms_section("right with all three entities", list(whole.values()), ["accuracy", "length", "entities"]),
            arms_section("each entity adds 0.03", list(cheap.values()), ["accuracy", "length", "entities"]),
            Section("mean self-alignment of solutions, embedded reasoner", ["solution", "R_SA"], rows),
        ],
        notes=["a single slip is hardly seen: self-alignment does not judge whether an answer is right"],
    )


quick = partial(run, size=replace(Size(), updates=5, problems=4))
"""The same in seconds, for tests: it shows that everything runs, not that the claim holds."""
