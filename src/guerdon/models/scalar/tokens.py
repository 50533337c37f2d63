"""From a conversation to token ids: one BOS, no structure from user text, and nothing cut without being counted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.preferences import Message

TooLong = Literal["cut", "fail"]
SystemPrompt = Literal["allow", "refuse"]

PLAIN_TEMPLATE = (
    "{% for message in messages %}{% if not loop.first %}{{ '\n\n' }}{% endif %}{{ message['role'] | capitalize }}: "
    "{{ message['content'] }}{% endfor %}{% if add_generation_prompt %}{{ '\n\nAssistant: ' }}{% endif %}"
)
"""The template given to a backbone that has none: "User: ...", a blank line, "Assistant: ..."."""

LONGEST = 16384
"""Where neither tokenizer nor backbone says how long an input may be: the limit of Skywork-Reward-V2."""


@dataclass(frozen=True)
class Encoded:
    """A conversation as a reward model takes it.

    ids:        token ids, not padded.
    shared:     how many ids at the beginning stem from the prompt alone, and are the same for its other answers.
    truncated:  how many tokens were cut to keep within the limit.
    images:     the image processor's tensors (pixel_values, image_grid_thw, ...), None without pictures.
    """

    ids: list[int]
    shared: int = 0
    truncated: int = 0
    images: dict[str, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.ids)


def escape_specials(text: str, specials: Iterable[str]) -> str:
    """The text with every string of ``specials`` in it broken by a space after its first letter: ``< |im_end|>``.

    Broken, not removed, so that a text about special tokens keeps its meaning, and so that removing one cannot put
    another together. A special string of a single letter is removed.
    """
    pattern = _pattern(tuple(specials))
    while pattern is not None and pattern.search(text):
        text = pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}" if len(found[0]) > 1 else "", text)
    return text


def _pattern(specials: tuple[str, ...]) -> re.Pattern[str] | None:
    listed = sorted({special for special in specials if special}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, listed))) if listed else None


def special_strings(tokenizer: Any) -> tuple[str, ...]:
    """The strings that the tokenizer turns into control tokens; added words that are no control tokens are left out."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return tuple(sorted({*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)}))


