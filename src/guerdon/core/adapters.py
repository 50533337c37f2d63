"""Rewards of other frameworks as ours, and ours as theirs: TRL, verl, OpenRLHF, ms-swift, Flow-Factory, flow_grpo.

``from_x`` makes a reward of ours out of one written for x; ``to_x`` gives x one of ours. All ``to_x`` take the options
of ``Scorer``: ``on_failure``, ``deadline``, ``max_failure_rate``, ``group_size``.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from guerdon.core.adapted import Export, Foreign, ForeignBySample, first_column, number_of, text_of
from guerdon.core.adapters_image import from_flow_factory, from_flow_grpo, to_flow_factory, to_flow_grpo
from guerdon.core.batch import read_entry, read_result
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed, Scores
from guerdon.core.reward import identity, is_async
from guerdon.core.scorer import Scorer, score_all_async

__all__ = [
    "from_flow_factory", "from_flow_grpo", "from_openrlhf", "from_swift", "from_trl", "from_verl", "to_flow_factory",
    "to_flow_grpo", "to_openrlhf", "to_swift", "to_trl", "to_verl",
]  # fmt: skip


# TRL: f(prompts, completions, completion_ids, **columns) -> list[float | None], by keyword


def to_trl(reward: Callable[..., Any], **options: Any) -> TRLReward:
    """The reward for ``GRPOTrainer(reward_funcs=...)``, with every check and the failure policy of ``Scorer``.

    Our rewards are TRL reward functions already; this adds the checks, a deadline, and the logging of parts and
    failures. The result has ``__name__`` and pickles when the reward does; an async reward stays async. A groupwise
    reward needs ``group_size=num_generations``, since TRL hands each process its own slice of the batch: a slice that
    is not made of whole groups is then an error.
    """
    found = AsyncTRLReward(reward, options) if is_async(reward) else TRLReward(reward, options)
    if found.scorer.groupwise and found.scorer.group_size is None:
        raise GuerdonError(f"reward {found.__name__!r} is groupwise: pass group_size=num_generations to to_trl")
    return found


class TRLReward:
    """A reward as TRL calls it; None where there is no score."""

    def __init__(self, reward: Callable[..., Any], options: Mapping[str, Any]) -> None:
        self.scorer = Scorer(reward, **options)
        self.__name__ = self.scorer.name
        self.groupwise, self.range, self.on_failure = self.scorer.groupwise, self.scorer.range, self.scorer.on_failure

    def identity(self) -> str:
        """name@version#hash of the reward inside."""
        return identity(self.scorer.reward)

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> Any:
        return self._log(self.scorer.score(prompts, completions, **columns), columns)

    def _log(self, scores: Scores, columns: Mapping[str, Any]) -> list[float | None]:
        log_metric, log_extra = columns.get("log_metric"), columns.get("log_extra")
        if callable(log_metric) and len(scores):
            for outcome, count in scores.counts().items():
                if outcome != "scored":
                    log_metric(f"{self.__name__}/{outcome}", count / len(scores))
            for part, values in scores.parts.items():
                if np.isfinite(values).any():
                    log_metric(f"{self.__name__}/{part}", float(np.nanmean(values)))
        if callable(log_extra):
            # Every time, also where nothing failed: a column of TRL's table must be as long as the others.
            causes = [scores.failures[row].cause if row in scores.failures else None for row in range(len(scores))]
            log_extra(f"{self.__name__}/failure", causes)
        return scores.as_list()


class AsyncTRLReward(TRLReward):
    """An async reward as TRL calls it: TRL awaits all of them together in its own loop."""

    async def __call__(self, prompts: Any, completions: Any, **columns: Any) -> Any:
        scores = await score_all_async([self.scorer], prompts, completions, **columns)
        return self._log(scores[0], columns)


def from_trl(function: Callable[..., Any], **declared: Any) -> Foreign:
    """A TRL reward function as ours; what TRL alone provides (its state, its loggers) is filled in where it is absent.

    declared: ``name``, ``groupwise``, ``range``, ``on_failure``. Raises GuerdonError for a function that needs
    ``completion_ids``, when scored without them.
    """
    return _FromTRL(function, **declared)


class _FromTRL(Foreign):
    def scores(self, prompts: Any, completions: Any, **columns: Any) -> Any:
        given = {"prompts": prompts, "completions": completions, "trainer_state": None, **columns}
        given.setdefault("log_extra", _ignore)
        given.setdefault("log_metric", _ignore)
        parameters = inspect.signature(self.function).parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            names = {p.name for p in parameters}
            given = {key: value for key, value in given.items() if key in names}
        for p in parameters:
            if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in given:
                raise GuerdonError(f"reward {self.__name__!r} needs {p.name!r}, which the data lack")
        answer = self.function(**given)
        if not inspect.isawaitable(answer):
            return read_result(answer, len(completions), self.__name__)

        async def wait() -> Scores:
            return read_result(await answer, len(completions), self.__name__)

        return wait()


def _ignore(*_: Any) -> None:
    """TRL's loggers outside TRL."""


