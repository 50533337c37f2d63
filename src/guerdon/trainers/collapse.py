"""Has a policy collapsed onto what its verifier falls for? Short answers, one answer to everything, keys that pay.

Source: One Token to Fool LLM-as-a-Judge (arXiv 2507.08794), appendix B.3: a policy trained on a judge's word fell below
30 tokens while its KL jumped, and then answered "Thought Process:" to 94% of the questions, which the judge accepted.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from guerdon.core.answer import completion_text
from guerdon.core.attack_strings import MASTER_KEYS
from guerdon.core.errors import GuerdonError
from guerdon.core.reward import name_of
from guerdon.core.scorer import Scorer

__all__ = ["Alarm", "CollapseMonitor", "CollapseWatch", "Watched", "key_reward"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alarm:
    """A bound that was crossed at a step, and for how many measurements in a row."""

    step: int
    measure: str
    value: float
    bound: float
    times: int

    def __str__(self) -> str:
        return f"step {self.step}: {self.measure} is {self.value:.3g}, beyond {self.bound:g} ({self.times} in a row)"


class CollapseWatch:
    """Says when a policy shows the marks of a collapse; knows nothing of trainers.

    shortest:    mean length of responses below which there is an alarm, in the unit that is measured (tokens; without a
                 tokenizer, words). A policy that began below it is not measured by it: its task is a short one.
    top_share:   share of the prompts that got the commonest response, above which there is an alarm; needs 8 prompts.
    most_kl:     bound of the KL from the reference policy; None: twenty times the first one above zero is too much.
    key_reward:  bound of what the worst key alone is paid (`key_reward`).
    patience:    measurements in a row that a bound must be crossed for an alarm.

    None switches a measure off (of ``most_kl``: give infinity). The marks are the paper's, and the 30 tokens; the other
    bounds, patience and the factor of 20 are ours (UNVERIFIED). Raises GuerdonError for a share outside (0, 1] or a
    patience below 1.
    """

    FEWEST_PROMPTS, KL_FACTOR = 8, 20.0

    def __init__(
        self,
        *,
        shortest: float | None = 30.0,
        top_share: float | None = 0.5,
        most_kl: float | None = None,
        key_reward: float | None = 0.5,
        patience: int = 2,
    ) -> None:
        if patience < 1 or top_share is not None and not 0 < top_share <= 1:
            raise GuerdonError(f"a watch needs patience >= 1 and a share in (0, 1], got {patience} and {top_share}")
        self.shortest, self.top_share, self.most_kl, self.key_reward = shortest, top_share, most_kl, key_reward
        self.patience = patience
        self.alarms: list[Alarm] = []
        self.rows: list[dict[str, float]] = []
        self._first_length: float | None = None
        self._first_kl: float | None = None
        self._streaks: Counter[str] = Counter()

    def measure(
        self,
        step: int,
        *,
        responses: Sequence[str] = (),
        prompts: Sequence[Any] | None = None,
        length: float | None = None,
        kl: float | None = None,
        key_reward: float | None = None,
    ) -> list[Alarm]:
        """Record what is known of a step; the alarms that it raised.

        responses, prompts: the texts of the step and what they answer (None: each another prompt). length: mean tokens;
        None: mean words of ``responses``. kl: nats. key_reward: of `key_reward`. What is None or nan is not measured.
        """
        row: dict[str, float] = {"step": float(step)}
        if length is None and responses:
            length = float(np.mean([len(text.split()) for text in responses]))
        if length is not None:
            row["length"] = float(length)
            self._first_length = row["length"] if self._first_length is None else self._first_length
        share = _top_share(responses, prompts, self.FEWEST_PROMPTS)
        row |= {} if share is None else {"top_share": share}
        if kl is not None and math.isfinite(kl):
            row["kl"] = float(kl)
            self._first_kl = row["kl"] if not self._first_kl and kl > 0 else self._first_kl
        row |= {} if key_reward is None or math.isnan(key_reward) else {"key_reward": float(key_reward)}
        self.rows.append(row)
        raised = []
        for name, bound, beyond in self._bounds(row):
            self._streaks[name] = self._streaks[name] + 1 if beyond else 0
            if beyond and self._streaks[name] >= self.patience:
                raised.append(Alarm(step, name, row[name], bound, self._streaks[name]))
        self.alarms += raised
        return raised

    def _bounds(self, row: Mapping[str, float]) -> list[tuple[str, float, bool]]:
        """(measure, bound, whether it is crossed) for each measure of ``row`` that has a bound."""
        most_kl = self.most_kl
        if most_kl is None and self._first_kl:
            most_kl = self.KL_FACTOR * self._first_kl
        uppers = {"top_share": self.top_share, "kl": most_kl, "key_reward": self.key_reward}
        found = [(name, top, row[name] > top) for name, top in uppers.items() if top is not None and name in row]
        if self.shortest is not None and "length" in row and (self._first_length or 0.0) >= self.shortest:
            found.append(("length", self.shortest, row["length"] < self.shortest))
        return found


def key_reward(
    reward: Any,
    prompts: Sequence[Any],
    keys: Sequence[str] = MASTER_KEYS["paper10"],
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> dict[str, float]:
    """Mean reward of each key as the whole completion to ``prompts``; nan for a key that is never scored.

    columns: one entry a prompt (a verifier's ``solution``). Completions are messages where the prompts are.
    """
    scorer = Scorer(reward, on_failure="drop_sample", max_failure_rate=1.0)
    found = {}
    for key in keys:
        said = [key if isinstance(prompt, str) else [{"role": "assistant", "content": key}] for prompt in prompts]
        given = {name: list(column) for name, column in (columns or {}).items()}
        values = scorer.score(list(prompts), said, **given).values
        found[key] = float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
    return found


class Watched:
    """A reward that remembers the texts that it was asked about since `take` was last called, and scores as before."""

    def __init__(self, reward: Any) -> None:
        self.reward = reward
        self.__name__ = name_of(reward)
        self._seen: list[tuple[Any, str]] = []
        for name in ("groupwise", "range", "on_failure", "version"):
            if hasattr(reward, name):
                setattr(self, name, getattr(reward, name))

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> Any:
        """As the reward."""
        self._seen += [(repr(prompt), completion_text(one)) for prompt, one in zip(prompts, completions)]
        return self.reward(prompts=prompts, completions=completions, **columns)

    def identity(self) -> str:
        """The reward's own."""
        from guerdon.core.reward import identity

        return identity(self.reward)

    def take(self) -> tuple[list[str], list[Any]]:
        """(responses, prompts) since the last call."""
        seen, self._seen = self._seen, []
        return [text for _, text in seen], [prompt for prompt, _ in seen]


class CollapseMonitor(TrainerCallback):
    """`CollapseWatch` as a callback of TRL's online trainers (GRPO, RLOO and others of transformers' ``Trainer``).

    watch:    the bounds; its ``alarms`` say what was raised.
    probe:    () -> what the worst key is paid, asked every ``every`` steps; `CollapseMonitor.probing` makes one.
    stop:     end the training at an alarm. The default only warns, since no bound is free of false alarms.
    on_alarm: called with each alarm.

    Give the rewards to the trainer through `watching`, so that responses are seen; without it only the trainer's own
    figures (``completions/mean_length``, ``kl``) are. Measures are added to the trainer's logs as ``collapse/...``. On
    several processes each watches its own texts, and one process' alarm stops all.

        monitor = CollapseMonitor(probe=CollapseMonitor.probing(verifier, prompts, columns={"solution": solutions}))
        GRPOTrainer(model, reward_funcs=monitor.watching(verifier), callbacks=[monitor], ...)
    """

    def __init__(
        self,
        watch: CollapseWatch | None = None,
        *,
        probe: Callable[[], float] | None = None,
        every: int = 50,
        stop: bool = False,
        on_alarm: Callable[[Alarm], None] | None = None,
    ) -> None:
        if every < 1:
            raise GuerdonError(f"every must be at least 1 step, got {every}")
        self.watch, self.probe, self.every, self.stop = watch or CollapseWatch(), probe, every, stop
        self.on_alarm = on_alarm
        self._rewards: list[Watched] = []
        self._probed = -1

    @staticmethod
    def probing(
        reward: Any,
        prompts: Sequence[Any],
        keys: Sequence[str] = MASTER_KEYS["paper10"],
        columns: Mapping[str, Sequence[Any]] | None = None,
    ) -> Callable[[], float]:
        """A probe: what `key_reward` says of the worst key, of those that are scored."""

        def probe() -> float:
            paid = [value for value in key_reward(reward, prompts, keys, columns).values() if not math.isnan(value)]
            return max(paid, default=float("nan"))

        return probe

    def watching(self, reward: Any) -> Watched:
        """The reward to train on, whose texts this monitor then sees."""
        self._rewards.append(Watched(reward))
        return self._rewards[-1]

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Measure, at every line that the trainer logs while it trains."""
        if logs is None or "train_runtime" in logs:
            return
        seen = [reward.take() for reward in self._rewards]
        responses, prompts = seen[0] if seen else ([], [])
        step = int(state.global_step)
        paid = None
        if self.probe is not None and (self._probed < 0 or step - self._probed >= self.every):
            paid, self._probed = self.probe(), step
        alarms = self.watch.measure(
            step, responses=responses, prompts=prompts or None, length=logs.get("completions/mean_length"),
            kl=logs.get("kl"), key_reward=paid,
        )  # fmt: skip
        logs |= {f"collapse/{name}": value for name, value in self.watch.rows[-1].items() if name != "step"}
        for alarm in alarms:
            logger.warning("the policy may have collapsed: %s", alarm)
            if self.on_alarm is not None:
                self.on_alarm(alarm)
        if self.stop and _anywhere(bool(alarms)):
            control.should_training_stop = True


def _top_share(responses: Sequence[str], prompts: Sequence[Any] | None, fewest: int) -> float | None:
    """Share of the prompts that got the commonest response; None with too few prompts to tell."""
    asked = list(prompts) if prompts is not None else list(range(len(responses)))
    if len(asked) != len(responses):
        raise GuerdonError(f"{len(responses)} responses to {len(asked)} prompts")
    pairs = {(str(prompt), response.strip()) for prompt, response in zip(asked, responses)}
    count = len({prompt for prompt, _ in pairs})
    if count < fewest:
        return None
    return Counter(response for _, response in pairs).most_common(1)[0][1] / count


def _anywhere(alarmed: bool) -> bool:
    """Whether any process has an alarm, so that all stop at the same step."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return alarmed
    device = torch.device("cuda") if torch.distributed.get_backend() == "nccl" else torch.device("cpu")
    flag = torch.tensor([float(alarmed)], device=device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return bool(flag.item())
