"""What there is to use, by name: systems, rewards and benchmarks, ours and those that other packages announce."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from guerdon.core.errors import GuerdonError, nearest, unknown
from guerdon.core.systems import GENERAL, SYSTEMS, System

_REWARDS: dict[str, str] = {
    "answer_format": "guerdon.rewards.text.answer_tags:answer_format",
    "answer_present": "guerdon.rewards.text.answer_tags:answer_present",
    "calibrated": "guerdon.rewards.text.reasoning_patterns:CalibratedReward",
    "clip_score": "guerdon.rewards.image.clip:CLIPScore",
    "code_execution": "guerdon.rewards.text.code_execution:CodeExecutionReward",
    "confidence_masked": "guerdon.rewards.confidence:load",
    "cross_view": "guerdon.rewards.text.agreement:CrossViewReward",
    "detectability": "guerdon.rewards.text.reward_detector:load",
    "detector": "guerdon.rewards.image.from_files:detector",
    "effort": "guerdon.rewards.image.from_files:effort",
    "embedding_similarity": "guerdon.rewards.text.similarity:EmbeddingSimilarityReward",
    "exact_action": "guerdon.rewards.text.hierarchical:exact_action",
    "follow_up_likelihood": "guerdon.rewards.text.follow_up:load",
    "hybrid_multi_aspect": "guerdon.rewards.text.group_length:hybrid_multi_aspect",
    "lightweight_translation": "guerdon.rewards.text.translation:LightweightTranslationReward",
    "long_clip": "guerdon.rewards.image.clip:LongCLIPScore",
    "majority_vote": "guerdon.rewards.text.agreement:MajorityVoteReward",
    "max_similarity": "guerdon.rewards.image.from_files:max_similarity",
    "noisy": "guerdon.rewards.noise:NoisyReward",
    "numeric_verifier": "guerdon.rewards.text.final_answer:NumericVerifier",
    "omniaid": "guerdon.rewards.image.from_files:omniaid",
    "pick_score": "guerdon.rewards.image.clip:PickScore",
    "process_reward": "guerdon.rewards.process:load",
    "reasoning_patterns": "guerdon.rewards.text.reasoning_patterns:PhrasePatternReward",
    "reference_match": "guerdon.rewards.text.similarity:ReferenceMatch",
    "reference_verifier": "guerdon.rewards.text.reference_verifier:load",
    "regex_verifier": "guerdon.rewards.text.final_answer:regex_verifier",
    "regularized_relevance": "guerdon.rewards.text.relevance:regularized_relevance",
    "resume_decision": "guerdon.rewards.text.resume:resume_decision",
    "resume_repaired": "guerdon.rewards.text.resume:resume_repaired",
    "resume_v1": "guerdon.rewards.text.resume_parameters:resume_v1",
    "resume_v2": "guerdon.rewards.text.resume:resume_v2",
    "reward_model": "guerdon.rewards.model:load",
    "rule_verifier": "guerdon.rewards.text.final_answer:rule_verifier",
    "segment_reward": "guerdon.rewards.text.segment:load",
    "self_aligned": "guerdon.rewards.text.self_aligned:SelfAlignedReward",
    "shop_r1": "guerdon.rewards.text.hierarchical:shop_r1",
    "shop_r1_with_certainty": "guerdon.rewards.text.rationale_certainty:shop_r1_with_certainty",
    "symbolic_verifier": "guerdon.rewards.text.symbolic:SymbolicVerifier",
    "target_language": "guerdon.rewards.text.translation:LanguageGate",
    "think_format": "guerdon.rewards.text.translation:ThinkFormatGate",
    "token_contrast": "guerdon.rewards.image.token_contrast:TokenContrastScorer",
    "visual_quality": "guerdon.rewards.image.visual_quality:VisualQuality",
}
_BENCHMARKS: dict[str, str] = {
    "lvis": "guerdon.benchmarks.lvis:lvis",
    "mrmbench": "guerdon.benchmarks.mrmbench:MRMBench",
    "overoptimisation": "guerdon.comparisons.overoptimisation:overoptimisation",
    "pairs": "guerdon.benchmarks.rewardbench_1:graded_pairs",
    "realbench": "guerdon.benchmarks.realbench:realbench",
    "remodetect": "guerdon.benchmarks.remodetect:detect",
    "rewardbench-1": "guerdon.benchmarks.rewardbench_1:rewardbench_1",
    "rewardbench-2": "guerdon.benchmarks.rewardbench_2:rewardbench_2",
    "rewardmath": "guerdon.benchmarks.rewardmath:rewardmath",
}


def systems() -> dict[str, System]:
    """Systems by slug: ours, then those of the entry-point group ``guerdon.systems`` (each a ``System``)."""
    found = {system.slug: system for system in SYSTEMS}
    for point in _announced("guerdon.systems", found):
        system = _load(point)
        if not isinstance(system, System):
            raise GuerdonError(f"entry point guerdon.systems:{point.name} ({point.value}) is not a catalogue.System")
        found[point.name] = system
    return found


def rewards() -> dict[str, str]:
    """ "module:attribute" of rewards by name: ours, then those of the entry-point group ``guerdon.rewards``."""
    return dict(_REWARDS) | {point.name: point.value for point in _announced("guerdon.rewards", _REWARDS)}


def benchmarks() -> dict[str, str]:
    """ "module:attribute" of benchmarks by name: ours, then those of the entry-point group ``guerdon.benchmarks``."""
    return dict(_BENCHMARKS) | {point.name: point.value for point in _announced("guerdon.benchmarks", _BENCHMARKS)}


def find_system(slug: str) -> System:
    """The system of that slug, or a recipe that is no one paper's. Raises GuerdonError naming the nearest."""
    known = systems() | {recipe.slug: recipe for recipe in GENERAL}
    if slug not in known:
        raise unknown("system", slug, known)
    return known[slug]


