"""Contrast Instructions (arXiv 2309.16155): a reward model of high accuracy need not know which answer is to what.

Three parts, as in the system's card. (1) Instructions are keys, answers a key and a quality. Where nearly all training
pairs differ in quality only, the model need not read the instruction: it ranks held-out pairs right and yet mixes up
answers to different instructions. Crossed pairs within each batch must mend it, and pairs crossed at random must not.
(2) How far counting shared words gets on contrast pairs mined from the embedded dialogues: the floor beside which any
consistency is to be read. (3) RewardFusion: for a judge with noise on each text, neighbours of the same meaning must
raise consistency, and neighbours of another meaning lower it.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from guerdon.claims.experiment import (
    Arm,
    Check,
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
from guerdon.core.dialogues import embedded_pairs
from guerdon.core.progress import progress as default_progress
from guerdon.curation.contrast import OverlapBaseline, mine_contrast, score_contrasts
from guerdon.metrics.consistency import consistent
from guerdon.metrics.pair_accuracy import pair_accuracy
from guerdon.models.embedding import HashingEmbedder
from guerdon.objectives.preference import bradley_terry, crossed_negatives
from guerdon.policies.rollout import keyed_generator
from guerdon.rewards.fusion import RewardFusion

SLUG = "contrast-instructions"
TITLE = "The Trickle-down Impact of Reward (In-)consistency on RLHF"
CLAIM = (
    "a reward model of high preference accuracy can fail to tell which of two instructions an answer belongs to; "
    "training on crossed pairs mends it, and neighbours of the same meaning make a noisy judge more consistent"
)

Crossing = Literal["none", "own", "random"]
# Arm -> (share of pairs that differ in quality only, crossed pairs, training steps in units of ``Size.steps``).
ARMS: dict[str, tuple[float, Crossing, int]] = {
    "97% quality": (0.97, "none", 1),
    "97%, twice the steps": (0.97, "none", 2),
    "90% quality": (0.90, "none", 1),
    "0% quality": (0.0, "none", 1),
    "97% + crossed": (0.97, "own", 1),
    "97% + crossed at random": (0.97, "random", 1),
}
FUSIONS = ("no fusion", "same meaning", "another meaning", "preferred answers only")
ASKED = "asked"


@dataclass(frozen=True)
class Size:
    """How large the experiment is. keys, pairs and the shares of quality pairs are the card's.

    contrasts, wordings: quadruples of the noisy judge, and wordings of each text in the index, as many as fusion takes
    (5, the paper's). alike: cosine of two contrast instructions, in the paper's [0.75, 0.9]. noise: the judge's
    deviation, in units of the true gap.
    """

    keys: int = 20
    pairs: int = 2000
    tested: int = 2000
    width: int = 16
    steps: int = 300
    batch: int = 128
    lr: float = 3e-3
    dialogues: int = 200
    contrasts: int = 400
    wordings: int = 5
    alike: float = 0.85
    noise: float = 1.0


# Keys and qualities


class Judge(nn.Module):
    """R(instruction, answer) of numbers [...], answer = 2 key + quality: both keys' embeddings, quality, two layers."""

    def __init__(self, size: Size, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.asked, self.said = nn.Embedding(size.keys, size.width), nn.Embedding(size.keys, size.width)
            self.inner, self.outer = nn.Linear(2 * size.width + 1, 2 * size.width), nn.Linear(2 * size.width, 1)

    def forward(self, instruction: Tensor, answer: Tensor) -> Tensor:
        instruction, answer = torch.broadcast_tensors(instruction, answer)
        quality = (answer % 2).float()[..., None]
        seen = torch.cat([self.asked(instruction), self.said(answer // 2), quality], dim=-1)
        return self.outer(torch.relu(self.inner(seen)))[..., 0]


def preferences(count: int, quality: float, size: Size, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(instruction, chosen, rejected) [count]. A share ``quality`` differs in quality only, the others in key only."""
    key = torch.randint(size.keys, (count,), generator=generator)
    other = (key + torch.randint(1, size.keys, (count,), generator=generator)) % size.keys
    level = torch.randint(2, (count,), generator=generator)
    by_quality = torch.rand(count, generator=generator) < quality
    chosen = torch.where(by_quality, 2 * key + 1, 2 * key + level)
    return key, chosen, torch.where(by_quality, 2 * key, 2 * other + level)


def crossed(judge: Judge, key: Tensor, chosen: Tensor, crossing: Crossing, generator: torch.Generator) -> Tensor:
    """The crossed loss of a batch: every row beside the next one, where their instructions differ.

    "random" exchanges the two answers of half of the rows: as many comparisons that say nothing.
    """
    keys, answers = torch.stack([key, key.roll(1)], dim=1), torch.stack([chosen, chosen.roll(1)], dim=1)
    if crossing == "random":
        turned = torch.rand(len(key), generator=generator) < 0.5
        answers = torch.where(turned[:, None], answers.flip(1), answers)
    different = keys[:, 0] != keys[:, 1]
    return crossed_negatives(judge(keys[different][:, :, None], answers[different][:, None, :]))


def trained(arm: str, size: Size, seed: int) -> Judge:
    """A judge trained on the arm's pairs with Adam."""
    quality, crossing, length = ARMS[arm]
    key, chosen, rejected = preferences(size.pairs, quality, size, keyed_generator(seed, "pairs", str(quality)))
    judge, generator = Judge(size, seed), keyed_generator(seed, "order")
    optimiser = torch.optim.Adam(judge.parameters(), lr=size.lr)
    for _ in range(length * size.steps):
        rows = torch.randint(size.pairs, (size.batch,), generator=generator)
        loss = bradley_terry(judge(key[rows], chosen[rows]), judge(key[rows], rejected[rows]))
        if crossing != "none":
            loss = loss + crossed(judge, key[rows], chosen[rows], crossing, generator)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return judge.requires_grad_(False)


def measured(judge: Judge, arm: str, size: Size, seed: int) -> dict[str, float]:
    """Accuracy on fresh pairs of the same kind, consistency on all ordered pairs of keys with good answers, ``best``.

    best: share of instructions of which the highest-scored of all answers is its own and good: what is left for a
    policy that climbs this judge.
    """
    key, chosen, rejected = preferences(
        size.tested, ARMS[arm][0], size, keyed_generator(seed, "test", str(ARMS[arm][0]))
    )
    keys = torch.arange(size.keys)
    scores = judge(keys[:, None], torch.arange(2 * size.keys))
    pairs = torch.tensor([(i, j) for i in range(size.keys) for j in range(size.keys) if i != j])
    found = consistent(scores[pairs[:, :, None], 2 * pairs[:, None, :] + 1])
    return {
        "accuracy": pair_accuracy(judge(key, chosen), judge(key, rejected)),
        **{name: float(found[name].mean()) for name in ("c_res", "c_ins", "joint")},
        "best": float((scores.argmax(1) == 2 * keys + 1).float().mean()),
    }


# Shared words


def floor(size: Size, seed: int) -> dict[str, float]:
    """Consistency of counting shared words on contrast pairs mined from embedded dialogues."""
    mined = mine_contrast(embedded_pairs(size.dialogues, seed), HashingEmbedder())
    found = consistent(score_contrasts(OverlapBaseline(), mined))
    return {name: float(values.mean()) for name, values in found.items()} | {"pairs": float(len(mined))}


# Noise and neighbours


class NoisyJudge:
    """1 for an instruction with its own answer, 0 for a crossed one, and noise that belongs to the wording.

    A text reads "contrast instruction answer wording", four numbers.
    """

    def __init__(self, noise: float, seed: int) -> None:
        self.noise, self.seed = noise, seed

    def score(self, texts: Sequence[str]) -> Tensor:
        """Scores [N]."""
        return torch.tensor([self.truth(text) + self.noise * self._drawn(text) for text in texts], dtype=torch.float64)

    @staticmethod
    def truth(text: str) -> float:
        _, instruction, answer, _ = text.split()
        return float(instruction == answer)

    def _drawn(self, text: str) -> float:
        return float(np.random.default_rng([self.seed, zlib.crc32(text.encode())]).standard_normal())


class Meanings:
    """Unit rows of the texts of `NoisyJudge`: half instruction, half answer, and a little of the wording.

    Instructions of one contrast have the cosine ``alike``, its answers 0.5; wordings of one text about 0.98. A crossed
    text is then at (1 + alike) / 2, less the wordings' 2%, from the one with the same answer and its own instruction.
    turned: the texts that are asked for are taken for those with the contrast's other answer.
    """

    width = 256

    def __init__(self, alike: float, seed: int, *, turned: bool = False) -> None:
        self.alike, self.seed, self.turned = alike, seed, turned
        self._units: dict[str, NDArray[np.float64]] = {}

    def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        return np.stack([self._row(text) for text in texts]).astype(np.float32)

    def _row(self, text: str) -> NDArray[np.float64]:
        contrast, instruction, answer, wording = text.split()
        if self.turned and wording == ASKED:
            answer = str(1 - int(answer))
        asked = self._mixed(f"asked {contrast}", instruction, self.alike)
        said = self._mixed(f"said {contrast}", answer, 0.5)
        row = (asked + said) / math.sqrt(2) + 0.14 * self._unit(text)
        return row / np.linalg.norm(row)

    def _mixed(self, kind: str, which: str, alike: float) -> NDArray[np.float64]:
        return math.sqrt(alike) * self._unit(kind) + math.sqrt(1 - alike) * self._unit(f"{kind} {which}")

    def _unit(self, name: str) -> NDArray[np.float64]:
        if name not in self._units:
            row = np.random.default_rng([self.seed, 1, zlib.crc32(name.encode())]).standard_normal(self.width)
            self._units[name] = row / np.linalg.norm(row)
        return self._units[name]


def fused(kind: str, size: Size, seed: int) -> dict[str, float]:
    """Consistency of the noisy judge under fusion; ``noise``: the variance of score less truth, alone ``noise``^2;
    ``off``: by how much it misses what the weights say.

    "same meaning": the index holds other wordings of all four combinations of each contrast. "another meaning": the
    same, and each text finds the wordings of the one with the other answer. "preferred answers only": the index holds
    wordings of each instruction with its own answer, as the paper's does; a crossed text finds no other of its meaning.
    """
    combinations = [(i, j) for i in (0, 1) for j in (0, 1)]
    texts = [f"{contrast} {i} {j} {ASKED}" for contrast in range(size.contrasts) for i, j in combinations]
    judge, predicted = NoisyJudge(size.noise, seed), size.noise**2
    scores = judge.score(texts)
    if kind != "no fusion":
        known = [(0, 0), (1, 1)] if kind == "preferred answers only" else combinations
        index = [
            f"{contrast} {i} {j} {wording}"
            for contrast in range(size.contrasts)
            for i, j in known
            for wording in range(size.wordings)
        ]
        fusion = RewardFusion(
            judge, index, Meanings(size.alike, seed, turned=kind == "another meaning"), k=size.wordings
        )
        scores = fusion.score(texts).double()
        weights = [np.array([1.0, *(similarity for _, similarity in near)]) for near in fusion.neighbours(texts)]
        predicted *= float(np.mean([(weight**2).sum() / weight.sum() ** 2 for weight in weights]))
    found = consistent(scores.view(-1, 2, 2))
    noise = float((scores - torch.tensor([judge.truth(text) for text in texts])).var())
    row = {name: float(found[name].mean()) for name in ("c_res", "c_ins", "joint")}
    return row | {"noise": noise, "off": abs(noise - predicted)}


def run(
    seeds: Sequence[int] = (11, 12, 13), progress: ProgressBar = default_progress, size: Size | None = None
) -> ClaimResult:
    """Run all three parts for each seed; about half a minute a seed on one slow core.

    The effect is the joint consistency of the judge trained with crossed pairs less that of the one without.
    """
    size, started = size or Size(), time.monotonic()
    judges = {name: Arm(name) for name in ARMS}
    words, fusions = Arm("shared words"), {name: Arm(name) for name in FUSIONS}
    with progress(len(seeds) * (len(ARMS) + len(FUSIONS)), "claim contrast-instructions") as bar:
        for seed in seeds:
            for name, arm in judges.items():
                arm.add(measured(trained(name, size, seed), name, size, seed))
                bar.advance(seed=seed, arm=name, joint=arm.measures["joint"][-1])
            words.add(floor(size, seed))
            for name, arm in fusions.items():
                arm.add(fused(name, size, seed))
                bar.advance(seed=seed, arm=name, c_res=arm.measures["c_res"][-1])
    return _result(list(seeds), judges, words, fusions, size, time.monotonic() - started)


def _result(
    seeds: list[int], judges: dict[str, Arm], words: Arm, fusions: dict[str, Arm], size: Size, seconds: float
) -> ClaimResult:
    plain, mended, blind = judges["97% quality"], judges["97% + crossed"], judges["97% + crossed at random"]
    even, alone = judges["0% quality"], fusions["no fusion"]
    gain, control = difference(mended, plain, "joint"), difference(blind, plain, "joint")
    same, other = fusions["same meaning"], fusions["another meaning"]

    def short(arm: Arm, measure: str) -> np.ndarray:
        return arm.values("accuracy") - arm.values(measure)

    checks = [
        above("97% quality: the judge ranks fresh pairs right", effect_of(plain.values("accuracy")), 0.98),
        above("and its C_res falls short of that", effect_of(short(plain, "c_res"))),
        above("and its C_ins", effect_of(short(plain, "c_ins"))),
        above("and its joint consistency by more than 0.1", effect_of(short(plain, "joint")), 0.1),
        below("0% quality: joint consistency does not fall short", effect_of(short(even, "joint")), 0.05),
        above("crossed pairs mend the joint consistency", gain),
        control_fails("pairs crossed at random do not", gain, control, difference(mended, blind, "joint")),
        above("they do more than twice the steps", difference(mended, judges["97%, twice the steps"], "joint")),
        below("and cost no accuracy", difference(plain, mended, "accuracy"), 0.01),
        above("the mended judge's favourite answers are right more often", difference(mended, plain, "best")),
        above("fusion with neighbours of the same meaning raises C_res", difference(same, alone, "c_res")),
        below("and leaves the noise that its weights say", effect_of(same.values("off")), 0.03 * size.noise**2),
        below("fusion with neighbours of another meaning lowers C_res", difference(other, alone, "c_res")),
    ]
    shares = ["c_res", "c_ins", "joint"]
    sections = [
        arms_section("judges trained on pairs of keys and qualities", list(judges.values()), list(plain.measures)),
        arms_section("floor: words shared, on mined embedded dialogues", [words], [*shares, "res_ties", "pairs"]),
        arms_section("a noisy judge with RewardFusion", list(fusions.values()), [*shares, "noise"]),
    ]
    paper = difference(fusions["preferred answers only"], alone, "c_res")
    notes = [
        f"with preferred answers only in the index, as published, C_res changes by {paper}: a crossed text's nearest "
        "neighbours are then those of the text it should score below",
        f"counting shared words has a C_res of {words.mean('c_res'):.2f} on the mined pairs: consistency on them says "
        "little about a judge that does no better",
        "the authors' rows are not shipped (they carry no licence): ContrastInstructions.load reads them",
        "joint consistency by chance is 1/6; 0% quality never shows quality, so its favourite answers are luck",
    ]
    return ClaimResult(
        SLUG, CLAIM, "joint consistency, with crossed pairs less without", gain, control.value, checks,
        [*judges.values(), words, *fusions.values()], seeds, seconds, sections, notes,
    )  # fmt: skip


__all__ = ["CLAIM", "SLUG", "TITLE", "Check", "Section", "Size", "run"]
