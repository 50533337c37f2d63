"""Rewards without labels: an answer is right when others agree with it - its own group, another view, or a teacher.

All are groupwise: an outcome depends on the other completions of the call. Answers are compared by value
(`same_answer`), since by characters "1/2" and "0.5" are two parties of a vote.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash
from guerdon.core.outcome import Failed
from guerdon.core.preferences import as_messages, text_of
from guerdon.metrics.majority_vote import Tie, Vote, majority_vote
from guerdon.rewards.text.final_answer import same_answer, stated_answer, verify_answer

__all__ = ["CrossViewReward", "Elected", "MajorityVoteReward", "PeerVoteReward", "Reads", "final_text"]

Reads = Literal["stated", "boxed"]
Compares = Literal["value", "text"]
Outcomes = list[float | None | Failed]


@dataclass(frozen=True)
class Elected:
    """One label of a call: ``group`` it was given to, the ``vote`` behind it, and whether it is ``right`` (None: no
    gold solution, or one that cannot be compared). ``agrees``: whether the group's own vote is the same, None where
    either is empty."""

    group: Hashable
    vote: Vote
    right: bool | None = None
    agrees: bool | None = None


def final_text(response: str, reads: Reads = "stated") -> str:
    """The final answer of a response as it is written, "" where it states none.

    reads: "stated" any form that `stated_answer` knows; "boxed" only a last ``\\boxed{...}``, as in the paper.
    """
    stated = stated_answer(response)
    return "" if stated is None or (reads == "boxed" and stated.kind != "boxed") else stated.text


class _Agreement:
    """What the agreement rewards share: reading answers, voting, comparing, and telling what was elected.

    reads:      "stated" | "boxed" (`final_text`).
    compares:   "value" by `same_answer`; "text" character by character, as the paper's code does.
    tie, min_share:  of `majority_vote`; the paper's are "first" and 0.

    ``elected`` holds the labels of the last call, for `trainers.self_reward_monitor`. Where the trainer passes TRL's
    ``log_metric``, the mean vote share, entropy and (given a column ``solution``) label accuracy are logged through it;
    the solution is never used for the reward.
    """

    groupwise = True
    range = (0.0, 1.0)
    on_failure = "drop_sample"
    version = "1"

    def __init__(
        self,
        name: str,
        *,
        reads: Reads = "stated",
        compares: Compares = "value",
        tie: Tie = "first",
        min_share: float = 0.0,
    ) -> None:
        if reads not in get_args(Reads):
            raise unknown("way to read answers", reads, get_args(Reads))
        if compares not in get_args(Compares):
            raise unknown("way to compare answers", compares, get_args(Compares))
        majority_vote([], tie=tie, min_share=min_share)  # raises for what it does not know
        self.__name__ = name
        self.config: dict[str, Any] = {"reads": reads, "compares": compares, "tie": tie, "min_share": min_share}
        self.elected: list[Elected] = []

    def identity(self) -> str:
        """Name, version and a hash of the configuration."""
        return f"{self.__name__}@{self.version}#{config_hash(self.config)}"

    def _answers(self, completions: Sequence[Any]) -> list[str]:
        return [final_text(completion_text(one), self.config["reads"]) for one in completions]

    def _vote(self, answers: Sequence[str]) -> Vote:
        equal = same_answer if self.config["compares"] == "value" else None
        return majority_vote(answers, equal=equal, tie=self.config["tie"], min_share=self.config["min_share"])

    def _same(self, answer: str, label: str) -> bool:
        if not answer.strip() or not label:
            return False
        return same_answer(answer, label) if self.config["compares"] == "value" else answer.strip() == label

    def _tell(self, elected: list[Elected], log_metric: Any) -> None:
        self.elected = elected
        if not callable(log_metric) or not elected:
            return
        log_metric(f"{self.__name__}/vote_share", float(np.mean([one.vote.share for one in elected])))
        log_metric(f"{self.__name__}/vote_entropy", float(np.mean([one.vote.entropy for one in elected])))
        for name, known in (
            ("label_accuracy", [one.right for one in elected if one.right is not None]),
            ("views_agree", [one.agrees for one in elected if one.agrees is not None]),
        ):
            if known:
                log_metric(f"{self.__name__}/{name}", float(np.mean(known)))

    def _column(self, column: Any, count: int, name: str) -> Sequence[Any]:
        if column is None or isinstance(column, str) or len(column) != count:
            raise GuerdonError(f"reward {self.__name__!r} needs the column {name!r}, one entry a completion")
        return column


class MajorityVoteReward(_Agreement):
    """1.0 where a completion gives the majority answer of its own group, else 0.0: the self-voting baseline (TTRL).

    The group is the column ``group_ids`` where it is given, else all completions of the same prompt. A group without
    any readable answer gets 0.0, as in the paper. Arguments of `_Agreement`.
    Source: Co-Reward (arXiv 2508.00410), baseline "Majority-Voting".
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__("majority_vote", **settings)

    def __call__(
        self, prompts: Any, completions: Sequence[Any], *, group_ids: Any = None, solution: Any = None, **columns: Any
    ) -> Outcomes:
        """One outcome a completion; raises GuerdonError for columns of another length."""
        count = len(completions)
        keys: list[Hashable] = (
            [_key(one) for one in self._column(prompts, count, "prompt")]
            if group_ids is None
            else [_key(one) for one in self._column(group_ids, count, "group_ids")]
        )
        answers, elected = self._answers(completions), []
        found: Outcomes = [0.0] * count
        for key, rows in _rows_of(keys).items():
            vote = self._vote([answers[row] for row in rows])
            elected.append(Elected(key, vote, _right(vote.label, solution, rows[0])))
            for row in rows:
                found[row] = float(self._same(answers[row], vote.label))
        self._tell(elected, columns.get("log_metric"))
        return found