def load_reward(spec: str, **config: Any) -> Callable[..., Any]:
    """A reward by its name in the catalogue, by "module:attribute" ("file.py:attribute" for a file of one's own), or by
    the folder or hub id of a reward model.

    A class, or a function that makes a reward, is called with ``config``; a reward function is returned as it is and
    takes none. Raises GuerdonError naming the nearest reward, attribute or configuration key.
    """
    known = rewards()
    if spec not in known and is_model_path(spec):
        spec, config = "reward_model", {"path": spec, **config}
    if spec not in known and ":" not in spec:
        raise unknown("reward", spec, known)
    target = resolve(known.get(spec, spec))
    if not isinstance(target, type) and not _makes_reward(target):
        if not callable(target):
            raise GuerdonError(f"reward {spec!r} is not callable")
        if config:
            raise GuerdonError(f"reward {spec!r} takes no configuration, got {', '.join(sorted(config))}")
        return target
    _check_config(spec, target, config)
    made = target(**config)
    if not callable(made):
        raise GuerdonError(f"{spec!r} made {type(made).__name__}, which is not callable, so it is no reward")
    return made


def is_model_path(spec: str) -> bool:
    """Whether ``spec`` is meant as the folder or hub id of a model: a folder that exists, or a path or owner/name."""
    return Path(spec).is_dir() or ("/" in spec and ":" not in spec)


def resolve(target: str) -> Any:
    """The object behind "module:attribute" or "file.py:attribute". Raises GuerdonError saying which half is wrong."""
    place, _, attribute = target.partition(":")
    if not place or not attribute:
        raise GuerdonError(f"{target!r} is not of the form module:attribute")
    module_name = place
    if place.endswith(".py"):
        file = Path(place)
        if not file.is_file():
            raise GuerdonError(f"{target!r}: there is no file {place}")
        # On the path, so that a worker process, which inherits the path, finds the module again.
        _on_path(str(file.resolve().parent))
        module_name = file.stem
        loaded = getattr(sys.modules.get(module_name), "__file__", None)
        if module_name in sys.modules and (loaded is None or Path(loaded).resolve() != file.resolve()):
            raise GuerdonError(f"{target!r}: another module is already loaded as {module_name!r}; rename the file")
    else:
        _on_path(str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise GuerdonError(f"{target!r}: there is no module {error.name!r}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            guess = nearest(part, [name for name in dir(found) if not name.startswith("_")])
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise GuerdonError(f"{target!r}: {module_name} has no {attribute!r}{hint}")
        found = getattr(found, part)
    return found


def _on_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.append(folder)


def _makes_reward(target: Any) -> bool:
    """Whether a function builds a reward: unlike a reward, it has no place for completions."""
    if not inspect.isfunction(target):
        return False
    parameters = inspect.signature(target).parameters
    return "completions" not in parameters and not hasattr(target, "on_failure")


def _check_config(spec: str, target: Any, config: dict[str, Any]) -> None:
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return
    names = [p.name for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in config:
        if key not in names and not takes_all:
            raise unknown(f"configuration key of reward {spec!r}:", key, names)
    for p in parameters.values():
        if p.default is p.empty and p.name in names and p.name not in config:
            raise GuerdonError(f"reward {spec!r} needs the configuration key {p.name!r}")


def _announced(group: str, taken: Iterable[str]) -> list[EntryPoint]:
    """Entry points of a group; a name that is taken, or announced twice, is an error that names who announces it."""
    owners: dict[str, str] = dict.fromkeys(taken, "guerdon")
    points = sorted(entry_points(group=group), key=lambda point: (point.name, point.value))
    for point in points:
        owner = point.dist.name if point.dist is not None else point.value
        if point.name in owners:
            raise GuerdonError(f"{group}: {point.name!r} comes from both {owners[point.name]} and {owner}")
        owners[point.name] = owner
    return points


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        where = f"entry point {point.group}:{point.name} ({point.value})"
        raise GuerdonError(f"{where} cannot be loaded: {error}") from error
