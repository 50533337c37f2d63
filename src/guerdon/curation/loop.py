"""Two-stage curation of preference data: a reward model's errors say what to label, then models and judges filter."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from guerdon.core.config import Config
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair
from guerdon.core.progress import progress
from guerdon.core.runs import RunFolder
from guerdon.curation.attributes import AttributeGenerator
from guerdon.curation.cleaning import decontaminate, dedup_pairs, drop_empty, pair_key
from guerdon.curation.committee import JudgeCommittee
from guerdon.curation.consistency import ConsistencyFilter, Decision, Judged, pair_probabilities, recycle
from guerdon.curation.decisions import DecisionLog, write_curated
from guerdon.curation.labelling import AttributeBook, Ceiling, Labeller, Person
from guerdon.curation.retrieval import Embed, PairRetriever, adaptive_k
from guerdon.models.text_judge import TextVerdict

__all__ = ["CurationConfig", "CurationLoop", "CurationResult"]

STAGE_2 = "curation-2"
CHUNK = 128
Train = Callable[[Sequence[Pair]], Any]
"""Pairs -> a reward model with ``score(conversations)``; the same pairs must give the same model."""


class CurationConfig(Config):
    """iterations, k_max: the paper's. patience (iterations without a better accuracy on gold), band, recycle, the rest:
    ours, where the paper is silent.

    human_budget: pairs an iteration that go to the person instead of the judges. recycle: which stage-2 pairs enter
    with their label turned round unverified: "none" (the paper's main models), "flips" (both models call the label
    wrong) or "all" that was not kept (its 40M model). pool_limit: the most unverified pairs that stage 1 looks at,
    drawn at random; None: all. workers: threads for the judges. max_failure_rate: of judges and attributes, above which
    the run stops.
    """

    seed: int = Field(0, ge=0)
    iterations: int = Field(8, ge=0)
    k_max: int = Field(8, ge=1)
    patience: int = Field(2, ge=1)
    band: float = Field(0.05, ge=0, le=0.5)
    metric: str = "cosine"
    human_budget: int = Field(0, ge=0)
    recycle: Literal["none", "flips", "all"] = "none"
    pool_limit: int | None = Field(None, ge=1)
    workers: int = Field(1, ge=1)
    max_failure_rate: float = Field(0.1, ge=0, le=1)


@dataclass
class CurationResult:
    """pairs: what to train on (silver, and what stage 2 let pass). gold: human-verified, with what people added.
    discarded: dropped, labels as they were. history: a row an iteration with accuracies and pool sizes; the last is
    stage 2's. The two reward models are those that filtered."""

    pairs: list[Pair]
    gold: list[Pair]
    silver: list[Pair]
    discarded: list[Pair]
    best_rm: Any
    gold_rm: Any
    history: list[dict[str, Any]] = field(default_factory=list)


