"""Whoever is judged by a benchmark or an audit: a reward model, a reward function, a judge, or a file of scores."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from guerdon.core.catalogue import load_reward
from guerdon.core.config import parse_scalar
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash
from guerdon.core.identity import identity as identity_of
from guerdon.core.preferences import Message, text_of
from guerdon.core.progress import progress as progress_bar
from guerdon.core.scorer import Scorer
from guerdon.rewards.outcomes import DOES_NOT_APPLY, Outcomes, problem_kind, problem_of

__all__ = [
    "SUBJECT_MODES",
    "JudgeSubject",
    "Mode",
    "Outcomes",
    "RewardSubject",
    "ScalarSubject",
    "Subject",
    "answer_start",
    "load_subject",
    "problem_kind",
    "subject_of_spec",
]

Mode = Literal["score", "rate", "rank"]
Form = Literal["auto", "text", "messages"]
Columns = Mapping[str, Sequence[Any]]
SUBJECT_MODES: tuple[Mode, ...] = ("score", "rate", "rank")
KEY_VARIABLE = "GUERDON_JUDGE_API_KEY"


class Subject(Protocol):
    """Anything that can be judged.

    name:      for people. identity: name@version#hash; equal identities give equal scores.
    modes:     "score" (any scalar, or a verifier's value in [0, 1]), "rate" (a judge that rates one answer at a time),
               "rank" (a judge that is shown several answers and names the best).

    Optional, with "rank" in ``modes``: ``rank(prompts, answers, *, columns, progress) -> Outcomes``, the index of the
    best answer to each prompt, shown in the order given. Optional: ``rows_at_once``, how many rows a caller that keeps
    results should put into one call.
    """

    name: str
    identity: str
    modes: frozenset[str]

    def score(
        self,
        conversations: Sequence[list[Message]],
        *,
        columns: Columns | None = None,
        progress: str | None = None,
    ) -> Outcomes:
        """One value a conversation, whose last turns are the answer; ``columns`` have one entry a conversation."""
        ...


class ScalarSubject:
    """A model with ``score(conversations, ...) -> [N]``: a reward model, an ensemble, a baseline.

    The column ``images`` holds the pictures of each conversation. A conversation that the model cannot read (too long
    with too_long="fail", a system prompt it refuses) is that row's failure.
    """

    modes: frozenset[str] = frozenset({"score"})
    rows_at_once = 512

    def __init__(self, model: Any, *, name: str | None = None) -> None:
        if not callable(getattr(model, "score", None)):
            raise GuerdonError(f"{type(model).__name__} has no score(conversations), so it is no scalar model")
        self.model = model
        self.name = name or str(getattr(model, "name", type(model).__name__))
        own = getattr(model, "identity", None)
        self.identity = str(own()) if callable(own) else identity_of(model)

    def score(
        self, conversations: Sequence[list[Message]], *, columns: Columns | None = None, progress: str | None = None
    ) -> Outcomes:
        """See `Subject`."""
        if not conversations:
            return Outcomes(np.zeros(0))
        shown = (columns or {}).get("images")
        options: dict[str, Any] = {} if progress is None else {"progress": progress}
        if shown is not None and any(shown):
            options["images"] = shown
        if not hasattr(self.model, "encode") or not hasattr(self.model, "score_encoded"):
            return self._checked(self.model.score(conversations, **options), len(conversations))
        try:
            return self._checked(self.model.score(conversations, **options), len(conversations))
        except (GuerdonError, ValueError):
            return self._one_by_one(conversations, shown, options)

    def _one_by_one(self, conversations: Sequence[Any], shown: Any, options: dict[str, Any]) -> Outcomes:
        encoded: list[Any] = []
        failures: dict[int, str] = {}
        for row, conversation in enumerate(conversations):
            try:
                encoded.append(self.model.encode(conversation, shown[row] if shown is not None else ()))
            except (GuerdonError, ValueError) as error:
                failures[row] = f"failed: {error}"
        bar = {key: value for key, value in options.items() if key == "progress"}
        values = np.full(len(conversations), np.nan)
        kept = [row for row in range(len(conversations)) if row not in failures]
        if kept:
            values[kept] = np.asarray(self.model.score_encoded(encoded, **bar), dtype=np.float64)
        return Outcomes(values, failures)

    def _checked(self, scores: Any, rows: int) -> Outcomes:
        values = np.asarray(scores, dtype=np.float64)
        if values.shape != (rows,):
            raise GuerdonError(f"{self.name} gave scores of shape {list(values.shape)} for {rows} conversations")
        return Outcomes(values)


class RewardSubject:
    """A reward by the contract ``reward(prompts, completions, **columns)``, asked through `Scorer`; also a verifier.

    form:      in which of TRL's two forms the reward sees a conversation: "text" (prompt and answer as strings),
               "messages", or "auto": text where it is one turn of the user and one of the assistant, in words alone.
    deadline:  seconds that a sample may take, in a process of its own.

    A row that fails is counted, and never stops the others: there is no ceiling on the failure rate here.
    """

    modes: frozenset[str] = frozenset({"score"})
    rows_at_once = 512

    def __init__(
        self, reward: Any, *, name: str | None = None, form: Form = "auto", deadline: float | None = None
    ) -> None:
        if form not in ("auto", "text", "messages"):
            raise unknown("form", form, ("auto", "text", "messages"))
        self.scorer = Scorer(reward, on_failure="drop_sample", deadline=deadline, max_failure_rate=1.0)
        self.name, self.form = name or self.scorer.name, form
        self.identity = self.scorer.identity() + ("" if form == "auto" else f"+{form}")

    def score(
        self, conversations: Sequence[list[Message]], *, columns: Columns | None = None, progress: str | None = None
    ) -> Outcomes:
        """See `Subject`. Raises GuerdonError for a column that the reward needs and the data lack."""
        if not conversations:
            return Outcomes(np.zeros(0))
        shown = [self._shown(conversation) for conversation in conversations]
        prompts, completions = [list(side) for side in zip(*shown, strict=True)]
        given = {key: list(value) for key, value in (columns or {}).items() if key not in ("prompts", "completions")}
        found = self.scorer.score(prompts, completions, **given)
        problems = {row: problem_of(failure) for row, failure in found.failures.items()}
        for row in map(int, np.flatnonzero(~found.valid)):
            problems.setdefault(row, DOES_NOT_APPLY)
        return Outcomes(found.values, problems)

    def _shown(self, conversation: list[Message]) -> tuple[Any, Any]:
        first = answer_start(conversation)
        prompt, answer = conversation[:first], conversation[first:]
        plain = (
            [turn.get("role") for turn in conversation] == ["user", "assistant"]
            and all(isinstance(turn.get("content"), str) for turn in conversation)
        )  # fmt: skip
        if self.form == "messages" or self.form == "auto" and not plain:
            return prompt, answer
        return text_of(prompt), text_of(answer)


class JudgeSubject:
    """A chat model that is asked to rate answers or to name the best of several.

    chat:     any `models.chat.Chat`. mode: "rate" or "rank", which is then all that ``modes`` holds; a judge that
              ranks can still be asked to rate, for questions with several right answers.
    workers:  requests at a time; more than one needs a chat that is safe to share, as an endpoint is.
    options:  of `models.rating_judge.RatingJudge`.
    """

    def __init__(
        self, chat: Any, *, mode: Literal["rate", "rank"] = "rate", workers: int = 1, name: str | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        from guerdon.models.rating_judge import RatingJudge

        if mode not in ("rate", "rank"):
            raise unknown("mode of a judge", mode, ("rate", "rank"))
        if workers < 1:
            raise GuerdonError(f"workers must be at least 1, got {workers}")
        self.judge, self.workers = RatingJudge(chat, **options), workers
        self.name = name or self.judge.name
        self.modes: frozenset[str] = frozenset({mode})
        self.identity = f"{self.name}@1#{config_hash({'judge': self.judge.identity(), 'mode': mode})}"
        self.rows_at_once = 4 * workers

    def score(
        self, conversations: Sequence[list[Message]], *, columns: Columns | None = None, progress: str | None = None
    ) -> Outcomes:
        """Ratings from 1 to 10; see `Subject`. Where the column ``many_right`` is true, the question says so."""
        many = list((columns or {}).get("many_right", [False] * len(conversations)))
        asked = [(conversation, bool(right)) for conversation, right in zip(conversations, many, strict=True)]
        return self._ask(lambda one: self.judge.rate(one[0], many_right=one[1]), asked, progress)

    def rank(
        self, prompts: Sequence[list[Message]], answers: Sequence[Sequence[Any]], *, columns: Columns | None = None,
        progress: str | None = None,
    ) -> Outcomes:  # fmt: skip
        """Index of the best answer to each prompt; they are shown in the order given."""
        asked = list(zip(prompts, answers, strict=True))
        return self._ask(lambda one: self.judge.choose(one[0], one[1]), asked, progress)

    def _ask(self, question: Any, asked: list[Any], progress: str | None) -> Outcomes:
        replies: list[Any] = []
        with ThreadPoolExecutor(self.workers) as pool:
            found = pool.map(question, asked) if self.workers > 1 else map(question, asked)
            for reply in progress_bar(found, progress, total=len(asked)) if progress is not None else found:
                replies.append(reply)
        details = {row: {"reply": reply.text} for row, reply in enumerate(replies) if reply.text}
        return Outcomes.of([reply.value for reply in replies], details)


def answer_start(conversation: Sequence[Message]) -> int:
    """Where the answer begins: after the last turn that is not the assistant's."""
    first = len(conversation)
    while first and conversation[first - 1].get("role") == "assistant":
        first -= 1
    return first


def load_subject(
    *,
    model: str | None = None,
    reward: str | None = None,
    scores: str | None = None,
    judge_model: str | None = None,
    settings: Sequence[str] = (),
    mode: str | None = None,
) -> Subject:
    """The subject that a command line names by exactly one of ``model``, ``reward`` and ``scores``.

    model:        folder or hub id of a reward model (ours or a published one) or of a causal language model, which is
                  then asked as a judge; or the URL of an OpenAI-style endpoint, whose model ``judge_model`` names (its
                  key in the environment variable GUERDON_JUDGE_API_KEY).
    reward:       a name of the catalogue, "module:function" or "file.py:function".
    scores:       a file of scores computed elsewhere (`rewards.score_file.ScoresFile`).
    settings:     "key=value" (or "NAME.key=value") each: of the reward, and its form and deadline; of
                  `rewards.model.load`; of a judge (temperature, max_tokens, workers, attempts, reading, explain).
    mode:         "score" insists on a reward model; "rate" or "rank" say how a judge is asked (default: rate).

    Raises GuerdonError saying what is named wrongly.
    """
    named = {"--model": model, "--reward": reward, "--scores": scores}
    given = [name for name, value in named.items() if value is not None]
    if len(given) != 1:
        raise GuerdonError(f"name what is judged by one of {', '.join(named)}; got {' and '.join(given) or 'none'}")
    if mode is not None and mode not in SUBJECT_MODES:
        raise unknown("mode", mode, SUBJECT_MODES)
    config = _config(settings)
    if mode in ("rate", "rank") and model is None:
        raise GuerdonError(f"{given[0]} gives scores; the mode {mode!r} is for judges, which --model names")
    if judge_model is not None and not (model or "").startswith(("http://", "https://")):
        raise GuerdonError("--judge-model names the model of an endpoint, so --model must be its URL")
    if scores is not None:
        from guerdon.rewards.score_file import ScoresFile

        if config:
            raise GuerdonError(f"a file of scores takes no settings, got {', '.join(config)}")
        return ScoresFile(scores)
    if reward is not None:
        asking = {key: config.pop(key) for key in ("form", "deadline") if key in config}
        return RewardSubject(load_reward(reward, **config), **asking)
    assert model is not None
    if model.startswith(("http://", "https://")):
        return _endpoint(model, judge_model, mode, config)
    return _local(model, mode, config)


def subject_of_spec(spec: str, *, settings: Sequence[str] = (), mode: str | None = None) -> Subject:
    """The subject of one word, for a second one to compare with: a URL (with "#MODEL" at its end), a file of scores, a
    model's folder or hub id, or else a reward. Raises GuerdonError as `load_subject`."""
    if spec.startswith(("http://", "https://")):
        address, _, name = spec.partition("#")
        return load_subject(model=address, judge_model=name or None, settings=settings, mode=mode)
    path = Path(spec)
    if path.is_file() and path.suffix.lower() in (".json", ".jsonl", ".parquet", ".gz", ".csv"):
        return load_subject(scores=spec, settings=settings, mode=mode)
    if path.is_dir() or "/" in spec and ":" not in spec:
        return load_subject(model=spec, settings=settings, mode=mode)
    return load_subject(reward=spec, settings=settings, mode=mode)


def _config(settings: Sequence[str]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise GuerdonError(f"--set {setting!r}: write it as key=value, for example max_length=16384")
        # The subject is one, so that its name before the key, which other commands need, says nothing here.
        config[key.strip().rpartition(".")[2]] = parse_scalar(value)
    return config


_JUDGING = ("temperature", "attempts", "reading", "explain")
_ENDPOINT = ("max_tokens", "timeout")


def _endpoint(url: str, name: str | None, mode: str | None, config: dict[str, Any]) -> Subject:
    from guerdon.models.chat import ChatEndpoint

    if name is None:
        raise GuerdonError(f"--model {url} is an endpoint: name its model with --judge-model")
    if mode == "score":
        raise GuerdonError(f"--model {url}: an endpoint is asked as a judge; its mode is rate or rank")
    _known(config, (*_JUDGING, *_ENDPOINT, "workers"))
    options = {"max_tokens": 2048, **{key: config.pop(key) for key in _ENDPOINT if key in config}}
    chat = ChatEndpoint(url, name, api_key=os.environ.get(KEY_VARIABLE), **options)
    return JudgeSubject(chat, mode=mode or "rate", **{"workers": 8, **config})  # type: ignore[arg-type]


def _local(path: str, mode: str | None, config: dict[str, Any]) -> Subject:
    from guerdon.models.scalar.formats import locate

    folder = locate(path)
    if mode in ("rate", "rank") or mode is None and not _has_reward_head(folder) and _writes(folder):
        from guerdon.models.chat import LocalChat

        _known(config, (*_JUDGING, "max_tokens", "device"))
        options = {"max_new_tokens": config.pop("max_tokens", 1024), "device": config.pop("device", None)}
        chat = LocalChat.from_pretrained(str(folder), **options)
        return JudgeSubject(chat, mode=mode or "rate", name=Path(path).name, **config)  # type: ignore[arg-type]
    made: Any = load_reward("reward_model", **{"path": str(folder), "name": Path(path).name, **config})
    return ScalarSubject(made.model, name=made.__name__)


def _known(config: Mapping[str, Any], keys: Sequence[str]) -> None:
    for key in config:
        if key not in keys:
            raise unknown("setting of a judge", key, keys)


def _has_reward_head(folder: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    from guerdon.models.scalar.formats import HEADS
    from guerdon.models.scalar.saved import SETTINGS

    if (folder / SETTINGS).is_file() or not (folder / "config.json").is_file():
        return True  # ours, or adapters; what is neither, the loader of reward models says
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="numpy") as weights:
                if any(name in HEADS for name in weights.keys()):  # noqa: SIM118 - it is no dictionary
                    return True
        except SafetensorError:
            return True
    return False


def _writes(folder: Path) -> bool:
    """Whether the folder says that its model writes text."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return any(name.endswith(("ForCausalLM", "ForConditionalGeneration")) for name in config.get("architectures") or ())
