"""Shop-R1 (arXiv 2507.17842): a policy paid for exact actions drifts to the easiest; hierarchical credit stops it.

Made-up shoppers: 24 features decide which of three actions is right (click .37, type and submit .36, terminate .27),
and which of 20 element names or search texts goes with it. A linear policy, warmed on 16 examples so that it gets about
as few of the harder actions right as the paper's (7%; there 4%), climbs rewards by GRPO with groups of 8. The rewards
are those of `guerdon.rewards.text.hierarchical`, on the JSON that each action is. The action "terminate" has nothing to
get wrong, so an exact-match reward pays it most often. Every figure stands beside the constant policy "terminate",
which on the paper's own data is within a point of its headline.

The negative control pays the same kinds of credit for type and presence, but for another prompt's action: equally
dense, equally large, and about nothing. The size of DARS, and whether advantages are divided by the group's deviation,
are shown and not judged: the paper gives the size no reason. Not covered: a language model that writes the JSON, the
bonus for certain rationales.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from guerdon.audits.answer_table import answer_table
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
from guerdon.metrics.class_scores import class_scores
from guerdon.objectives.advantages import group_advantages
from guerdon.rewards.text.hierarchical import shop_r1

SLUG = "shop-r1"
CLAIM = (
    "rewarded for exact actions alone a simulated shopper drifts to the easiest action, terminate; credit for format, "
    "type and arguments in a hierarchy, with long texts counting more, keeps all kinds of action alive"
)
TYPES = ("click", "type_and_submit", "terminate")
SHARES = (0.37, 0.36, 0.27)
SCALES = {"hierarchical, DARS 1000": 1000.0, "hierarchical, DARS 10": 10.0, "hierarchical, DARS 1": 1.0}
CLAIMED, BASELINE, CONTROL = "hierarchical, DARS 1000", "exact match", "credit for another prompt's type"
UNDIVIDED = "hierarchical, DARS 1000, not divided"
MEASURES = ["exact", "type accuracy", "macro F1", "says terminate", "exact, not terminate"]


@dataclass(frozen=True)
class Size:
    """features of a prompt; names (or texts) an action can have; examples and steps of the warm start; GRPO's sizes."""

    features: int = 24
    names: int = 20
    examples: int = 16
    warm: int = 40
    steps: int = 250
    prompts: int = 24
    group: int = 8
    lr: float = 0.02
    tests: int = 2000


@dataclass(frozen=True)
class Shop:
    """Prompts [N, F] with the right type [N] and the right name or text [N] (0 for terminate)."""

    prompts: Tensor
    types: Tensor
    names: Tensor

    def actions(self, names: int) -> Tensor:
        """One number for each right action: clicks, then texts, then terminate."""
        return torch.where(self.types == 2, 2 * names, self.types * names + self.names)


@dataclass(frozen=True)
class Teacher:
    """What is right: a linear rule with noise for the type, and one for the names and texts."""

    kind: Tensor
    offset: Tensor
    detail: Tensor

    @classmethod
    def drawn(cls, size: Size, generator: torch.Generator) -> Teacher:
        """A rule whose types have the shares of the paper's data."""
        kind = torch.randn(size.features, 3, generator=generator)
        detail = torch.randn(2, size.features, size.names, generator=generator)
        prompts = torch.randn(4000, size.features, generator=generator)
        offset = torch.zeros(3)
        for _ in range(200):
            drawn = torch.softmax(prompts @ kind + offset, dim=1).mean(dim=0)
            offset = offset + 2 * (torch.tensor(SHARES).log() - drawn.log())
        return cls(kind, offset - offset.mean(), detail)

    def shop(self, count: int, generator: torch.Generator) -> Shop:
        """``count`` prompts with what is right for each."""
        prompts = torch.randn(count, self.kind.shape[0], generator=generator)
        types = torch.multinomial(torch.softmax(prompts @ self.kind + self.offset, 1), 1, generator=generator)[:, 0]
        scores = torch.einsum("nf,kfm->nkm", prompts, self.detail)
        names = scores[torch.arange(count), types.clamp(max=1)].argmax(dim=1)
        return Shop(prompts, types, torch.where(types == 2, 0, names))


@dataclass(frozen=True)
class Credit:
    """What is paid for each said action [A, A] beside each right one: exact; format, type and presence; values."""

    exact: Tensor
    outer: Tensor
    values: Tensor