class CurationLoop:
    """Stage 1 grows silver data where the reward model errs; stage 2 filters the rest without people.

    train:       pairs -> reward model, deterministic. load: folder -> the model that its ``save_pretrained`` wrote;
                 with it trained models are kept in the run, and a resumed run does not train them again.
    committee:   labels of stage 1, and of the pairs that the best model doubts in stage 2. None, with iterations=0:
                 stage 2 alone, by the two reward models.
    embed:       texts -> [N, d], for retrieval.
    attributes:  generator of the five attributes; None: those in the pairs' own column, if any.
    person:      a judge like the others, whose labels go to gold instead of silver.
    folder:      run folder. ``decisions.jsonl`` in it holds every decision with its evidence, ``attributes.jsonl`` what
                 was generated, ``curated.jsonl`` the result. None: nothing is written.

    A run that was killed continues after the last decision that was written, and ends in the same decisions. A pair on
    which all judges failed is not decided in stage 1 and may come up again.
    Source: Skywork-Reward-V2 (arXiv 2507.01352), section 3. Gold is validation data in stage 1 and training data of the
    gold model in stage 2: only ``held_out`` pairs, which no step looks at, say how good either model is. Accuracy on
    gold is taken on the gold pairs of the beginning, so that iterations can be compared.
    """

    def __init__(
        self,
        config: CurationConfig,
        *,
        train: Train,
        committee: JudgeCommittee | None,
        embed: Embed,
        attributes: AttributeGenerator | None = None,
        person: TextVerdict | None = None,
        folder: RunFolder | None = None,
        load: Callable[[Path], Any] | None = None,
        bar: Callable[[int, str], Any] = progress,
    ) -> None:
        if config.human_budget and person is None:
            raise GuerdonError("human_budget needs a person: a judge who is asked in the committee's stead")
        if committee is None and config.iterations:
            raise GuerdonError("stage 1 needs a committee to label what it picks; without one set iterations=0")
        self.config, self.train, self.folder, self._bar, self._load = config, train, folder, bar, load
        self.embed, self.ceiling = embed, Ceiling(config.max_failure_rate)
        self.book = AttributeBook(attributes, self._path("attributes.jsonl"), self.ceiling)
        self.person = None if person is None else Person(person, self.book, config.seed)
        self.labeller: Labeller | None = None
        if committee is not None:
            self.labeller = Labeller(
                committee, PairRetriever(embed, config.metric), self.book, self.ceiling, k_max=config.k_max,
                workers=config.workers,
            )  # fmt: skip
        self._models: dict[str, Any] = {}

    def run(
        self,
        gold: Sequence[Pair],
        silver: Sequence[Pair],
        unverified: Sequence[Pair],
        *,
        held_out: Sequence[Pair] = (),
        benchmark: Sequence[str] = (),
    ) -> CurationResult:
        """Both stages, from where the folder's run stands.

        gold: human-verified. silver: what the first model learns from. unverified: the pool. held_out: a third set, for
        accuracies that no step looks at. benchmark: prompts of evaluation sets, taken out of the pool.

        Raises GuerdonError for an empty gold or silver set, held-out prompts that stand in another set, a pool that
        differs from the one that the folder's decisions are about, and failures above the ceiling.
        """
        if not gold or not silver:
            raise GuerdonError(f"curation needs gold and silver pairs to begin with; got {len(gold)} and {len(silver)}")
        pool = self._cleaned(gold, silver, unverified, benchmark)
        _check_apart(held_out, [*gold, *silver, *pool])
        self._log = DecisionLog(self._path("decisions.jsonl"), pool)
        state = _Pools(pool, list(gold), list(silver), np.ones(len(pool), dtype=bool), list(held_out))
        best = self._stage_1(state)
        return self._stage_2(state, best)

    def _cleaned(
        self, gold: Sequence[Pair], silver: Sequence[Pair], unverified: Sequence[Pair], benchmark: Sequence[str]
    ) -> list[Pair]:
        """The pool without empty answers, repeats (also of gold and silver) and prompts of benchmarks."""
        full, empty = drop_empty(unverified)
        known = {pair_key(pair) for pair in (*gold, *silver)}
        unique, repeats = dedup_pairs([pair for pair in full if pair_key(pair) not in known])
        pool, foreign = decontaminate(unique, benchmark) if benchmark else (unique, [])
        gone = {"empty": len(empty), "repeated": len(full) - len(unique), "contaminated": len(foreign)}
        self._once("curation-0", self._measured, 0, {"unverified": len(pool), **gone}, "curation-0")
        return pool

    # Stage 1

    def _stage_1(self, state: _Pools) -> tuple[str, int]:
        """Grow silver (and gold); -> name of the best model and how many silver pairs it learnt from."""
        first_gold, best, stale = len(state.gold), ("", 0), 0
        accuracy, places = -1.0, _Places(self, state)
        for turn in range(self.config.iterations + 1):
            name, stage = f"silver-{turn:02d}", f"curation-1-{turn:02d}"
            last = turn == self.config.iterations
            found = self._once(f"{stage}-picked", self._picked, name, turn, state, first_gold, None if last else places)
            state.history.append(found["measures"])
            if found["measures"]["gold_accuracy"] > accuracy:
                accuracy, best, stale = found["measures"]["gold_accuracy"], (name, len(state.silver)), 0
            else:
                stale += 1
            if stale >= self.config.patience or not found["rows"]:
                break
            self._once(stage, self._labelled, stage, turn, found["rows"], found["p"], state)
            for row, decision in self._log.of(stage).items():
                state.settle(row, decision, "gold" if decision.provenance.endswith("person") else "silver")
        return best

    def _picked(self, name: str, turn: int, state: _Pools, first_gold: int, places: _Places | None) -> dict[str, Any]:
        """Accuracies of the model trained on silver so far, and the rows of the pool that its errors point at."""
        model = self._model(name, state.silver)
        p = pair_probabilities(model, state.gold)
        measures = {
            "gold_accuracy": _accuracy(p[:first_gold]),
            **({"held_out_accuracy": _accuracy(pair_probabilities(model, state.held_out))} if state.held_out else {}),
            **state.sizes(),
        }
        rows: list[int] = [] if places is None else places.near(p)
        likely = pair_probabilities(model, [state.pool[row] for row in rows])
        found = self._measured(turn, {**measures, "picked": len(rows)}, "curation-1")
        return {"measures": {"stage": f"1.{turn}", **found}, "rows": rows, "p": likely.tolist()}

    def _labelled(self, stage: str, turn: int, rows: list[int], p: list[float], state: _Pools) -> dict[str, int]:
        """Label what was picked, the first ones by the person, and write each decision; -> counts."""
        assert self.labeller is not None  # checked in the constructor
        done, people = self._log.of(stage), set(rows[: self.config.human_budget])
        left = [(row, value) for row, value in zip(rows, p, strict=True) if row not in done]
        if left:
            self.labeller.learn(state.gold)
        with self._bar(len(rows), f"label, iteration {turn}") as bar:
            bar.advance(len(rows) - len(left))
            for human in (True, False):
                part = [item for item in left if (item[0] in people) == human]
                size = 1 if human else 4 * self.config.workers
                for start in range(0, len(part), size):
                    chunk = part[start : start + size]
                    pairs = [state.pool[row] for row, _ in chunk]
                    if human and self.person is not None:
                        judged = [self.person(pair) for pair in pairs]
                        self.ceiling.count("the person", [one.vote.failure for one in judged])
                    else:
                        judged = self.labeller(pairs, np.array([value for _, value in chunk]))
                    who = f"stage 1, iteration {turn}: {'person' if human else 'judges'}"
                    made = [
                        (row, _stage_1_decision(one, value, who))
                        for (row, value), one in zip(chunk, judged, strict=True)
                        if one.vote.failure is None
                    ]
                    self._log.add(stage, made)
                    bar.advance(len(chunk))
        return dict(Counter(decision.decision for decision in self._log.of(stage).values()))

    # Stage 2

    def _stage_2(self, state: _Pools, best: tuple[str, int]) -> CurationResult:
        name, size = best
        silver = list(state.silver)
        best_rm = self._model(name, silver[:size])
        gold_rm = self._model("gold", state.gold)
        measures = self._once(STAGE_2, self._filtered, state, best_rm, gold_rm)
        for row, decision in self._log.of(STAGE_2).items():
            turned = {"none": (), "flips": ("flip",), "all": ("flip", "drop")}[self.config.recycle]
            if decision.decision in ("flip", "drop") and (decision.decision not in turned or _unjudged(decision)):
                state.discarded.append(state.pool[row])
            elif decision.decision == "drop":
                state.silver += [_with(pair, decision) for pair in recycle([state.pool[row]])]
            else:
                state.settle(row, decision, "silver")
        state.history.append(measures)
        if self.folder is not None:
            write_curated(self.folder.path / "curated.jsonl", state.silver)
        return CurationResult(state.silver, state.gold, silver, state.discarded, best_rm, gold_rm, state.history)

    def _filtered(self, state: _Pools, best_rm: Any, gold_rm: Any) -> dict[str, Any]:
        decide = ConsistencyFilter(best_rm, gold_rm, self.labeller, self.config.band)
        done, rest = self._log.of(STAGE_2), np.flatnonzero(state.open).tolist()
        left = [row for row in rest if row not in done]
        if left and self.labeller is not None:
            self.labeller.learn(state.gold)
        with self._bar(len(rest), "filter") as bar:
            bar.advance(len(rest) - len(left))
            for start in range(0, len(left), CHUNK):
                rows = left[start : start + CHUNK]
                self._log.add(STAGE_2, list(zip(rows, decide([state.pool[row] for row in rows]), strict=True)))
                bar.advance(len(rows))
        measures: dict[str, Any] = dict(Counter(d.decision for d in self._log.of(STAGE_2).values()))
        for name, model in (("best", best_rm), ("gold", gold_rm)) if state.held_out else ():
            measures[f"held_out_accuracy_{name}"] = _accuracy(pair_probabilities(model, state.held_out))
        return {"stage": "2", **self._measured(0, {**measures, **state.sizes()}, STAGE_2)}

    # What survives a kill

    def _once(self, name: str, compute: Callable[..., Any], *given: Any) -> Any:
        """The result of a step; of one that the folder marks as done, what it left behind."""
        if self.folder is None:
            return compute(*given)
        if not self.folder.stage_done(name):
            self.folder.mark_done(name, compute(*given))
        return self.folder.stage_result(name)

    def _measured(self, step: int, measures: dict[str, Any], stage: str) -> dict[str, Any]:
        if self.folder is not None:
            self.folder.log(step, measures, stage=stage)
        return measures

    def _model(self, name: str, pairs: Sequence[Pair]) -> Any:
        """The model of that name, trained on ``pairs``, from memory or from the folder where it is kept."""
        if name not in self._models:
            path = self._path(f"models/{name}")
            if path is None or self._load is None:
                self._models[name] = self.train(pairs)
            else:
                if not path.exists():
                    partial = path.with_name(f".tmp-{name}-{os.getpid()}")
                    shutil.rmtree(partial, ignore_errors=True)
                    partial.parent.mkdir(parents=True, exist_ok=True)
                    self.train(pairs).save_pretrained(partial)
                    partial.rename(path)
                self._models[name] = self._load(path)
        return self._models[name]

    def _path(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder.path / name


@dataclass
class _Pools:
    """The pools at one moment; ``open`` marks what is still undecided."""

    pool: list[Pair]
    gold: list[Pair]
    silver: list[Pair]
    open: NDArray[np.bool_]
    held_out: list[Pair]
    discarded: list[Pair] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)

    def sizes(self) -> dict[str, int]:
        return {
            "gold": len(self.gold), "silver": len(self.silver), "unverified": int(self.open.sum()),
            "discarded": len(self.discarded),
        }  # fmt: skip

    def settle(self, row: int, decision: Decision, into: Literal["gold", "silver"]) -> None:
        self.open[row] = False
        made = decision.apply(self.pool[row])
        if made is None:
            self.discarded.append(self.pool[row])
        else:
            (self.gold if into == "gold" else self.silver).append(_with(made, decision))


