"""Image rewards of Flow-Factory and flow_grpo as ours, and ours as theirs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.core.adapted import Export, Foreign, number_of
from guerdon.core.batch import read_result
from guerdon.core.errors import GuerdonError
from guerdon.core.images import as_tensor, to_pil
from guerdon.core.outcome import Scores

if TYPE_CHECKING:
    import torch


# Flow-Factory: a class called as (prompt, image, video, condition_images, condition_videos) -> object with .rewards


@dataclass
class FlowFactoryOutput:
    """What Flow-Factory reads: rewards float32 [n], and what is logged beside them."""

    rewards: torch.Tensor
    extra_info: dict[str, Any] = field(default_factory=dict)


def to_flow_factory(reward: Callable[..., Any], *, base: type = object, medium: str = "image", **options: Any) -> type:
    """The reward as a class for Flow-Factory's ``rewards:`` list.

    base: Flow-Factory's ``PointwiseRewardModel`` or ``GroupwiseRewardModel``, which its loader looks for. medium:
    "image" or "video", the field that the reward scores. Conditions, and the entries of the JSON text ``metadata``,
    arrive as columns.
    """
    if medium not in ("image", "video"):
        raise GuerdonError(f"medium must be 'image' or 'video', got {medium!r}")
    export = _FlowFactoryExport(reward, "Flow-Factory", False, options)

    def start(self: Any, config: Any = None, accelerator: Any = None) -> None:
        if base is not object:
            base.__init__(self, config, accelerator)  # type: ignore[misc]
        else:
            self.config, self.accelerator, self.model = config, accelerator, None

    def call(self: Any, prompt: Any, image: Any = None, video: Any = None, **columns: Any) -> FlowFactoryOutput:
        return export(medium, prompt, {"image": image, "video": video}, columns)

    body = {"__init__": start, "__call__": call, "required_fields": ("prompt", medium), "use_tensor_inputs": False}
    made = type(export.__name__, (base,), {**body, "export": export})
    made.__doc__ = f"The reward {export.__name__!r} as a Flow-Factory reward model."
    return made


class _FlowFactoryExport(Export):
    def __call__(
        self, medium: str, prompt: Any, media: Mapping[str, Any], columns: Mapping[str, Any]
    ) -> FlowFactoryOutput:
        import torch

        completions = media[medium]
        if completions is None:
            raise GuerdonError(f"reward {self.__name__!r} scores the field {medium!r}, which Flow-Factory did not pass")
        given = {key: value for key, value in columns.items() if value is not None}
        given |= _metadata_columns(given.get("metadata"), len(completions))
        scores = self.scorer.score(list(prompt), completions, **given)
        rewards = torch.tensor(self.numbers(scores), dtype=torch.float32)
        return FlowFactoryOutput(rewards, {key: part.tolist() for key, part in scores.parts.items()})


def from_flow_factory(model: Any, **declared: Any) -> Foreign:
    """A Flow-Factory reward model (an instance) as ours; ``extra_info`` with one number a row becomes parts.

    Frame stacks [T, H, W, 3] are passed as ``video``, everything else as ``image``, each the way ``use_tensor_inputs``
    asks for: tensors in [0, 1] or PIL images.
    """
    if isinstance(model, type):
        raise GuerdonError(f"pass an instance of {model.__name__}: it needs its own config and accelerator")
    return _FromFlowFactory(model, **declared)


class _FromFlowFactory(Foreign):
    def scores(self, prompts: Any, completions: Any, **columns: Any) -> Any:
        tensors = bool(getattr(self.function, "use_tensor_inputs", False))
        given: dict[str, Any] = {"prompt": list(prompts), "image": None, "video": None}
        if len(completions) and getattr(completions[0], "ndim", 0) == 4:
            given["video"] = [_media(frames, tensors) for frames in completions]
        else:
            given["image"] = _media(completions, tensors)
        optional = ("condition_images", "condition_videos", "audio", "metadata", "group_id")
        wanted = (*getattr(self.function, "required_fields", ()), *optional)
        given |= {key: columns[key] for key in wanted if key in columns}
        output = self.function(**given)
        parts = {}
        for key, values in (getattr(output, "extra_info", None) or {}).items():
            if hasattr(values, "__len__") and not isinstance(values, str) and len(values) == len(completions):
                numbers = [number_of(value) for value in values]
                parts[str(key)] = np.array([np.nan if number is None else number for number in numbers])
        scores = read_result(output.rewards, len(completions), self.__name__)
        return Scores.of(scores.outcomes(), parts=parts)


def _media(images: Any, tensors: bool) -> Any:
    stack = as_tensor(images)
    # Their rewards index a list of [3, H, W], never a batch.
    return list(stack) if tensors else to_pil(stack)


# flow_grpo: fn(images, prompts, metadata) -> (scores, dict)


def to_flow_grpo(reward: Callable[..., Any], **options: Any) -> FlowGRPOReward:
    """The reward as a function of flow_grpo's ``multi_score``: (float64 [n], parts).

    Images are a float tensor [n, 3, H, W] in [0, 1] or a uint8 array [n, H, W, 3]; the entries of ``metadata``, a list
    of mappings, arrive as columns.
    """
    return FlowGRPOReward(reward, "flow_grpo", False, options)


class FlowGRPOReward(Export):
    """A reward as flow_grpo calls it."""

    def __call__(self, images: Any, prompts: Any, metadata: Any = None, **_: Any) -> tuple[np.ndarray, dict[str, Any]]:
        completions = as_tensor(images)
        scores = self.scorer.score(list(prompts), completions, **_metadata_columns(metadata, len(completions)))
        return np.array(self.numbers(scores)), {key: part.tolist() for key, part in scores.parts.items()}


def from_flow_grpo(function: Callable[..., Any], **declared: Any) -> Foreign:
    """A flow_grpo reward function as ours; entries of its dict with one number a row become parts.

    It is given the images as a float tensor [n, 3, H, W] in [0, 1], and as ``metadata`` that column, or else one
    mapping of all columns a row.
    """
    return _FromFlowGRPO(function, **declared)


class _FromFlowGRPO(Foreign):
    def scores(self, prompts: Any, completions: Any, **columns: Any) -> Any:
        rows = len(completions)
        metadata = columns.get("metadata")
        if metadata is None:
            own = {key: value for key, value in columns.items() if isinstance(value, list) and len(value) == rows}
            metadata = [{key: value[row] for key, value in own.items()} for row in range(rows)]
        answer = self.function(as_tensor(completions), list(prompts), metadata)
        if not isinstance(answer, tuple) or len(answer) < 1:
            raise GuerdonError(f"reward {self.__name__!r} returned {type(answer).__name__}, not (scores, dict)")
        parts = {}
        for key, values in (answer[-1] if isinstance(answer[-1], Mapping) else {}).items():
            if hasattr(values, "__len__") and not isinstance(values, str) and len(values) == rows:
                numbers = [number_of(value) for value in values]
                parts[str(key)] = np.array([np.nan if number is None else number for number in numbers])
        return Scores.of(read_result(answer[0], rows, self.__name__).outcomes(), parts=parts)


def _metadata_columns(metadata: Any, rows: int) -> dict[str, list[Any]]:
    """One column a key of the rows' mappings (given as such, or as JSON text), None where a row lacks it."""
    if metadata is None or len(metadata) != rows or isinstance(metadata, str):
        return {}
    read = []
    for row, entry in enumerate(metadata):
        try:
            entry = json.loads(entry) if isinstance(entry, str) else entry
        except ValueError:
            raise GuerdonError(f"the metadata of row {row} are not JSON") from None
        read.append(entry if isinstance(entry, Mapping) else {})
    found = dict.fromkeys(str(key) for entry in read for key in entry)
    keys = [key for key in found if key not in ("prompts", "completions")]
    return {"metadata": list(metadata), **{key: [entry.get(key) for entry in read] for key in keys}}
