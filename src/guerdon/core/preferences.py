"""Preference pairs: two answers to one prompt of which one is preferred, read from every layout in use and checked."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from guerdon.core.data import find_source, read_rows
from guerdon.core.errors import GuerdonError

Message = dict[str, Any]
"""``{"role": "system" | "user" | "assistant" | "tool", "content": str | list of parts}``."""
Side = Literal["chosen", "rejected"]

ROLES = ("system", "user", "assistant", "tool")
_SPEAKERS = {"human": "user", "gpt": "assistant", "bot": "assistant", "from": "user"}
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ ]?")
# Pairs of columns that rate the two answers, in public data sets.
_SCORES = (("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"), ("chosen-rating", "rejected-rating"))


@dataclass(frozen=True)
class Pair:
    """One comparison. ``prompt`` may be empty; the answers end with an assistant's turn.

    images:     PIL images that the prompt shows, in order.
    margin:     how much better the chosen answer is, in the reward's units; None where the data do not say.
    smoothing:  probability in [0, 1] that the label is wrong; 0.5 is a tie; None where the data do not say.
    row:        the other columns of its row. where: ``file:row``.
    """

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    images: tuple[Any, ...] = ()
    margin: float | None = None
    smoothing: float | None = None
    row: dict[str, Any] = field(default_factory=dict)
    where: str = ""

    def conversation(self, side: Side) -> list[Message]:
        """Prompt and answer as one list of messages."""
        return [*self.prompt, *(self.chosen if side == "chosen" else self.rejected)]

    def swapped(self) -> Pair:
        """The same comparison with the label turned round, and with it margin and columns.

        Columns named alike but for "chosen" and "rejected" change places; "truth" and "mean preference difference"
        change sign, "GPT4 label" (1 = the chosen answer) its side.
        """
        margin = None if self.margin is None else -self.margin
        return replace(self, chosen=self.rejected, rejected=self.chosen, margin=margin, row=_turned(self.row))

    def to_row(self) -> dict[str, Any]:
        """TRL's columns: prompt, chosen, rejected (messages), margin where there is one, and the other columns."""
        known: dict[str, Any] = {"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected}
        known |= {} if self.margin is None else {"margin": self.margin}
        known |= {} if self.smoothing is None else {"label_smoothing": self.smoothing}
        return {**self.row, **known}


def _turned(row: dict[str, Any]) -> dict[str, Any]:
    turned = dict(row)
    for name in row:
        if "chosen" in name and (other := name.replace("chosen", "rejected")) in row:
            turned[name], turned[other] = row[other], row[name]
    for name in ("truth", "mean preference difference"):
        if isinstance(row.get(name), int | float):
            turned[name] = -row[name]
    if row.get("GPT4 label") in (0, 1):
        turned["GPT4 label"] = 1 - row["GPT4 label"]
    return turned


def split_by_prompt(pairs: Sequence[Pair], share: float, *, seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """(train, test): a random ``share`` of the prompts, at least one, with all their pairs in the test; both in order.

    Answers to one prompt are alike, so a split by pair would test on what was trained on. A pair without a prompt
    stands for itself. Raises GuerdonError where one side would be left without a prompt.
    """
    keys = [prompt_key(pair) or f"row {row}" for row, pair in enumerate(pairs)]
    names = sorted(set(keys))
    held = max(1, round(share * len(names)))
    if held >= len(names):
        raise GuerdonError(f"a share of {share} leaves no prompt of {len(names)} to train on; give held-out pairs")
    test = {names[place] for place in np.random.default_rng(seed).permutation(len(names))[:held]}
    return (
        [pair for key, pair in zip(keys, pairs) if key not in test],
        [pair for key, pair in zip(keys, pairs) if key in test],
    )


def prompt_key(pair: Pair) -> str:
    """What pairs of one prompt, pictures included, have in common; "" where there is no prompt at all."""
    if not pair.prompt and not pair.images:
        return ""
    told = json.dumps(pair.prompt, sort_keys=True, ensure_ascii=False, default=str)
    shown = [hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in pair.images if hasattr(image, "tobytes")]
    return " ".join([told, *shown])


def text_of(messages: Sequence[Message] | str) -> str:
    """The text of messages, without roles, a line between two of them; parts that are no text are left out."""
    if isinstance(messages, str):
        return messages
    return "\n".join(_content(message) for message in messages)


def _content(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content or () if isinstance(part, dict))


def as_messages(value: Any, role: str = "user") -> list[Message]:
    """Messages of a string (with ``\\n\\nHuman:`` turns, or one turn of ``role``) or of a list in either usual form.

    Raises ValueError saying what is wrong.
    """
    if isinstance(value, str):
        return _turns(value) if value.lstrip().startswith("Human:") else [{"role": role, "content": value}]
    if not isinstance(value, list | tuple):
        raise ValueError(f"is {type(value).__name__}, neither text nor messages")
    return [_message(item) for item in value]


def _message(item: Any) -> Message:
    if not isinstance(item, dict):
        raise ValueError(f"holds {type(item).__name__} where a message belongs")
    if "from" in item and "value" in item:
        item = {"role": item["from"], "content": item["value"]}
    role, content = _SPEAKERS.get(item.get("role", ""), item.get("role")), item.get("content")
    if role not in ROLES:
        raise ValueError(f"holds a message of role {role!r}; roles: {', '.join(ROLES)}")
    if not isinstance(content, str | list):
        raise ValueError(f"holds a message of {role} without content")
    return {"role": role, "content": content}


def _turns(text: str) -> list[Message]:
    """Turns of the hh-rlhf layout, ``\\n\\nHuman: ...\\n\\nAssistant: ...``."""
    pieces = _TURN.split(text.strip())[1:]
    speakers = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": speakers[name], "content": said.strip()} for name, said in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def load_pairs(
    path: str | Path,
    *,
    skip_bad_rows: bool = False,
    limit: int | None = None,
    out: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    per_prompt: int = 1,
) -> list[Pair]:
    """Preference pairs from a file or a data set on the hub, in any of these layouts, told apart by their columns:

    chosen, rejected (+ prompt)      text or messages; without a prompt it is the beginning that both share; text with
                                     ``\\n\\nHuman:`` turns is read as messages (hh-rlhf)
    conversations_a, conversations_b (+ image)   turns ``{"from", "value"}``, the first preferred (IXC-2.5-Reward)
    prompt, response_a, response_b, p_b          p_b = probability that b is preferred: a soft label
    prompt, completion, label        rated answers; right and wrong ones of a prompt become pairs, ``per_prompt`` each

    Beside them: ``images`` or ``image`` (files beside the data, or bytes), ``margin``, ``label_smoothing``.

    columns:  name here -> name in the file, where they differ.

    Raises GuerdonError naming together all rows that cannot be used: an empty answer, equal answers, an answer that
    does not end with the assistant, a prompt that does; and one for missing or swapped columns. Arguments beside these
    are those of `guerdon.core.data.load_rows`.
    """
    source = find_source(path, split)
    names = dict(columns or {})
    layout = _layout(source, names)
    folder = Path(path).parent if Path(path).exists() else None
    found: dict[int, Pair] = {}

    def named(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, **{ours: row[theirs] for ours, theirs in names.items() if theirs in row}}

    def check(row: dict[str, Any]) -> str | None:
        try:
            made = layout.read(named(row))
            if isinstance(made, Pair):
                found[id(row)] = _with_images(made, named(row), folder)
        except (ValueError, OSError) as error:
            return str(error)
        return None

    required = [names.get(name, name) for name in layout.required]
    rows = read_rows(
        source, required=required, skip_bad_rows=skip_bad_rows, limit=limit, out=out, check=check, every_column=True
    )
    if layout is _RATED:
        return _of_rated([(where, named(row)) for where, row in rows], per_prompt, str(path))
    _check_not_swapped(str(path), [named(row) for _, row in rows])
    return [replace(found[id(row)], where=where) for where, row in rows]


@dataclass(frozen=True)
class _Layout:
    required: tuple[str, ...]
    read: Callable[[dict[str, Any]], Any]


def _layout(source: Any, names: Mapping[str, str]) -> _Layout:
    """The layout whose columns the source has; the first where it has none, whose error then names what is missing."""
    columns = set(source.columns)
    if not columns:
        first = next((row for row in source.rows(()) if isinstance(row, tuple)), None)
        columns = set(first[1]) if first is not None else set()
    columns |= {ours for ours, theirs in names.items() if theirs in columns}
    return next((layout for layout in _LAYOUTS if columns.issuperset(layout.required)), _LAYOUTS[0])


def _read_pair(row: dict[str, Any]) -> Pair:
    sides = {}
    given = row.get("prompt")
    for name in ("chosen", "rejected"):
        try:
            sides[name] = as_messages(row[name], "assistant")
        except ValueError as error:
            raise ValueError(f"column {name!r} {error}") from None
    chosen, rejected = sides["chosen"], sides["rejected"]
    if given:
        try:
            prompt = as_messages(given, "user")
        except ValueError as error:
            raise ValueError(f"column 'prompt' {error}") from None
        # Some data sets repeat the prompt in the answers (UltraFeedback's messages).
        if chosen[: len(prompt)] == prompt and rejected[: len(prompt)] == prompt:
            chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    else:
        shared = len(list(takewhile(lambda two: two[0] == two[1], zip(chosen, rejected))))
        shared = min(shared, len(chosen) - 1, len(rejected) - 1)
        prompt, chosen, rejected = chosen[: max(shared, 0)], chosen[max(shared, 0) :], rejected[max(shared, 0) :]
    return _checked(Pair(prompt, chosen, rejected, row=_others(row)), row)


def _read_turns(row: dict[str, Any]) -> Pair:
    return _read_pair({**row, "chosen": row["conversations_a"], "rejected": row["conversations_b"], "prompt": None})


def _read_soft(row: dict[str, Any]) -> Pair:
    p = row["p_b"]
    if not isinstance(p, int | float) or isinstance(p, bool) or not 0 <= p <= 1:
        raise ValueError(f"column 'p_b' must be a probability, got {p!r}")
    better, worse = ("response_b", "response_a") if p > 0.5 else ("response_a", "response_b")
    made = _read_pair({**row, "chosen": row[better], "rejected": row[worse]})
    return replace(made, smoothing=min(float(p), 1 - float(p)))


def _read_rated(row: dict[str, Any]) -> None:
    if row["label"] not in (True, False, 0, 1):
        raise ValueError(f"column 'label' must be true or false, got {row['label']!r}")
    as_messages(row["completion"], "assistant")


def _checked(pair: Pair, row: dict[str, Any]) -> Pair:
    for name, answer in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        if not answer or not text_of(answer).strip():
            raise ValueError(f"column {name!r} holds an empty answer")
        if answer[-1]["role"] != "assistant":
            raise ValueError(f"column {name!r} ends with the {answer[-1]['role']}'s turn, not with the assistant's")
    if pair.prompt and pair.prompt[-1]["role"] == "assistant":
        raise ValueError("the prompt ends with the assistant's turn; are 'prompt' and 'chosen' swapped?")
    if pair.chosen == pair.rejected:
        raise ValueError("chosen and rejected are equal")
    margin, smoothing = row.get("margin"), row.get("label_smoothing")
    for name, value in (("margin", margin), ("label_smoothing", smoothing)):
        if value is not None and (not isinstance(value, int | float) or value != value or abs(value) == float("inf")):
            raise ValueError(f"column {name!r} must be a number, got {value!r}")
    if smoothing is not None and not 0 <= smoothing <= 1:
        raise ValueError(f"column 'label_smoothing' must lie in [0, 1], got {smoothing!r}")
    return replace(
        pair,
        margin=None if margin is None else float(margin),
        smoothing=None if smoothing is None else float(smoothing),
    )


def _others(row: dict[str, Any]) -> dict[str, Any]:
    taken = {"prompt", "chosen", "rejected", "margin", "label_smoothing", "images", "image"}
    taken |= {"conversations_a", "conversations_b", "response_a", "response_b"}
    return {name: value for name, value in row.items() if name not in taken}


def _with_images(pair: Pair, row: dict[str, Any], folder: Path | None) -> Pair:
    given = row.get("images", row.get("image"))
    if not given:
        return pair
    listed = given if isinstance(given, list | tuple) else [given]
    return replace(pair, images=tuple(_picture(item, folder) for item in listed))


def _picture(item: Any, folder: Path | None) -> Any:
    from PIL import Image

    if isinstance(item, Image.Image):
        return item
    if isinstance(item, dict):
        item = item.get("bytes") or item.get("path")
    if isinstance(item, bytes):
        opened = Image.open(io.BytesIO(item))
    elif isinstance(item, str) and folder is not None:
        path = folder / item
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"image {item!r} lies outside the folder of the data")
        if not path.is_file():
            raise ValueError(f"there is no image {item!r} beside the data")
        opened = Image.open(path)
    else:
        raise ValueError(f"an image is a file beside the data or its bytes, not {type(item).__name__}")
    try:
        return opened.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"an image does not decode ({error})") from None