class CrossViewReward(_Agreement):
    """1.0 where a completion gives the answer that the *other* views of its question elected, else 0.0.

    A question is asked in two (or more) wordings. Rows with one ``pair`` are views of one question, told apart by
    ``view``; the label of a view is the vote over the answers to all other views, so that no view grades itself. Rows
    are matched by these ids, never by their place. A row whose other views are not in the call is
    Failed("incomplete"): keep them together with `trainers.paired_views`; under `core.Scorer` give the pair ids as
    ``group_ids`` too. Advantages are to be taken for each view on its own (its prompt's group), never over both.

    pair_ids, view_ids: names of the columns. Further arguments of `_Agreement`; the paper's own are reads="boxed",
    compares="text". Deviation: answers are compared by value, and any stated answer is read, not only a boxed one.
    Source: Co-Reward (arXiv 2508.00410), eq. 6-8. With more than two views: ours (UNVERIFIED).
    """

    def __init__(self, *, pair_ids: str = "pair", view_ids: str = "view", **settings: Any) -> None:
        super().__init__("cross_view", **settings)
        self.config |= {"pair_ids": pair_ids, "view_ids": view_ids}

    def __call__(self, prompts: Any, completions: Sequence[Any], *, solution: Any = None, **columns: Any) -> Outcomes:
        """One outcome a completion; raises GuerdonError without the columns of pair and view."""
        count = len(completions)
        pairs, views = (
            [_key(one) for one in self._column(columns.get(self.config[name]), count, self.config[name])]
            for name in ("pair_ids", "view_ids")
        )
        answers, elected = self._answers(completions), []
        found: Outcomes = [0.0] * count
        for pair, rows in _rows_of(pairs).items():
            by_view = _rows_of([views[row] for row in rows])
            for view, places in by_view.items():
                own = [rows[place] for place in places]
                others = [row for row in rows if views[row] != view]
                if not others:
                    cause = f"pair {pair!r}: only view {view!r} is in this call, so nothing can label it"
                    for row in own:
                        found[row] = Failed(cause, "incomplete")
                    continue
                vote = self._vote([answers[row] for row in others])
                mine = self._vote([answers[row] for row in own])
                agrees = self._same(mine.label, vote.label) if mine.label and vote.label else None
                elected.append(Elected((pair, view), vote, _right(vote.label, solution, own[0]), agrees))
                for row in own:
                    found[row] = float(self._same(answers[row], vote.label))
        self._tell(elected, columns.get("log_metric"))
        return found


class PeerVoteReward(_Agreement):
    """1.0 where a completion gives the answer that a peer's samples for the same prompt elected, else 0.0.

    peer: ``peer(prompts) -> list of list of str``: several responses to each distinct prompt, from a slowly moving
    teacher (`trainers.ema_teacher`) or from another model; a ``Failed`` in place of a list fails that prompt's rows.
    Asked once a call for each distinct prompt. Source: the teacher's form of Co-rewarding (arXiv 2508.00410 v2, "II").
    """

    def __init__(self, peer: Callable[[list[Any]], Sequence[Sequence[str] | Failed]], **settings: Any) -> None:
        super().__init__("peer_vote", **settings)
        self.peer = peer

    def __call__(self, prompts: Any, completions: Sequence[Any], *, solution: Any = None, **columns: Any) -> Outcomes:
        """One outcome a completion; raises GuerdonError where the peer answers another number of prompts."""
        count = len(completions)
        groups = _rows_of([_key(one) for one in self._column(prompts, count, "prompt")])
        said = self.peer([prompts[rows[0]] for rows in groups.values()])
        if len(said) != len(groups):
            raise GuerdonError(f"reward {self.__name__!r}: the peer answered {len(said)} of {len(groups)} prompts")
        answers, elected = self._answers(completions), []
        found: Outcomes = [0.0] * count
        for (key, rows), responses in zip(groups.items(), said, strict=True):
            if isinstance(responses, Failed):
                for row in rows:
                    found[row] = responses
                continue
            vote = self._vote(self._answers(responses))
            elected.append(Elected(key, vote, _right(vote.label, solution, rows[0])))
            for row in rows:
                found[row] = float(self._same(answers[row], vote.label))
        self._tell(elected, columns.get("log_metric"))
        return found


def _rows_of(keys: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    """Rows of each key, in order of appearance."""
    groups: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    return groups


def _key(value: Any) -> Hashable:
    if isinstance(value, str | int | float | type(None)):
        return value
    if isinstance(value, list | tuple | dict):
        return text_of(as_messages(value, "user"))
    return value.item() if hasattr(value, "item") else str(value)


def _right(label: str, solution: Any, row: int) -> bool | None:
    if solution is None or isinstance(solution, str) or row >= len(solution) or solution[row] is None:
        return None
    if not label:
        return False
    try:
        return verify_answer(label, str(solution[row])).correct
    except GuerdonError:
        return None
