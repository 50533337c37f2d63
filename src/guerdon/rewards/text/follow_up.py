"""The reward of what a user would say next: how much likelier praise is after a response than complaint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash
from guerdon.core.outcome import Failed
from guerdon.core.preferences import Pair
from guerdon.models.causal import load_causal
from guerdon.models.follow_up import ConversationFormatter, Layout, conditional_log_likelihood, first_row_logits
from guerdon.models.scalar.tokens import length_limit
from guerdon.objectives.follow_up import Combine, follow_up_value, utterance_log_likelihood
from guerdon.rewards.text.follow_up_sets import DEFAULT_SETS, FollowUpSet

__all__ = ["FollowUpDetail", "FollowUpLikelihoodReward", "FollowUpSet", "Mode", "Prior", "load"]

Mode = Literal["loglik", "released_code"]
Prior = Literal["empty_response", "no_response"]

_PRIORS_KEPT = 256


@dataclass(frozen=True)
class FollowUpDetail:
    """value: the reward. dimensions: each one's. utterances: (dimension, side, utterance) -> its likelihood, in nats a
    token (or the raw logit of the released code), less its prior where one is taken off."""

    value: float
    dimensions: dict[str, float]
    utterances: dict[tuple[str, str, str], float]


def load(
    path: str | Path, *, device: str | None = None, dtype: Any = "auto", **options: Any
) -> FollowUpLikelihoodReward:
    """The reward of a causal language model of transformers, hub id or folder; ``options`` as of the class."""
    model, tokenizer = load_causal(path, dtype=dtype, device=device)
    return FollowUpLikelihoodReward(model, tokenizer, **options)


class FollowUpLikelihoodReward:
    """FLR(c, y) = mean_d [mean_f+ ell(f+ | c, y) - mean_f- ell(f- | c, y)], nats a token; unbounded.

    model, tokenizer: any causal language model. Its own belief is the judge: on questions of fact it pays what it
        holds for true, and nothing trains it to see through flattery.
    sets:        follow-ups by dimension; default six of our own. dimension_weights: by name, default equal.
    layout:      "user" for base models, "assistant_swap" for chat models (`ConversationFormatter`).
    mode:        "loglik", or "released_code": the raw logits that the authors' code averages in fact
                 (`first_row_logits`). Never put the two into one table.
    length_norm: per token, as published; False sums, and long utterances then count for more.
    combine:     how a dimension's likelihoods become one number (`follow_up_value`); the paper's is UNVERIFIED.
    pmi:         take off what the utterance is worth anyway: "empty_response": ell(f | c, empty); "no_response":
                 ell(f | c), only in the layout "user" and where the template allows two turns of the user. Both are the
                 same for all responses to a prompt: they compare responses to different prompts.
    cache:       read dialogue and response once for all follow-ups (`conditional_log_likelihood`).

    A dialogue too long for the model fails alone (kind "too_long"); an empty response is scored like any other.
    Politeness hijacks this reward: it is an LM's likelihood, so watch sycophancy and length in a run that climbs it.

    Source: Aligning Language Models Using Follow-up Likelihood as Reward Signal (arXiv 2409.13948).
    """

    groupwise = False
    range = None
    on_failure = "drop_sample"
    version = "1"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        sets: Sequence[FollowUpSet] = DEFAULT_SETS,
        *,
        layout: Layout = "user",
        mode: Mode = "loglik",
        length_norm: bool = True,
        combine: Combine = "mean_difference",
        pmi: Prior | None = None,
        dimension_weights: Mapping[str, float] | None = None,
        template: Mapping[str, Any] | None = None,
        batch_size: int = 64,
        cache: bool = True,
        name: str = "follow_up_likelihood",
    ) -> None:
        if mode not in get_args(Mode):
            raise unknown("mode of the follow-up likelihood", mode, get_args(Mode))
        if combine not in get_args(Combine):
            raise unknown("way to combine follow-ups", combine, get_args(Combine))
        if pmi is not None and pmi not in get_args(Prior):
            raise unknown("prior of a follow-up", pmi, [*get_args(Prior), "None"])
        if pmi == "no_response" and layout != "user":
            raise GuerdonError(f"reward {name!r}: pmi='no_response' needs layout='user'; use 'empty_response'")
        if mode == "released_code" and not length_norm:
            raise GuerdonError(f"reward {name!r}: the released code always averages; mode='released_code' has no sum")
        names = [one.dimension for one in sets]
        if not names or len(set(names)) < len(names):
            raise GuerdonError(f"reward {name!r} needs follow-ups of different dimensions, got {names}")
        self.sets = tuple(sets)
        self.layout, self.mode, self.length_norm, self.combine, self.pmi = layout, mode, length_norm, combine, pmi
        self.model, self.batch_size, self.cache = model.eval(), batch_size, cache
        self.formatter = ConversationFormatter(tokenizer, layout, template=template)
        self.utterance_weights: dict[tuple[str, str, str], float] = {}
        self.dimension_weights = self._dimension_weights(dimension_weights or {}, names, name)
        self.__name__ = name
        self._limit = length_limit(tokenizer, model.config)
        self._pad = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0)
        self._begin: int | None = next(iter(tokenizer("a")["input_ids"]), None)
        if self._begin != tokenizer.bos_token_id:
            self._begin = None
        self._said = [text for one in self.sets for text in (*one.positives, *one.negatives)]
        self._priors: dict[str, Tensor] = {}
        self._identity: str | None = None

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None | Failed]:
        """One outcome a completion."""
        found: list[float | None | Failed] = []
        for one in self.explain(prompts, completions):
            found.append(one if isinstance(one, Failed) else one.value)
        return found

    def explain(self, prompts: Sequence[Any], completions: Sequence[Any]) -> list[FollowUpDetail | Failed]:
        """Value, dimensions and utterances of each completion. Raises GuerdonError for lists of different numbers."""
        if isinstance(prompts, str) or len(prompts) != len(completions):
            raise GuerdonError(f"reward {self.__name__!r}: {len(completions)} completions need as many prompts")
        found: list[FollowUpDetail | Failed] = []
        for prompt, completion in zip(prompts, completions):
            values = self._utterances(prompt, completion_text(completion))
            if not isinstance(values, Failed) and self.pmi is not None:
                prior = self._prior(prompt)
                values = prior if isinstance(prior, Failed) else values - prior
            found.append(values if isinstance(values, Failed) else self._detail(values))
        return found

    def dimension_report(self, prompts: Sequence[Any], completions: Sequence[Any]) -> dict[str, dict[str, float]]:
        """dimension -> mean and standard deviation of its value, and its correlation with the whole reward.

        A dimension that does not vary has correlation 0; failed completions are left out. Raises GuerdonError where
        fewer than two are left.
        """
        kept = [one for one in self.explain(prompts, completions) if isinstance(one, FollowUpDetail)]
        if len(kept) < 2:
            raise GuerdonError(f"a report on dimensions needs two scored completions, got {len(kept)}")
        whole = torch.tensor([one.value for one in kept], dtype=torch.float64)
        report = {}
        for name in (one.dimension for one in self.sets):
            own = torch.tensor([one.dimensions[name] for one in kept], dtype=torch.float64)
            flat = float(own.std()) == 0 or float(whole.std()) == 0
            with_whole = 0.0 if flat else float(torch.corrcoef(torch.stack([own, whole]))[0, 1])
            report[name] = {"mean": float(own.mean()), "std": float(own.std()), "correlation": with_whole}
        return report

    def calibrate(self, pairs: Sequence[Pair]) -> dict[tuple[str, str, str], float]:
        """Weigh each utterance by how often it tells the better response of labelled pairs: max(0, 2 accuracy - 1).

        Sets `utterance_weights` (and with them the identity) and returns each utterance's accuracy; ties count half. A
        set of which no utterance does better than chance keeps equal weights. Use pairs that judge nothing afterwards.
        The rule is ours. Raises GuerdonError where no pair could be scored on both sides.
        """
        prompts = [pair.prompt for pair in pairs]
        both = [
            [self._utterances(prompt, completion_text(getattr(pair, side))) for prompt, pair in zip(prompts, pairs)]
            for side in ("chosen", "rejected")
        ]
        gaps = [a - b for a, b in zip(*both) if not isinstance(a, Failed) and not isinstance(b, Failed)]
        if not gaps:
            raise GuerdonError(f"none of {len(pairs)} pairs could be scored, so there is nothing to calibrate by")
        higher = torch.stack([0.5 + 0.5 * gap.sign() for gap in gaps]).mean(dim=0)
        accuracy = {
            key: float(share) if key[1] == "positive" else 1 - float(share) for key, share in zip(self._keys(), higher)
        }
        self.utterance_weights = {key: max(0.0, 2 * share - 1) for key, share in accuracy.items()}
        self._identity = None
        return accuracy

    def identity(self) -> str:
        """Name, version, and a hash of the model's weights, the utterances and the settings."""
        if self._identity is None:
            settings = {
                "layout": self.layout, "mode": self.mode, "length_norm": self.length_norm, "combine": self.combine,
                "pmi": self.pmi, "dimensions": self.dimension_weights,
                "instruction": self.formatter.instruction, "template": sorted(self.formatter.template),
                "sets": [[one.dimension, list(one.positives), list(one.negatives)] for one in self.sets],
                "weights": [[*key, weight] for key, weight in sorted(self.utterance_weights.items())],
            }  # fmt: skip
            hashed = config_hash(settings, self.model.state_dict())
            self._identity = f"{self.__name__}@{self.version}#{hashed}"
        return self._identity

    def _utterances(self, prompt: Any, response: str | None) -> Tensor | Failed:
        """Likelihoods of all follow-ups, in the order of the sets, [F]."""
        try:
            prefix, targets = self.formatter.encode(prompt, response, self._said)
        except ValueError as error:  # of messages in no known form
            raise GuerdonError(f"reward {self.__name__!r}: the prompt {error}") from error
        longest = len(prefix) + max(map(len, targets)) + 1
        if longest > self._limit:
            return Failed(f"{longest} tokens exceed the {self._limit} that the model reads", "too_long")
        if self.mode == "released_code":
            return first_row_logits(
                self.model, prefix, targets, tail=self.formatter.tail(prompt, response), begin=self._begin,
                batch_size=self.batch_size, pad_id=self._pad,
            )  # fmt: skip
        log_probs, mask = conditional_log_likelihood(
            self.model, prefix, targets, batch_size=self.batch_size, cache=self.cache, pad_id=self._pad
        )
        return utterance_log_likelihood(log_probs, mask, length_norm=self.length_norm)

    def _prior(self, prompt: Any) -> Tensor | Failed:
        response = "" if self.pmi == "empty_response" else None
        # The completions of a group share it.
        key = self.formatter.split(prompt, response)[0]
        if key not in self._priors:
            values = self._utterances(prompt, response)
            if isinstance(values, Failed):
                return values
            if len(self._priors) >= _PRIORS_KEPT:
                self._priors.pop(next(iter(self._priors)))
            self._priors[key] = values
        return self._priors[key]

    def _detail(self, values: Tensor) -> FollowUpDetail:
        dimensions: dict[str, float] = {}
        start = 0
        for one in self.sets:
            middle, end = start + len(one.positives), start + len(one.positives) + len(one.negatives)
            weights = [self._weights(one.dimension, side) for side in ("positive", "negative")]
            value = follow_up_value(
                values[start:middle].double(), values[middle:end].double(), combine=self.combine,
                positive_weights=weights[0], negative_weights=weights[1],
            )  # fmt: skip
            dimensions[one.dimension], start = float(value), end
        total = sum(self.dimension_weights.values())
        whole = sum(self.dimension_weights[name] * value for name, value in dimensions.items()) / total
        return FollowUpDetail(whole, dimensions, dict(zip(self._keys(), values.double().tolist())))

    def _weights(self, dimension: str, side: str) -> Tensor | None:
        own = [weight for key, weight in self.utterance_weights.items() if key[:2] == (dimension, side)]
        return torch.tensor(own, dtype=torch.float64) if sum(own) > 0 else None

    def _keys(self) -> list[tuple[str, str, str]]:
        return [
            (one.dimension, side, text)
            for one in self.sets
            for side, said in (("positive", one.positives), ("negative", one.negatives))
            for text in said
        ]

    @staticmethod
    def _dimension_weights(given: Mapping[str, float], names: Sequence[str], reward: str) -> dict[str, float]:
        for key, weight in given.items():
            if key not in names:
                raise unknown("dimension of follow-ups", key, names)
            if not 0 <= weight < float("inf"):
                raise GuerdonError(f"reward {reward!r}: the weight of {key!r} must be finite, at least 0; got {weight}")
        weights = {name: float(given.get(name, 1.0)) for name in names}
        if not sum(weights.values()):
            raise GuerdonError(f"reward {reward!r}: all dimensions have weight 0")
        return weights