def length_limit(tokenizer: Any, config: Any) -> int:
    """The longest input in tokens that tokenizer and backbone allow, at most ``LONGEST``."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    stated = (getattr(tokenizer, "model_max_length", None), getattr(text, "max_position_embeddings", None))
    # RoBERTa's table begins after the padding index; its config counts the rows that cannot be used.
    unused = 2 if getattr(text, "model_type", "") in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0
    usable = [int(n) - unused * (place == 1) for place, n in enumerate(stated) if n]
    return min([*usable, LONGEST])


_PLAIN = ("role", "content")


class Encoder:
    """Conversations to `Encoded`, the same way in training and in scoring.

    tokenizer:      any transformers tokenizer; with ``processor`` the processor's own.
    processor:      image and text processor of a vision-language model, None for a text model.
    max_length:     tokens. What is longer loses the beginning of its prompt (``too_long="cut"``: counted in
                    ``Encoded.truncated``) or is refused (``"fail"``: GuerdonError).
    reward_token:   appended to every conversation, to be pooled at.
    system_prompt:  "refuse" for models that were trained without (Skywork-Reward-V2 asks for none).
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int,
        processor: Any = None,
        reward_token: str | None = None,
        too_long: str = "cut",
        system_prompt: str = "allow",
    ) -> None:
        if too_long not in ("cut", "fail"):
            raise unknown("value of too_long", too_long, ("cut", "fail"))
        if system_prompt not in ("allow", "refuse"):
            raise unknown("value of system_prompt", system_prompt, ("allow", "refuse"))
        if max_length < 2:
            raise GuerdonError(f"max_length must be at least 2 tokens, got {max_length}")
        self.tokenizer, self.processor, self.max_length = tokenizer, processor, max_length
        self.reward_token, self.too_long, self.system_prompt = reward_token, too_long, system_prompt
        self.reward_id = None if reward_token is None else _token_id(tokenizer, reward_token)
        self.specials = (*special_strings(tokenizer), *([reward_token] if reward_token else []))
        self._pattern = _pattern(self.specials)
        opening = tokenizer("a")["input_ids"][:1]
        self._opens = bool(opening) and opening[0] in (tokenizer.bos_token_id, tokenizer.cls_token_id)
        self._prompt: tuple[str, list[int]] = ("", [])

    @property
    def pad_id(self) -> int:
        """An id to fill a batch up with. What is padding is never told from ids, so it may well be the eos."""
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return int(next(token for token in known if token is not None))

    def __call__(
        self, conversation: Sequence[Message] | str, images: Sequence[Any] = (), *, split: bool = False
    ) -> Encoded:
        """Messages through the chat template; a string, which is taken for rendered text, as it stands.

        split: find out where the answer begins (``shared``), which costs as much as the rest; else ``shared`` is 0.

        images: the PIL pictures that the conversation shows, in order; for placeholders ``{"type": "image"}`` without
        a picture of their own, or, where there are none, for the beginning of the first user turn.

        Raises GuerdonError for an empty conversation, no chat template, a system prompt that is refused, pictures that
        do not fit, and what is too long with ``too_long="fail"`` (with pictures always).
        """
        text, prompt, pictures = self._read(conversation, images, split)
        ids = self._tokenize([text])[0]
        return self._encoded(ids, self._shared(ids, prompt), text, pictures)

    def many(
        self, conversations: Sequence[Sequence[Message] | str], images: Sequence[Sequence[Any]] | None = None
    ) -> list[Encoded]:
        """What ``__call__`` gives for each conversation without ``split``, tokenised together; the same errors."""
        shown = images if images is not None else [()] * len(conversations)
        read = [self._read(one, pictures or (), False) for one, pictures in zip(conversations, shown, strict=True)]
        ids = self._tokenize([text for text, _, _ in read]) if read else []
        return [self._encoded(own, 0, text, pictures) for own, (text, _, pictures) in zip(ids, read, strict=True)]

    def _read(
        self, conversation: Sequence[Message] | str, images: Sequence[Any], split: bool
    ) -> tuple[str, str, list[Any]]:
        """Rendered text, its part that is the prompt ("" where nobody asks), and the pictures."""
        if isinstance(conversation, str):
            text, prompt, pictures = conversation, "", list(images)
        else:
            messages, pictures = self._messages(conversation, images)
            text, prompt = self._render(messages, split)
        if pictures and self.processor is None:
            raise GuerdonError("this reward model reads text only, but the conversation shows a picture")
        return text, prompt, pictures

    def _encoded(self, ids: list[int], shared: int, text: str, pictures: list[Any]) -> Encoded:
        tensors = None
        if pictures:
            tensors, expanded = self._look(text, pictures)
            # A placeholder is one token in the text and many beside the picture; all stand in the prompt, or none is
            # taken for shared.
            shared = shared + len(expanded) - len(ids) if self._all_shown(ids, shared, len(pictures)) else 0
            ids = expanded
        if self.reward_id is not None and ids[-1:] != [self.reward_id]:
            ids = [*ids, self.reward_id]
        if not ids:
            raise GuerdonError("a conversation without any text cannot be scored")
        return self._within(ids, shared, tensors)

    def _messages(self, conversation: Sequence[Message], images: Sequence[Any]) -> tuple[list[Message], list[Any]]:
        """The conversation with its texts made harmless and its pictures taken out, and these."""
        if not conversation:
            raise GuerdonError("a conversation without messages cannot be scored")
        if self.system_prompt == "refuse" and any(message.get("role") == "system" for message in conversation):
            raise GuerdonError("the conversation has a system prompt, and this reward model was trained without any")
        if not images and all(
            message.keys() == set(_PLAIN) and isinstance(message["content"], str) for message in conversation
        ):
            return [{key: self._harmless(str(message[key])) for key in _PLAIN} for message in conversation], []
        given, pictures = list(images), []
        shown = sum(_is_image(part) for message in conversation for part in _parts(message))
        messages = []
        for message in conversation:
            parts = []
            if given and not shown and message.get("role") == "user":
                parts, pictures, given = [{"type": "image"} for _ in given], given, []
            for part in _parts(message):
                if not _is_image(part):
                    parts.append({"type": "text", "text": self._harmless(str(part.get("text", "")))})
                    continue
                picture = part.get("image") if part.get("image") is not None else (given.pop(0) if given else None)
                if picture is None:
                    raise GuerdonError(f"the conversation shows {shown} pictures, but only {len(images)} are given")
                pictures.append(picture)
                parts.append({"type": "image"})
            content: Any = parts
            if not any(_is_image(part) for part in parts):
                content = "".join(part["text"] for part in parts)
            messages.append({**_harmless_rest(message, self._harmless), "content": content})
        if given:
            raise GuerdonError(
                f"{len(images)} pictures are given, of which the conversation does not show {len(given)}"
            )
        return messages, pictures

    def _harmless(self, text: str) -> str:
        return escape_specials(text, self.specials) if self._pattern and self._pattern.search(text) else text

    def _render(self, messages: list[Message], split: bool) -> tuple[str, str]:
        """The text of all messages, and the part of it that its prompt alone gives ("" where nobody asks)."""
        renderer = self.processor if self.processor is not None else self.tokenizer
        if not getattr(renderer, "chat_template", None):
            raise GuerdonError(
                "the tokenizer has no chat template, so messages cannot be scored as the model was trained; "
                "set tokenizer.chat_template, or score rendered text"
            )
        text = renderer.apply_chat_template(messages, tokenize=False)
        if not split:
            return text, ""
        asked = list(messages)
        while asked and asked[-1].get("role") == "assistant":
            asked.pop()
        if not asked:
            return text, ""
        prompt = renderer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        return text, os.path.commonprefix([text, prompt])

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        """Ids with one BOS: the template writes it as text, and then the tokenizer adds its own."""
        if self._opens and (bos := self.tokenizer.bos_token):
            texts = [text.removeprefix(bos) for text in texts]
        return [list(ids) for ids in self.tokenizer(texts, verbose=False)["input_ids"]]  # what is too long is counted

    def _shared(self, ids: list[int], prompt: str) -> int:
        if not prompt:
            return 0
        if prompt != self._prompt[0]:  # the two answers of a pair, and all of a best-of-n, follow one another
            self._prompt = (prompt, self._tokenize([prompt])[0])
        return len(os.path.commonprefix([ids, self._prompt[1]]))

    def _look(self, text: str, pictures: list[Any]) -> tuple[dict[str, Tensor], list[int]]:
        made = self.processor(text=[text], images=[picture.convert("RGB") for picture in pictures], return_tensors="pt")
        per_token = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
        return {name: value for name, value in made.items() if name not in per_token}, made["input_ids"][0].tolist()

    def _all_shown(self, ids: list[int], shared: int, count: int) -> bool:
        token = getattr(self.processor, "image_token", None)
        return token is not None and ids[:shared].count(self.tokenizer.convert_tokens_to_ids(token)) == count

    def _within(self, ids: list[int], shared: int, images: dict[str, Tensor] | None) -> Encoded:
        over = len(ids) - self.max_length
        if over <= 0:
            return Encoded(ids, shared, 0, images)
        if self.too_long == "fail" or images is not None:
            why = "" if images is None else "; one with pictures cannot be cut"
            raise GuerdonError(
                f"a conversation of {len(ids)} tokens is longer than the limit of {self.max_length}{why}"
            )
        # The answer is what is judged and the last turns matter most, so what is oldest goes; BOS stays.
        first = 1 if self._opens else 0
        return Encoded([*ids[:first], *ids[first + over :]], max(first, shared - over), over)


