"""RealGen: photorealistic text-to-image by detector-guided rewards (arXiv 2512.00473).

    1. train detectors on photographs against the base's images; keep one family out as the held-out judge
    2. stage 1: the prompt rewriter climbs detectors + alignment, the generator frozen      (GRPO, TRL)
    3. stage 2: the generator's LoRA climbs them on the rewritten prompts                   (flow GRPO)
    4. RealBench: base, stage 1 and stages 1+2 on prompts, seeds and photographs never trained on

Stage 1 is not released; it follows the card's construction (UNVERIFIED): alignment with the USER's prompt, common
random numbers in a group, a format reward. What RealGen V2 adds - detectors that learn from the generator - is a
safeguard among others, see ``Safeguards``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guerdon.core.errors import GuerdonError
from guerdon.core.images import to_pil
from guerdon.core.progress import Progress, progress
from guerdon.core.runs import RunFolder
from guerdon.metrics.text_diversity import commonest_tail_share, distinct_n
from guerdon.models.detectors.small import load_detector, make_detector, p_real, save_detector
from guerdon.policies.rewriter import PromptRewriter
from guerdon.recipes._realgen_config import PRESETS, RealGenConfig
from guerdon.recipes._realgen_game import Game, as_reward
from guerdon.recipes._realgen_grade import grade
from guerdon.recipes._realgen_world import Captioned, Score, World, load_world
from guerdon.rewards.bank import RewardBank
from guerdon.trainers.detector import train_detector
from guerdon.trainers.diffusion import DiffusionTrainer
from guerdon.trainers.rewriter import PromptRewriterEnv, train_rewriter
from guerdon.trainers.watch import HackingWatch

CONFIG = RealGenConfig
__all__ = ["CONFIG", "PRESETS", "run"]
TITLE = "RealGen: Photorealistic Text-to-Image Generation via Detector-Guided Rewards"
WATCH_SEED, TEST_SEED = 50_000, 10_000


def run(config: RealGenConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Do the whole job in ``folder``; returns the summary. A resumed run skips finished stages."""
    timings: list[dict[str, Any]] = []

    def stage(name: str, work: Callable[[], Any]) -> Any:
        if folder.stage_done(name):
            done = folder.stage_result(name)
        else:
            started = time.monotonic()
            result = work()
            done = {"seconds": round(time.monotonic() - started, 1), "result": result}
            folder.mark_done(name, done)
        timings.append({"name": name, "seconds": done["seconds"]})
        return done["result"]

    world = load_world(config, folder)
    judges = Judges(config, world, folder)
    stage("judges", judges.train)
    judges.load()
    stage("rewriter", lambda: climb_by_rewriting(config, world, judges, folder, resume))
    rewriter = PromptRewriter.load(_source(config, folder) / "rewriter" / "final")
    rewrites = rewriter.rewrite(world.train.prompts, seed=config.seed)
    stopped = stage("generator", lambda: climb_by_sampling(config, world, judges, rewriter, folder))
    adapter, _ = folder.load_checkpoint(_chosen(folder))
    test = rewriter.rewrite(world.test[: config.evaluation.images].prompts, seed=config.seed)
    arms = draw_arms(config, world, [rewrite.text for rewrite in test], adapter)
    summary = stage("realbench", lambda: grade(config, world, judges.roles(), judges.scores(), arms, folder))
    texts = [rewrite.text for rewrite in rewrites]
    summary |= {
        "system": "realgen", "title": TITLE, "seed": config.seed, "stages": timings, "stopped": stopped,
        "seconds": round(sum(row["seconds"] for row in timings), 1),
        "rewrites": [
            {"prompt": one.prompt, "rewrite": one.text, "valid": one.valid}
            for one in test[: 2 * config.evaluation.shown]
        ],
        "rewriter": {
            "distinct_2": distinct_n(texts, 2), "commonest_tail_share": commonest_tail_share(texts),
            "malformed_share": sum(not rewrite.valid for rewrite in rewrites) / len(rewrites),
        },
    }  # fmt: skip
    _save_samples(config, world, arms, [rewrite.text for rewrite in test], folder)
    folder.write_summary(summary)
    return summary


def _chosen(folder: RunFolder) -> Path:
    path = folder.latest_checkpoint(stage="chosen")
    if path is None:
        raise GuerdonError(f"{folder.path}: stage 2 left no chosen adapter; delete stages/generator.json and resume")
    return path