def credit(names: int, dars: float) -> Credit:
    """The rewards of all pairs of actions, by the reward itself on their JSON."""
    places, things = ("results", "refinements", "cart", "product", "menu"), ("socks", "hats", "lamps", "cups", "tents")
    elements = [f"{one}.{part}_{kind}" for one in places for part in ("first", "next") for kind in ("link", "option")]
    texts = [f"{colour} {one} for {whom}" for colour in ("red", "warm") for one in things for whom in ("men", "kids")]
    elements, texts = elements[:names], texts[:names]
    actions = [{"type": "click", "name": one} for one in elements]
    actions += [{"type": "type_and_submit", "name": "search_input", "text": one} for one in texts]
    actions.append({"type": "terminate"})
    said = [json.dumps({"rationale": "I want it.", "action": one}) for one in actions]
    table = answer_table(shop_r1(dars=dars), said, prompts=[str(one) for one in actions], solution=actions)
    values = table.parts["name"] + table.parts["text"] + table.parts["name_typed"]
    return Credit(
        torch.eye(len(actions)),
        torch.from_numpy(table.values - values).float(),
        torch.from_numpy(values).float(),
    )


class Policy:
    """P(type) P(name | type), both linear in the prompt."""

    def __init__(self, size: Size) -> None:
        self.kind = torch.zeros(size.features, 3, requires_grad=True)
        self.offset = torch.zeros(3, requires_grad=True)
        self.detail = torch.zeros(2, size.features, size.names, requires_grad=True)

    def parameters(self) -> list[Tensor]:
        """Everything that is learnt."""
        return [self.kind, self.offset, self.detail]

    def log_probs(self, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of types [N, 3], and of names for both types that have them [N, 2, M]."""
        details = torch.einsum("nf,kfm->nkm", prompts, self.detail)
        return (prompts @ self.kind + self.offset).log_softmax(dim=1), details.log_softmax(dim=2)

    def of(self, prompts: Tensor, types: Tensor, names: Tensor) -> Tensor:
        """log P(action | prompt) [N]."""
        kinds, details = self.log_probs(prompts)
        rows = torch.arange(len(prompts))
        named = details[rows, types.clamp(max=1), names]
        return kinds[rows, types] + torch.where(types == 2, 0.0, named)


def trained(reward: str, teacher: Teacher, size: Size, seed: int) -> dict[str, float]:
    """Warm a policy, climb one reward, grade it on prompts of its own. ``reward`` "warm start": no climbing."""
    # The same prompts for every arm of a seed.
    generator = torch.Generator().manual_seed(1000 + seed)
    policy = Policy(size)
    shown = teacher.shop(size.examples, generator)
    warming = torch.optim.Adam(policy.parameters(), lr=0.05)
    for _ in range(size.warm):
        warming.zero_grad()
        (-policy.of(shown.prompts, shown.types, shown.names).mean()).backward()
        warming.step()
    tests = teacher.shop(size.tests, generator)
    if reward != "warm start":
        _climb(policy, reward, teacher, size, generator)
    with torch.no_grad():
        kinds, details = policy.log_probs(tests.prompts)
        # As a model decodes greedily: the type first, then what goes with it.
        types, names = kinds.argmax(dim=1), details.argmax(dim=2)
    if reward == "always terminate":
        types = torch.full_like(types, 2)
    return _grade(tests, types, names[torch.arange(size.tests), types.clamp(max=1)])


def _climb(policy: Policy, reward: str, teacher: Teacher, size: Size, generator: torch.Generator) -> None:
    paid = credit(size.names, SCALES.get(reward, 1000.0))
    climbing = torch.optim.Adam(policy.parameters(), lr=size.lr)
    groups = torch.arange(size.prompts).repeat_interleave(size.group)
    for _ in range(size.steps if reward != "always terminate" else 0):
        shop = teacher.shop(size.prompts, generator)
        prompts = shop.prompts.repeat_interleave(size.group, dim=0)
        with torch.no_grad():
            kinds, details = policy.log_probs(prompts)
            types = torch.multinomial(kinds.exp(), 1, generator=generator)[:, 0]
            chosen = details[torch.arange(len(prompts)), types.clamp(max=1)]
            names = torch.multinomial(chosen.exp(), 1, generator=generator)[:, 0]
        said = torch.where(types == 2, 2 * size.names, types * size.names + names)
        right = shop.actions(size.names)
        other = right[torch.randperm(size.prompts, generator=generator)] if reward == CONTROL else right
        right, other = right.repeat_interleave(size.group), other.repeat_interleave(size.group)
        worth = paid.exact[right, said] if reward == BASELINE else paid.outer[other, said] + paid.values[right, said]
        if reward == UNDIVIDED:
            advantages = worth - worth.view(size.prompts, size.group).mean(dim=1)[groups]
        else:
            advantages = group_advantages(worth, groups)
        climbing.zero_grad()
        (-(advantages * policy.of(prompts, types, names)).mean()).backward()
        climbing.step()


def _grade(tests: Shop, types: Tensor, names: Tensor) -> dict[str, float]:
    right = (types == tests.types) & ((types == 2) | (names == tests.names))
    scores = class_scores(tests.types.numpy(), types.numpy(), 3, resamples=10)
    return {
        "exact": float(right.float().mean()),
        "type accuracy": float((types == tests.types).float().mean()),
        "macro F1": scores.macro_f1,
        "says terminate": float((types == 2).float().mean()),
        "exact, not terminate": float(right[tests.types != 2].float().mean()),
    }


def format_rates(size: Size, seed: int, *, pays: float) -> float:
    """Share of readable answers after climbing credit that needs them, from 30% on, with ``pays`` for the form itself.

    One more choice before the action, readable or not; what the action then earns is drawn from the warm policy's
    successes (a third of the types are right).
    """
    generator = torch.Generator().manual_seed(2000 + seed)
    logit = torch.tensor(float(np.log(0.3 / 0.7)), requires_grad=True)
    climbing = torch.optim.Adam([logit], lr=size.lr)
    groups = torch.arange(size.prompts).repeat_interleave(size.group)
    for _ in range(size.steps):
        with torch.no_grad():
            valid = torch.rand(len(groups), generator=generator) < logit.sigmoid()
            typed = torch.rand(len(groups), generator=generator) < 1 / 3
        worth = valid.float() * (pays + 0.3 * typed.float())
        advantages = group_advantages(worth, groups)
        climbing.zero_grad()
        chosen = torch.where(valid, torch.nn.functional.logsigmoid(logit), torch.nn.functional.logsigmoid(-logit))
        (-(advantages * chosen).mean()).backward()
        climbing.step()
    return float(logit.detach().sigmoid())


def run(
    seeds: Sequence[int] = (11, 12, 13), *, size: Size | None = None, progress: ProgressBar = default_progress
) -> ClaimResult:
    """Measure the claim over ``seeds``."""
    started = time.monotonic()
    size = size or Size()
    names = ["always terminate", "warm start", BASELINE, *SCALES, UNDIVIDED, CONTROL]
    arms = {name: Arm(name) for name in names}
    forms = {name: Arm(name) for name in ("format pays 0.5", "format pays nothing")}
    with progress(len(seeds) * len(names), "climbing") as bar:
        for seed in seeds:
            teacher = Teacher.drawn(size, torch.Generator().manual_seed(seed))
            for name, arm in arms.items():
                arm.add(trained(name, teacher, size, seed))
                bar.advance(1, seed=seed, arm=name)
            for pays, arm in zip((0.5, 0.0), forms.values(), strict=True):
                arm.add({"readable": format_rates(size, seed, pays=pays)})
    claimed, base, control, constant = (arms[name] for name in (CLAIMED, BASELINE, CONTROL, "always terminate"))
    gain = difference(claimed, base, "macro F1")
    shown = difference(control, base, "macro F1")
    drift = effect_of(base.values("says terminate") - SHARES[2])
    checks = [
        above("hierarchical credit gives a better macro F1 of types than exact match", gain),
        control_fails(
            "credit for another prompt's type does not", gain, shown, difference(claimed, control, "macro F1")
        ),
        above("paid for exact match the policy says terminate more often than it is right", drift),
        below("hierarchical credit says it less", difference(claimed, base, "says terminate")),
        above("and beats always saying it on exact actions", difference(claimed, constant, "exact")),
        above(
            "and the warm start on the other actions",
            difference(claimed, arms["warm start"], "exact, not terminate"),
        ),
    ]
    return ClaimResult(
        slug=SLUG,
        claim=CLAIM,
        measure="macro F1 of action types over exact-match reward",
        effect=gain,
        control=shown.value,
        checks=checks,
        arms=[*arms.values(), *forms.values()],
        seeds=list(seeds),
        seconds=time.monotonic() - started,
        sections=[
            arms_section("greedy actions on 2,000 prompts of their own", list(arms.values()), MEASURES),
            arms_section("from 30% readable answers (not judged)", list(forms.values()), ["readable"]),
        ],
        notes=[
            "terminate is right in 27% of the prompts; no rationale and no text is written by a language model here",
            "the size of DARS changes little, as the deviation of a group divides it away; not divided, it makes the "
            "policy forget terminate, which it does not pay",
            "exact match alone gets at least as many exact actions: the hierarchy mends the drift, no more",
            "without pay for the form readable answers become as common, since all other credit needs them: that the "
            "paper's policy falls to 3% without it is not explained by this",
        ],
    )


quick = partial(run, size=replace(Size(), steps=12, tests=300))
"""The same in seconds, for tests: it shows that everything runs, not that the claim holds."""