def collate(encoded: Sequence[Encoded], pad_id: int, *, side: str = "right") -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask`` [B, T] with padding on one ``side``, and the pictures of all rows."""
    longest = max(len(one) for one in encoded)
    ids = torch.full((len(encoded), longest), pad_id)
    mask = torch.zeros((len(encoded), longest), dtype=torch.long)
    for row, one in enumerate(encoded):
        place = slice(0, len(one)) if side == "right" else slice(longest - len(one), longest)
        ids[row, place] = torch.tensor(one.ids)
        mask[row, place] = 1
    pictures = [one.images for one in encoded if one.images]
    names = pictures[0] if pictures else {}
    return {"input_ids": ids, "attention_mask": mask} | {n: torch.cat([one[n] for one in pictures]) for n in names}


def _token_id(tokenizer: Any, token: str) -> int:
    found = tokenizer.convert_tokens_to_ids(token)
    if found is None or (found == tokenizer.unk_token_id and token != tokenizer.unk_token):
        raise GuerdonError(f"the tokenizer has no token {token!r}")
    return int(found)


def _parts(message: Message) -> list[dict[str, Any]]:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return [{"type": "text", "text": content or ""}]
    return [part if isinstance(part, dict) else {"type": "text", "text": str(part)} for part in content]


def _is_image(part: dict[str, Any]) -> bool:
    return part.get("type") == "image" or part.get("image") is not None


def _harmless_rest(value: Any, harmless: Any) -> Any:
    """Everything beside the content (role, name, tool calls) with its strings made harmless too."""
    if isinstance(value, str):
        return harmless(value)
    if isinstance(value, dict):
        return {key: _harmless_rest(item, harmless) for key, item in value.items() if key != "content"}
    return [_harmless_rest(item, harmless) for item in value] if isinstance(value, list | tuple) else value