def _check_not_swapped(name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Refuse data whose own ratings say, more often than not, that the rejected answer is the better one."""
    listed = list(rows)
    for high, low in _SCORES:
        rated = [(row[high], row[low]) for row in listed if _is_number(row.get(high)) and _is_number(row.get(low))]
        wrong = sum(first < second for first, second in rated)
        if wrong * 2 > len(rated):
            told = f"{low!r} exceeds {high!r} in {wrong} of {len(rated)} rows"
            raise GuerdonError(f"{name}: {told}; 'chosen' and 'rejected' look swapped")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _of_rated(rows: Sequence[tuple[str, dict[str, Any]]], per_prompt: int, name: str) -> list[Pair]:
    """Pairs of a right and a wrong answer to the same prompt, the k-th right one with the k-th wrong one."""
    groups: dict[str, tuple[list[Any], list[Any]]] = {}
    for where, row in rows:
        prompt = text_of(as_messages(row["prompt"], "user"))
        groups.setdefault(prompt, ([], []))[0 if row["label"] else 1].append((where, row))
    pairs = []
    for right, wrong in groups.values():
        for (where, good), (other, bad) in list(zip(right, wrong))[:per_prompt]:
            both = {"prompt": good["prompt"], "chosen": good["completion"], "rejected": bad["completion"]}
            try:
                pairs.append(replace(_read_pair(both), row=_others(good), where=f"{where} and {other}"))
            except ValueError:
                continue  # the same words rated right and wrong say nothing
    if not pairs:
        raise GuerdonError(f"{name}: no prompt has both a right and a wrong answer, so there is nothing to compare")
    return pairs


_RATED = _Layout(("prompt", "completion", "label"), _read_rated)
_LAYOUTS = (
    _Layout(("chosen", "rejected"), _read_pair),
    _Layout(("conversations_a", "conversations_b"), _read_turns),
    _Layout(("prompt", "response_a", "response_b", "p_b"), _read_soft),
    _RATED,
)
