"""What recipes that train a language model on rewards share: data, the run with its watch, and the grading."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from guerdon.core.catalogue import load_reward
from guerdon.core.config import Config
from guerdon.core.data import find_source, read_rows
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import as_messages
from guerdon.core.processes import first
from guerdon.core.runs import RunFolder
from guerdon.curation.math_problems import load_math
from guerdon.metrics.intervals import Interval, bootstrap_mean, paired_difference
from guerdon.metrics.majority_vote import majority_vote
from guerdon.models.causal import load_causal
from guerdon.policies.reasoner import LONGEST, embedded_reasoner, problem_rows, split_problems
from guerdon.rewards.text.final_answer import rule_verifier, same_answer
from guerdon.trainers.language import LanguageResult, LanguageTrainingConfig, train_language
from guerdon.trainers.language_watch import LanguageWatch, Sampled, meters, sample, stated_text

__all__ = ["CONFIG", "PRESETS", "LanguageConfig", "Problems", "World", "preset_for", "run_language"]

Row = dict[str, Any]
Rewards = Mapping[str, tuple[Any, float]]
BEFORE, AFTER, MODEL = "before", "after", "model"


class LanguageConfig(Config):
    """A run of group-relative policy optimisation on a language model.

    data: problems in guerdon's, GSM8K's or MATH's columns (`guerdon.curation.math_problems`), or None: embedded word
    problems. layout: "rows" takes rows with a prompt and whatever other columns the rewards and the judge read.
    instruction: added to each problem. model: a causal language model's folder or hub id; None: the embedded
    reasoner. judge: the reward that only watches and grades. watched, tested: problems set aside for the watch and for
    the closing table, which share no problem with training or each other. samples: completions a tested problem.
    """

    preset: Literal["tiny", "published"] = "published"
    seed: int = Field(11, ge=0)
    data: str | None = None
    layout: Literal["math", "rows"] = "math"
    instruction: str = ""
    skip_bad_rows: bool = False
    limit: int | None = Field(None, ge=8)
    model: str | None = None
    judge: str = "rule_verifier"
    problems: int = Field(1000, ge=2)
    watched: int = Field(64, ge=2)
    tested: int = Field(200, ge=2)
    samples: int = Field(4, ge=1)
    training: LanguageTrainingConfig = Field(default_factory=LanguageTrainingConfig)


CONFIG = LanguageConfig
PRESETS: dict[str, dict[str, Any]] = {
    "published": {"training": {"max_completion_length": 1024}},
    "tiny": {
        "training": {
            "steps": 80, "prompts_per_step": 16, "num_generations": 8, "learning_rate": 1e-4, "max_grad_norm": 1.0,
            "max_completion_length": LONGEST, "save_every": 20, "watch_every": 10,
        },
    },
}  # fmt: skip


def preset_for(model: str | None) -> Literal["tiny", "published"]:
    """The preset of who names none: TRL's settings for a model of one's own, else those of the embedded reasoner."""
    return "tiny" if model is None else "published"


@dataclass(frozen=True)
class Problems:
    """Rows to train on, to watch and to grade by; ``other`` are tested problems in a form that training never shows."""

    train: list[Row]
    watched: list[Row]
    tested: list[Row]
    other: list[Row]


@dataclass(frozen=True)
class World:
    """What a system runs on where it is given no data, no model: problems of its own kind and a policy that meets them.

    problems: of a configuration. policy: (configuration, folder) -> (model, tokenizer), a policy with room to improve.
    It keeps what it makes in the folder, since a run that goes on asks again.
    said:     the answer that a completion gives, for votes; None where it gives none.
    kind:     its class, where there are few (`LanguageWatch`).
    """

    problems: Callable[[Any], Problems]
    policy: Callable[[Any, Path], tuple[Any, Any]]
    said: Callable[[str], str | None] = stated_text
    kind: Callable[[str], str | None] | None = None


@dataclass(frozen=True)
class Graded:
    """right, sampled [P]: the judge on the greedy completion, and its mean over samples; voted, any: the majority's
    answer, and any sample, right [P]. nan where the judge had no verdict."""

    right: NDArray[np.float64]
    sampled: NDArray[np.float64]
    voted: NDArray[np.float64]
    any: NDArray[np.float64]
    meters: Mapping[str, float]


def run_language(
    slug: str,
    title: str,
    config: LanguageConfig,
    folder: RunFolder,
    resume: bool,
    rewards: Callable[[Any, Any], Rewards],
    *,
    rows: Callable[[Problems], Problems] | None = None,
    views: int = 1,
    world: World | None = None,
    train: Callable[..., LanguageResult] = train_language,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Train on ``rewards(model, tokenizer)`` in ``folder``, grade before and after; returns the summary.

    rows: changes the problems first (columns of a reward's own). views: of `train_language`. world: in place of the
    embedded word problems and reasoner. train: takes what `train_language` takes.
    """
    started = time.monotonic()
    world = world or REASONER
    problems = problems_of(config, folder, world)
    problems = rows(problems) if rows is not None else problems
    model, tokenizer = _policy(config, folder, world)
    given = rewards(model, tokenizer)
    judge = load_reward(config.judge) if config.judge != "rule_verifier" else rule_verifier
    watch = LanguageWatch(
        problems.watched, judge, given, folder.path / "looks", samples=config.training.watch_samples, views=views,
        temperature=config.training.temperature, max_new_tokens=config.training.max_completion_length, seed=config.seed,
        template=config.training.trl.get("chat_template_kwargs"), said=world.said, kind=world.kind,
    )  # fmt: skip
    forms = {"tested problems": problems.tested, **({"told otherwise": problems.other} if problems.other else {})}
    grades = {BEFORE: _grades(model, tokenizer, forms, watch, config, folder, BEFORE)}
    graded_at = time.monotonic()
    result = train(
        model,
        tokenizer,
        problems.train,
        given,
        config.training,
        folder,
        watch=watch,
        views=views,
        seed=config.seed,
        resume=resume,
    )
    trained_at = time.monotonic()
    grades[AFTER] = _grades(result.model, tokenizer, forms, watch, config, folder, AFTER)
    if first():
        result.model.save_pretrained(folder.path / MODEL)
        tokenizer.save_pretrained(folder.path / MODEL)
    alarm = watch.ring()
    summary = {
        "system": slug, "title": title, "seed": config.seed, "model": str(folder.path / MODEL),
        "rows": {"training": len(problems.train), "watched": len(problems.watched), "tested": len(problems.tested)},
        "rewards": {name: weight for name, (_, weight) in given.items()},
        "kept_step": result.kept_step, "last_step": result.last_step,
        "tables": [_accuracy(grades), _texts(grades), *([_examples(folder)] if first() else [])],
        "verdicts": _verdicts(grades, result.reason or (alarm is not None and "an alarm rang")),
        "notes": list(notes),
        "stages": [{"name": "grading before", "seconds": round(graded_at - started, 1)},
                   {"name": "policy", "seconds": round(trained_at - graded_at, 1)},
                   {"name": "grading after", "seconds": round(time.monotonic() - trained_at, 1)}],
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
    if result.reason:
        summary["stopped"] = {
            "stage": "policy", "step": result.last_step, "chosen_step": result.kept_step, "reason": result.reason,
        }  # fmt: skip
    folder.write_summary(summary)
    return summary


def _word_problems(config: LanguageConfig) -> Problems:
    held = split_problems(config.watched + config.tested, config.seed, "held_out")
    first, last = held[: config.watched], held[config.watched :]
    return Problems(
        problem_rows(split_problems(config.problems, config.seed)), problem_rows(first), problem_rows(last),
        problem_rows(last, form="held_out"),
    )  # fmt: skip


REASONER = World(_word_problems, lambda config, folder: embedded_reasoner())


def problems_of(config: LanguageConfig, folder: RunFolder, world: World = REASONER) -> Problems:
    """Those of ``world``, or the person's own, split by problem."""
    if config.data is None:
        if config.instruction:
            raise GuerdonError("instruction goes with data: the embedded policy knows its own problems as they are")
        return world.problems(config)
    reading: dict[str, Any] = dict(skip_bad_rows=config.skip_bad_rows, limit=config.limit, out=folder.path)
    if config.layout == "rows":
        if config.instruction:
            raise GuerdonError("instruction goes with layout=math; rows hold the whole prompt")
        rows = read_rows(find_source(config.data), required=("prompt",), every_column=True, **reading)
        found = [{**row, "prompt": [dict(one) for one in as_messages(row["prompt"], "user")]} for _, row in rows]
    else:
        # A judge that reads more than numbers keeps the problems that need it.
        reading["keep_unverifiable"] = config.judge != "rule_verifier"
        found = load_math(config.data, instruction=config.instruction, **reading).rows
    by_prompt: dict[str, list[Row]] = {}
    for row in found:
        by_prompt.setdefault(json.dumps(row["prompt"]), []).append(row)
    if len(by_prompt) < config.watched + config.tested + 1:
        raise GuerdonError(
            f"{config.data}: {len(by_prompt)} different problems are too few to set {config.watched} (watched) and "
            f"{config.tested} (tested) aside and train on the rest; with --set watched=N --set tested=N it is fewer"
        )
    order = list(by_prompt)
    np.random.default_rng(config.seed).shuffle(order)
    ends = config.watched, config.watched + config.tested
    watched, tested = ([by_prompt[name][0] for name in part] for part in (order[: ends[0]], order[ends[0] : ends[1]]))
    return Problems([row for name in order[ends[1] :] for row in by_prompt[name]], watched, tested, [])


def _policy(config: LanguageConfig, folder: RunFolder, world: World) -> tuple[Any, Any]:
    if config.model is None:
        return world.policy(config, folder.path)
    model, tokenizer = load_causal(config.model)
    if not getattr(tokenizer, "chat_template", None):
        raise GuerdonError(f"{config.model!r} has no chat template, which problems are put through")
    return model, tokenizer


def _grades(
    model: Any, tokenizer: Any, forms: Mapping[str, list[Row]], watch: LanguageWatch, config: LanguageConfig,
    folder: RunFolder, name: str,
) -> dict[str, Graded]:  # fmt: skip
    """A `Graded` for each form of the problems; a run that goes on does not grade the beginning twice."""
    if folder.stage_done(f"grading-{name}"):
        kept = folder.stage_result(f"grading-{name}")
        return {form: _again(part) for form, part in kept.items()}
    found = {form: _graded(model, tokenizer, rows, watch, config) for form, rows in forms.items()}
    if first():
        _keep(found, forms, folder.samples / f"{name}.jsonl")
    plain = {
        form: [*(part.tolist() for part in (one.right, one.sampled, one.voted, one.any)), dict(one.meters)]
        for form, (one, _) in found.items()
    }
    folder.mark_done(f"grading-{name}", plain)
    return {form: one for form, (one, _) in found.items()}


def _again(kept: Sequence[Any]) -> Graded:
    right, drawn, voted, best = (np.array(part, np.float64) for part in kept[:-1])
    return Graded(right, drawn, voted, best, kept[-1])


def _graded(
    model: Any, tokenizer: Any, rows: list[Row], watch: LanguageWatch, config: LanguageConfig
) -> tuple[Graded, Sampled]:
    options: dict[str, Any] = dict(
        max_new_tokens=config.training.max_completion_length, seed=config.seed + 1, template=watch.template
    )
    prompts = [row["prompt"] for row in rows]
    greedy = sample(model, tokenizer, prompts, temperature=1e-4, **options)
    several = sample(
        model, tokenizer, prompts, count=config.samples, temperature=config.training.temperature, **options
    )
    right = _judged(watch.judge, rows, greedy)
    drawn = _judged(watch.judge, rows, several).reshape(len(rows), config.samples)
    voted = []
    for texts, scores in zip(several.grouped(), drawn, strict=True):
        answers = [watch.said(text) for text in texts]
        label = majority_vote(answers, equal=same_answer).label
        place = next(
            (n for n, one in enumerate(answers) if one is not None and label and same_answer(one, label)), None
        )
        voted.append(scores[place] if place is not None else np.nan)
    known: list[bool] = [bool(np.isfinite(row).any()) for row in drawn]
    mean = np.array([row[np.isfinite(row)].mean() if some else np.nan for row, some in zip(drawn, known)])
    best = np.array([np.nanmax(row) if some else np.nan for row, some in zip(drawn, known)])
    return Graded(right, mean, np.array(voted, float), best, meters(several, watch.said, watch.kind)), greedy


def _judged(judge: Any, rows: list[Row], found: Sampled) -> NDArray[np.float64]:
    from guerdon.core.scorer import Scorer

    every = [row for row in rows for _ in range(found.count)]
    said = [[{"role": "assistant", "content": text}] for text in found.texts]
    columns = {name: [row[name] for row in every] for name in rows[0] if name != "prompt"}
    scores = Scorer(judge, group_size=found.count, max_failure_rate=1.0, on_failure="drop_sample").score(
        [row["prompt"] for row in every], said, **columns
    )
    return np.where(scores.valid, scores.values, np.nan)


def _keep(found: Mapping[str, tuple[Graded, Sampled]], forms: Mapping[str, list[Row]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for form, (grade, greedy) in found.items():
            for row, text, right in zip(forms[form], greedy.texts, grade.right, strict=True):
                shown = {
                    "form": form, "prompt": row["prompt"][-1]["content"], "solution": row.get("solution"),
                    "completion": text, "right": None if np.isnan(right) else float(right),
                }  # fmt: skip
                file.write(json.dumps(shown, ensure_ascii=False) + "\n")


def _told(one: Interval) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"


def _accuracy(grades: Mapping[str, Mapping[str, Graded]]) -> dict[str, Any]:
    rows = []
    for form in grades[BEFORE]:
        for name, key in (
            ("sampled", "sampled"),
            ("greedy", "right"),
            ("majority vote", "voted"),
            ("any sample", "any"),
        ):
            before, after = (getattr(grades[when][form], key) for when in (BEFORE, AFTER))
            gain = paired_difference(np.nan_to_num(after), np.nan_to_num(before))
            cells = [_told(bootstrap_mean(np.nan_to_num(one))) for one in (before, after)]
            rows.append([form, name, *cells, _told(gain)])
    return {
        "title": "The judge on problems that took no part",
        "note": "Means over problems with 95% bootstrap intervals over problems, and the paired difference. A "
        "completion without a verdict counts as not right here. Majority and any are over a problem's samples.",
        "columns": ["problems", "completions", "before", "after", "after less before"],
        "rows": rows,
    }


def _texts(grades: Mapping[str, Mapping[str, Graded]]) -> dict[str, Any]:
    form = next(iter(grades[BEFORE]))
    before, after = (grades[when][form].meters for when in (BEFORE, AFTER))
    return {
        "title": "What the sampled completions look like",
        "note": "Length in tokens; shares of completions that end and that state an answer; share of 8-word sequences "
        "that stood before; mean share of a problem's completions that state its commonest answer.",
        "columns": ["", "before", "after"],
        "rows": [
            [name.replace("_", " "), *(f"{one.get(name, 0.0):.3f}" for one in (before, after))]
            for name in dict.fromkeys([*before, *after])
        ],
    }


def _examples(folder: RunFolder) -> dict[str, Any]:
    def read(name: str) -> list[Row]:
        path = folder.samples / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    before, after = read(BEFORE), read(AFTER)
    changed = [place for place, (one, two) in enumerate(zip(before, after)) if one["right"] != two["right"]]
    rows = [
        [
            before[place]["prompt"],
            str(before[place]["solution"]),
            before[place]["completion"],
            after[place]["completion"],
        ]
        for place in (changed or range(len(before)))[:6]
    ]
    title = "Greedy completions whose verdict changed" if changed else "Greedy completions"
    return {"title": title, "columns": ["problem", "solution", "before", "after"], "rows": rows}


def _verdicts(grades: Mapping[str, Mapping[str, Graded]], alarm: str | bool) -> list[dict[str, Any]]:
    form = next(iter(grades[BEFORE]))
    before, after = grades[BEFORE][form], grades[AFTER][form]
    gain = paired_difference(np.nan_to_num(after.sampled), np.nan_to_num(before.sampled))
    shown = bool(gain.low > 0) if gain.low > 0 or gain.high < 0 else None
    greedy = paired_difference(np.nan_to_num(after.right), np.nan_to_num(before.right))
    # A fall within its interval is neither shown nor excluded.
    kept = True if greedy.value >= 0 else None if greedy.high >= 0 else False
    return [
        {"name": "the judge, sampled, after less before", "target": "above 0", "value": gain.value, "holds": shown},
        {"name": "the judge, greedy, after less before", "target": "no fall", "value": greedy.value,
         "holds": kept},
        {"name": "the judge did not fall while the rewards rose", "target": "no alarm",
         "value": str(alarm) if alarm else "none", "holds": not alarm},
    ]  # fmt: skip