class _Places:
    """Rows of the pool near gold pairs; the pool is embedded when it is first asked for."""

    def __init__(self, loop: CurationLoop, state: _Pools) -> None:
        self.loop, self.state = loop, state
        limit, size = loop.config.pool_limit or len(state.pool), len(state.pool)
        drawn = np.random.default_rng(loop.config.seed).permutation(size)[:limit]
        self.rows = np.sort(drawn)
        self._retriever: PairRetriever | None = None

    def near(self, p: NDArray[np.float64]) -> list[int]:
        """What the errors p on gold call for: objective and uncontroversial pairs first, else in the order of gold."""
        loop, pool = self.loop, [self.state.pool[row] for row in self.rows]
        if not pool:
            return []
        if self._retriever is None:
            with loop._bar(len(pool), "describe and embed the pool") as bar:
                known = loop.book(pool, bar.advance)
                self._retriever = PairRetriever(loop.embed, loop.config.metric).fit(pool, known)
        k = [adaptive_k(float(value), loop.config.k_max) for value in p]
        gold = self.state.gold
        found = self._retriever.nearest(gold, k, loop.book(gold), among=self.state.open[self.rows])
        places = list(dict.fromkeys(place for near in found for place in near))
        known = loop.book([pool[place] for place in places])
        first = [0 if attributes is None else attributes.priority for attributes in known]
        return [int(self.rows[places[i]]) for i in np.argsort(first, kind="stable")]