def _source(config: RealGenConfig, folder: RunFolder) -> Path:
    return Path(config.reuse) if config.reuse else folder.path


class Judges:
    """The detectors of a run: training ones are the reward, the validation one chooses, the held-out one only looks."""

    def __init__(self, config: RealGenConfig, world: World, folder: RunFolder) -> None:
        self.config, self.world, self.folder = config, world, folder
        self.models: dict[str, torch.nn.Module] = {}

    def roles(self) -> dict[str, str]:
        names = self.config.detectors
        roles = dict.fromkeys(names.training, "training") | {names.held_out: "held-out"}
        return roles | ({names.validation: "validation"} if names.validation else {})

    def train(self) -> dict[str, Any]:
        """Train every detector on photographs against the base's own images of their prompts."""
        if self.world.published:
            return {}
        config, reports = self.config, {}
        fakes = _base_images(config, self.world)
        for number, (name, role) in enumerate(self.roles().items()):
            reused = Path(config.reuse or "") / "detectors" / name
            if role != "training" and config.reuse:
                save_detector(load_detector(reused), self.folder.path / "detectors" / name)
                continue
            # The judges are always trained robustly: the safeguards are about what the generator climbs.
            robust = role != "training"
            model = make_detector(name, seed=config.seed + number)
            with progress(config.detectors.steps, f"{role} detector: {name}") as bar:
                report = train_detector(
                    model, self.world.train.images, fakes, steps=config.detectors.steps,
                    corrupt_real_as_fake=0.33 if robust or config.safeguards.corrupted_negatives else 0.0,
                    augment_both=robust or config.safeguards.augmentation, lr=config.detectors.learning_rate,
                    generator=torch.Generator().manual_seed(config.seed * 100 + number),
                    progress=partial(_advance, bar),
                )  # fmt: skip
            save_detector(model, self.folder.path / "detectors" / name)
            reports[name] = report.as_dict()
        return reports

    def load(self) -> None:
        if not self.world.published:
            self.models = {name: load_detector(self.folder.path / "detectors" / name) for name in self.roles()}

    def scores(self) -> dict[str, Score]:
        """name -> (images -> P(real) [N]) of every detector as it was trained, before any game."""
        if self.world.published:
            return self.world.published
        return {name: partial(p_real, model) for name, model in self.models.items()}


def _advance(bar: Progress[int], step: int, figures: dict[str, float]) -> None:
    bar.advance(loss=figures["loss"], accuracy=figures["accuracy"])


def _base_images(config: RealGenConfig, world: World) -> Tensor:
    prompts, batch = world.train.prompts, config.generator.sample_batch
    images = []
    with progress(len(prompts), "base: images for the detectors") as bar:
        for start in range(0, len(prompts), batch):
            part = prompts[start : start + batch]
            seeds = [config.seed * 10_000_000 + start + index for index in range(len(part))]
            images.append(world.draw(part, seeds, steps=config.evaluation.steps, batch_size=batch))
            bar.advance(len(part))
    return torch.cat(images)


def climb_by_rewriting(
    config: RealGenConfig, world: World, judges: Judges, folder: RunFolder, resume: bool
) -> dict[str, Any]:
    """Stage 1. The judges that are no reward are scored too, with weight 0, for the hacking watch."""
    if config.reuse:
        return {}
    scores, roles = judges.scores(), judges.roles()
    terms = {name: (as_reward(name, score), float(roles[name] == "training")) for name, score in scores.items()}
    bank = RewardBank({**terms, "alignment": (world.alignment, config.alignment_weight)})
    env = PromptRewriterEnv(
        lambda prompts, seeds: world.draw(
            prompts, seeds, steps=config.generator.num_steps, batch_size=config.generator.sample_batch
        ),
        bank, images_per_rewrite=config.images_per_rewrite, seed=config.seed,
    )  # fmt: skip
    settings = config.rewriter.model_copy(update={"seed": config.seed})
    keys = {f"rewriter/{name}": watch_key(name, roles) for name in bank.rewards}
    result = train_rewriter(world.rewriter, env, world.train.prompts, settings, folder.path / "rewriter", resume=resume)
    folder.rollback(0, stage="rewriter")
    for row in result.metrics:
        found = {new: row[old] for old, new in keys.items() if old in row}
        folder.log(row["step"], found | {"kl": row.get("kl")}, stage="rewriter")
    return {"steps": len(result.metrics)}