# verl: compute_score(data_source, solution_str, ground_truth, extra_info, **kwargs) -> float | {"score": ...}


def to_verl(reward: Callable[..., Any], **options: Any) -> VerlReward:
    """The reward as verl's ``custom_reward_function``: one sample a call.

    The reward sees ``solution_str`` as its completion, ``ground_truth`` as the columns ``ground_truth`` and
    ``solution``, the entries of ``extra_info`` as further columns, and ``extra_info["prompt"]`` as its prompt (None
    where verl's data have none).
    """
    return VerlReward(reward, "verl", True, options)


class VerlReward(Export):
    """A reward as verl calls it; a composite's parts come back beside "score"."""

    def __call__(
        self, data_source: Any, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> float | dict[str, float]:  # fmt: skip
        info = dict(extra_info or {})
        columns = {key: [value] for key, value in {**kwargs, **info}.items() if key not in ("prompts", "completions")}
        columns |= {"data_source": [data_source], "ground_truth": [ground_truth], "extra_info": [info]}
        columns.setdefault("solution", [ground_truth])
        scores = self.scorer.score([info.get("prompt")], [solution_str], **columns)
        score = self.numbers(scores)[0]
        # A part that is itself called "score" must not stand in for the whole.
        parts = {"score_part" if key == "score" else key: float(part[0]) for key, part in scores.parts.items()}
        return {"score": score, **parts} if parts else score


def from_verl(
    compute_score: Callable[..., Any],
    *,
    data_source: str = "unknown",
    reward_kwargs: Mapping[str, Any] | None = None,
    **declared: Any,
) -> ForeignBySample:
    """A verl ``compute_score``, sync or async, as ours; further keys of its dict become parts.

    The ground truth is the column ``ground_truth``, ``reward_model`` (its "ground_truth"), ``solution``, ``answer`` or
    ``label``; ``data_source`` stands in where there is no such column.
    """
    found = _FromVerl(compute_score, **declared)
    found.data_source, found.reward_kwargs = data_source, dict(reward_kwargs or {})
    return found


class _FromVerl(ForeignBySample):
    data_source = "unknown"
    reward_kwargs: dict[str, Any]

    def _ask(self, prompt: Any, completion: Any, row: Mapping[str, Any]) -> Any:
        truth = first_column(row, "ground_truth", "reward_model", "solution", "answer", "label")
        info = dict(first_column(row, "extra_info") or {})
        info.setdefault("prompt", prompt)
        return self.function(
            data_source=row.get("data_source", self.data_source),
            solution_str=text_of(completion, self.__name__),
            ground_truth=truth.get("ground_truth") if isinstance(truth, Mapping) else truth,
            extra_info=info,
            **self.reward_kwargs,
        )

    def _read(self, answer: Any) -> tuple[float | None | Failed, dict[str, float]]:
        if not isinstance(answer, Mapping):
            return read_entry(answer), {}
        if "score" not in answer:
            return Failed(f"returned a dict without 'score': {sorted(map(str, answer))}", "wrong_type"), {}
        logged = {str(key): number_of(value) for key, value in answer.items() if key != "score"}
        return read_entry(answer["score"]), {key: value for key, value in logged.items() if value is not None}


# OpenRLHF: reward_func(queries, prompts, labels, **kwargs) -> {"rewards", "scores", "extra_logs"}


def to_openrlhf(
    reward: Callable[..., Any], *, end_tokens: tuple[str, ...] = (), columns_in_label: bool = False, **options: Any
) -> OpenRLHFReward:
    """The reward as the ``reward_func`` of a file given to ``--reward.remote_url``.

    A query is the prompt followed by the completion, special tokens included; ``end_tokens`` are cut off its end.
    Labels are the columns ``label`` and ``solution``; with ``columns_in_label`` each is a JSON object whose entries are
    columns, for rewards that read several. "scores" is the reward scaled to [0, 1] by its declared range, or
    the reward itself where it declares none.
    """
    found = OpenRLHFReward(reward, "OpenRLHF", True, options)
    found.end_tokens, found.columns_in_label = tuple(end_tokens), columns_in_label
    return found


class OpenRLHFReward(Export):
    """A reward as OpenRLHF calls it, with float32 tensors [n]."""

    end_tokens: tuple[str, ...] = ()
    columns_in_label: bool = False

    def __call__(self, queries: Any, prompts: Any, labels: Any = None, **kwargs: Any) -> dict[str, Any]:
        import torch

        completions = [self._completion(*pair, row) for row, pair in enumerate(zip(queries, prompts, strict=True))]
        labels = list(labels) if labels is not None else [None] * len(completions)
        columns = {**kwargs, "label": labels, "solution": labels}
        if self.columns_in_label:
            rows = [self._columns(label, row) for row, label in enumerate(labels)]
            columns = {**kwargs, **{key: [one.get(key) for one in rows] for one in rows for key in one}}
        scores = self.scorer.score(list(prompts), completions, **columns)
        rewards = torch.tensor(self.numbers(scores), dtype=torch.float32)
        low, high = self.scorer.range or (0.0, 1.0)
        extra = {key: torch.tensor(part, dtype=torch.float32) for key, part in scores.parts.items()}
        failed = [float(row in scores.failures) for row in range(len(scores))]
        extra[f"{self.__name__}/failed"] = torch.tensor(failed, dtype=torch.float32)
        scaled = ((rewards - low) / (high - low)).clamp(0, 1) if self.scorer.range is not None else rewards
        return {"rewards": rewards, "scores": scaled, "extra_logs": extra}

    def _columns(self, label: Any, row: int) -> Mapping[str, Any]:
        try:
            found = json.loads(label) if isinstance(label, str) else label
        except ValueError:
            found = None
        if not isinstance(found, Mapping):
            raise GuerdonError(
                f"reward {self.__name__!r}: the label of row {row} is no JSON object: {str(label)[:60]!r}"
            )
        return found

    def _completion(self, query: str, prompt: str, row: int) -> str:
        if not query.startswith(prompt):
            raise GuerdonError(
                f"reward {self.__name__!r}: the query of row {row} does not begin with its prompt, so the completion "
                "cannot be told from it"
            )
        completion = query[len(prompt) :]
        while any(token and completion.endswith(token) for token in self.end_tokens):
            completion = next(completion.removesuffix(token) for token in self.end_tokens if completion.endswith(token))
        return completion


def from_openrlhf(reward_func: Callable[..., Any], **declared: Any) -> ForeignBySample:
    """An OpenRLHF ``reward_func`` as ours, called with one sample as OpenRLHF does; "extra_logs" become parts.

    Labels are the column ``labels``, ``label``, ``solution`` or ``answer``.
    """
    return _FromOpenRLHF(reward_func, **declared)


class _FromOpenRLHF(ForeignBySample):
    def _ask(self, prompt: Any, completion: Any, row: Mapping[str, Any]) -> Any:
        shown = text_of(prompt, self.__name__)
        label = first_column(row, "labels", "label", "solution", "answer")
        return self.function([shown + text_of(completion, self.__name__)], [shown], [label])

    def _read(self, answer: Any) -> tuple[float | None | Failed, dict[str, float]]:
        logs = answer.get("extra_logs") or {} if isinstance(answer, Mapping) else {}
        raw: Any = answer.get("rewards") if isinstance(answer, Mapping) else answer
        flat = raw.reshape(-1).tolist() if hasattr(raw, "reshape") else raw
        if isinstance(flat, list | tuple):
            if len(flat) != 1:
                return Failed(f"returned {len(flat)} rewards for one sample", "wrong_type"), {}
            flat = flat[0]
        if flat is None:
            return Failed("returned no 'rewards'", "wrong_type"), {}
        arrays = {str(key): np.asarray(value).reshape(-1) for key, value in logs.items()}
        logged = {key: number_of(array[0]) for key, array in arrays.items() if array.size == 1}
        return read_entry(flat), {key: value for key, value in logged.items() if value is not None}


# ms-swift: a class whose instances are called as (completions, **columns) -> list[float]


def to_swift(reward: Callable[..., Any], *, base: type = object, **options: Any) -> type:
    """The reward as a class for swift's ``orms`` dictionary: ``orms["name"] = to_swift(reward)``.

    base: swift's own ``ORM``, for code that asks for it. The prompt is what stands in ``messages`` before the last
    message, or the column ``prompt``. swift sums rewards with a nan-sum, so None would be paid as 0 there: the declared
    policy decides.
    """
    export = _SwiftExport(reward, "ms-swift", False, options)

    def start(self: Any, args: Any = None, **kwargs: Any) -> None:
        self.args = args

    def call(self: Any, completions: Any, **columns: Any) -> list[float]:
        return export(completions, **columns)

    made = type(export.__name__, (base,), {"__init__": start, "__call__": call, "export": export})
    made.__doc__ = f"The reward {export.__name__!r} as an ms-swift ORM."
    return made


class _SwiftExport(Export):
    def __call__(self, completions: Any, **columns: Any) -> list[float]:
        messages = columns.get("messages")
        if messages is not None:
            prompts: Any = [list(row)[:-1] for row in messages]
        else:
            prompts = first_column(columns, "prompts", "prompt")
        if prompts is None:
            prompts = [None] * len(completions)
        rest = {key: value for key, value in columns.items() if key != "prompts"}
        return self.numbers(self.scorer.score(prompts, list(completions), **rest))


def from_swift(orm: Any, **declared: Any) -> Foreign:
    """An ms-swift ORM or AsyncORM, a class or an instance, as ours; it is given texts, as swift gives them."""
    instance = orm() if isinstance(orm, type) else orm
    return _FromSwift(instance, **declared)


class _FromSwift(Foreign):
    def scores(self, prompts: Any, completions: Any, **columns: Any) -> Any:
        texts = [text_of(completion, self.__name__, row) for row, completion in enumerate(completions)]
        answer = self.function(texts, **{"prompts": prompts, **columns})
        if not inspect.isawaitable(answer):
            return read_result(answer, len(texts), self.__name__)

        async def wait() -> Scores:
            return read_result(await answer, len(texts), self.__name__)

        return wait()