def _stage_1_decision(judged: Judged, p: float, who: str) -> Decision:
    winner = judged.vote.winner
    verb: Literal["keep", "relabel", "drop"] = "keep" if winner == "a" else "relabel" if winner == "b" else "drop"
    return Decision(verb, who, p, None, judged.vote.to_json(), judged.attributes)


def _unjudged(decision: Decision) -> bool:
    """Whether judges were asked and all failed: a drop then says nothing about the label, and a flip is unconfirmed."""
    votes = decision.judge_votes
    return votes is not None and len(votes["ballots"]) > 0 and votes["failed"] == len(votes["ballots"])


def _with(pair: Pair, decision: Decision) -> Pair:
    return replace(pair, row={**pair.row, **decision.to_json()})


def _accuracy(p: NDArray[np.float64]) -> float:
    return float(np.mean((p > 0.5) + 0.5 * (p == 0.5)))


def _check_apart(held_out: Sequence[Pair], others: Sequence[Pair]) -> None:
    """Refuse held-out pairs that share a prompt with another set (or, without prompts, the whole pair)."""

    def key(pair: Pair) -> str:
        return repr(pair.prompt) if pair.prompt else pair_key(pair)

    known = {key(pair) for pair in others}
    shared = [pair for pair in held_out if key(pair) in known]
    if shared:
        where = f" (the first: {shared[0].where})" if shared[0].where else ""
        told = f"{len(shared)} of {len(held_out)} held-out pairs{where}"
        raise GuerdonError(
            f"{told} share a prompt with gold, silver or unverified pairs; nothing could be told by them"
        )