def watch_key(name: str, roles: dict[str, str]) -> str:
    """The name under which the report looks for a score."""
    role = roles.get(name, "")
    return f"judge/{name}/{role}" if role in ("validation", "held-out") else f"reward/{name}"


def climb_by_sampling(
    config: RealGenConfig, world: World, judges: Judges, rewriter: PromptRewriter, folder: RunFolder
) -> dict[str, Any]:
    """Stage 2, watched; leaves the chosen adapter in ``checkpoints/chosen`` and says which step it is."""
    train = world.train
    rewrites = rewriter.rewrite(train.prompts, seed=config.seed)
    rows = [{"prompt": r.text, "user_prompt": r.prompt} for r in rewrites]
    settings = config.generator.model_copy(update={"seed": config.seed})
    game = Game(config, world, judges.models, judges.scores(), judges.roles(), train.images, watch=None)
    trainer = DiffusionTrainer(world.policy, game, rows, settings, folder, callbacks=[game], stage="generator")
    held = world.test[config.evaluation.images :][: config.evaluation.watch_images]
    texts = [rewrite.text for rewrite in rewriter.rewrite(held.prompts, seed=config.seed + 1)]
    game.watch = _watch(config, world, judges, trainer, held, texts)
    with progress(settings.steps, "stage 2: generator") as bar:
        game.bar = bar
        game.begin()
        trainer.train(resume=True)
    best = trainer.restore_best() if config.safeguards.early_stopping else trainer.step
    if not config.safeguards.early_stopping:
        world.policy.load_lora_state(trainer.lora_state())
    folder.save_checkpoint(best, world.policy.lora_state(), stage="chosen")
    reason = "no better validation score" if trainer.stopped else "all steps done"
    return {"step": trainer.step, "reason": reason, "chosen_step": best}


def _watch(
    config: RealGenConfig, world: World, judges: Judges, trainer: DiffusionTrainer, held: Captioned, texts: list[str]
) -> HackingWatch:
    seeds = [WATCH_SEED + index for index in range(len(texts))]

    def draw() -> Tensor:
        images = trainer.evaluate(texts, seeds)
        return (images * 255).round() / 255

    roles = judges.roles()
    outside = {name: score for name, score in judges.scores().items() if roles[name] != "training"}
    return HackingWatch(
        draw, held.groups, outside, roles, alignment=lambda images: world.align(held.prompts, images),
        patience=config.evaluation.patience if config.safeguards.early_stopping else None,
    )  # fmt: skip


def draw_arms(
    config: RealGenConfig, world: World, rewrites: list[str], adapter: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Base, stage 1 and stages 1+2 on the test prompts, image i of each from the same seed."""
    users = world.test[: config.evaluation.images].prompts
    seeds = [TEST_SEED + index for index in range(len(users))]
    how = {"steps": config.evaluation.steps, "batch_size": config.generator.sample_batch}
    if not world.policy.trainable_parameters():
        world.policy.add_lora(config.generator.lora_rank, config.generator.lora_alpha, seed=config.seed)
    world.policy.load_lora_state(adapter)
    with progress(3, "RealBench: images") as bar:
        with world.policy.reference():
            arms = {"base": world.draw(users, seeds, **how)}
            bar.advance()
            arms["stage1"] = world.draw(rewrites, seeds, **how)
            bar.advance()
        arms["stages12"] = world.draw(rewrites, seeds, **how)
        bar.advance()
    return arms


def _save_samples(
    config: RealGenConfig, world: World, arms: dict[str, Tensor], rewrites: list[str], folder: RunFolder
) -> None:
    """The first images of each arm that show different subjects, and the photographs of the same prompts."""
    test = world.test[: config.evaluation.images]
    firsts = [test.groups.index(group) for group in dict.fromkeys(test.groups)][: config.evaluation.shown]
    index = [
        {"index": place, "prompt": test.prompts[row], "rewrite": rewrites[row], "seed": TEST_SEED + row}
        for place, row in enumerate(firsts)
    ]
    for arm, images in {**arms, "reference": test.images}.items():
        (folder.samples / arm).mkdir(parents=True, exist_ok=True)
        for place, picture in enumerate(to_pil(images[firsts])):
            picture.save(folder.samples / arm / f"{place:03d}.png")
    (folder.samples / "index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
