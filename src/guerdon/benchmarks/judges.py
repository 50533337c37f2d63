"""Judges that say which of two pictures looks more like a photograph.

A judge never prefers a slot by construction; whether it does so in fact is for the arena to measure, which is why every
pair is shown in both orders (`guerdon.benchmarks.realbench`).
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias

import torch
from PIL import Image

from guerdon.benchmarks.image_scores import ImageScorer, score_images
from guerdon.core.errors import GuerdonError
from guerdon.core.identity import identity as reward_identity
from guerdon.core.identity import name_of
from guerdon.core.images import as_tensor
from guerdon.core.outcome import Failed
from guerdon.models.chat import ChatEndpoint
from guerdon.models.vision_language import load_processor

__all__ = [
    "QUESTION",
    "DetectorJudge",
    "Judge",
    "OpenAICompatibleJudge",
    "VLMJudge",
    "Verdict",
    "parse_verdict",
]

Verdict: TypeAlias = Literal["first", "second", "tie"] | Failed

_CRITERIA = """\
You are shown two pictures, Image 1 and Image 2. Decide which of them could more readily be an unretouched photograph
made by a real camera. Beauty, sharpness and the choice of subject do not matter, and neither does the order in which
the pictures appear. Look in both for:
- people and animals: the number and joints of fingers, eyes, teeth, hair and fur; skin waxy, oily or like plastic;
- patterns and materials: repeats that are too exact, surfaces without wear, textures that melt into one another;
- light and colour: shadows and reflections that disagree with the light, an even glow, colours too rich for a camera;
- geometry: broken perspective, parts that float, merge or lead nowhere, impossible contact or support;
- edges: halos, smears, outlines that are cut out or too clean, blur that does not follow depth;
- writing and symbols: letters, numbers, signs, dials and logos that make no sense;
- the whole: the look of a rendering, a painting or an advertisement instead of a moment that happened.
"""
QUESTION = (
    _CRITERIA
    + """
Reply with two lines. The first is exactly one of these three:
More realistic: Image 1
More realistic: Image 2
More realistic: Tie
The second starts with "Reason:" and names what decided it.
"""
)
ONE_TOKEN_QUESTION = _CRITERIA + "\nReply with one character, 1 or 2: the number of the picture more like a photograph."

_VERDICT_LINE = re.compile(r"^(?:the\s+)?more\s+realistic(?:\s+(?:image|picture))?\s*(?:is\s*)?[:=]\s*(?P<answer>.*)$")
_ANSWER = re.compile(r"^(?:image\s*#?\s*(?P<image>[12])|(?P<tie>tie))\s*(?:$|[.;(—–](?!\d).*)")
_DECORATION = re.compile(r"[*_`#>\"“”\[\]<]|^\s*(?:[-•]|\d+[.)])\s+")


class Judge(Protocol):
    """Anything with `compare`. Optional attributes: ``name`` (str, for tables), ``identity`` (str: stored verdicts are
    reused only under the same identity) and ``deterministic`` (bool: asking again cannot help)."""

    def compare(self, image_1: Image.Image, image_2: Image.Image, prompt: str | None) -> Verdict:
        """Which picture looks more like a photograph: "first", "second", "tie", or Failed with its cause."""
        ...


def parse_verdict(reply: str) -> Verdict:
    """The verdict in a judge's ``reply``, or Failed (kind "unparseable"): a guess is never made.

    One line must read ``More realistic: Image 1``, ``Image 2`` or ``Tie``; case, Markdown and a sentence after a full
    stop are allowed, and text up to ``</think>`` is skipped. Refused: no such line, two that disagree, a line that
    names both pictures, and free text that merely mentions one. Source: RealGen card, pitfalls (substring parsing).
    """
    found: set[Literal["first", "second", "tie"]] = set()
    for line in reply.rpartition("</think>")[2].splitlines():
        plain = " ".join(_DECORATION.sub("", line).lower().split())
        stated = _VERDICT_LINE.match(plain)
        if not stated:
            continue
        answer = _ANSWER.match(stated["answer"])
        if not answer:
            return Failed(cause=f"ambiguous verdict line: {line.strip()[:120]!r}", kind="unparseable")
        found.add("tie" if answer["tie"] else "first" if answer["image"] == "1" else "second")
    if not found:
        return Failed(cause=f"no line 'More realistic: ...' in the reply: {reply.strip()[:120]!r}", kind="unparseable")
    if len(found) > 1:
        return Failed(cause=f"contradicting verdict lines: {', '.join(sorted(found))}", kind="unparseable")
    return found.pop()


def _identity(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def _with_caption(question: str, prompt: str | None, show: bool) -> str:
    if not show or not prompt:
        return question
    return f"{question}\nBoth pictures were made for this caption, given for context only: {prompt}\n"


class DetectorJudge:
    """A judge made of any image -> score callable: the higher score wins, a gap up to ``margin`` is a tie.

    No reasoning and no vision-language model: it inherits every blind spot of its detector, and a detector from the
    training reward makes it a biased witness. For machines on which no vision-language model fits.
    Each picture is scored alone, so swapping the slots mirrors the verdict exactly. Scores and ``margin`` share units.
    """

    deterministic = True

    def __init__(self, score: ImageScorer, *, margin: float = 0.0, name: str | None = None) -> None:
        if not margin >= 0:
            raise GuerdonError(f"margin must be at least 0; got {margin}")
        self.score, self.margin = score, margin
        self.name = f"detector judge ({name or name_of(score)})"
        self.identity = _identity(self.name, margin, reward_identity(score))

    def compare(self, image_1: Image.Image, image_2: Image.Image, prompt: str | None) -> Verdict:
        """ "first", "second" or "tie" by score; Failed when the callable fails on either picture."""
        scores: list[float] = []
        for image in (image_1, image_2):
            score = score_images(self.score, as_tensor([image]), [prompt or ""], name=self.name)[0]
            if isinstance(score, Failed):
                return score
            scores.append(score)
        gap = scores[0] - scores[1]
        if abs(gap) <= self.margin:
            return "tie"
        return "first" if gap > 0 else "second"


class VLMJudge:
    """A local vision-language model of transformers (image-text-to-text) that sees both pictures in one turn.

    mode "generate": greedy reply to `QUESTION`, read by `parse_verdict`. mode "logits": one forward pass; the verdict
    is the larger of the next-token logits of "1" and "2", a tie when they differ by at most ``margin`` logits - cheaper
    and never unparseable, but without a stated reason.
    ``show_caption``: also show the prompt (off by default: RealBench asks about realism alone).
    Raises GuerdonError for an unknown mode, or in mode "logits" when the tokenizer has no single token for a digit.
    """

    deterministic = True

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        mode: Literal["generate", "logits"] = "generate",
        question: str | None = None,
        margin: float = 0.0,
        max_new_tokens: int = 256,
        show_caption: bool = False,
        name: str | None = None,
    ) -> None:
        if mode not in ("generate", "logits"):
            raise GuerdonError(f"unknown judge mode {mode!r}; choices: generate, logits")
        self.model, self.processor, self.mode, self.margin = model.eval(), processor, mode, margin
        self.question = question or (QUESTION if mode == "generate" else ONE_TOKEN_QUESTION)
        self.max_new_tokens, self.show_caption = max_new_tokens, show_caption
        source = name or getattr(model.config, "_name_or_path", "") or type(model).__name__
        self.name = f"{source} ({mode})"
        self.identity = _identity(self.name, self.question, margin, max_new_tokens, show_caption)
        self._digits = (self._token_ids("1"), self._token_ids("2")) if mode == "logits" else None

    @classmethod
    def from_pretrained(cls, name: str, *, dtype: str = "auto", device: str | None = None, **options: Any) -> VLMJudge:
        """Judge from a hub id or folder (AutoModelForImageTextToText); ``options`` as in the constructor."""
        from transformers import AutoModelForImageTextToText

        model: Any = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(model.to(device), load_processor(name), name=name, **options)

    def _token_ids(self, digit: str) -> list[int]:
        tokenizer = self.processor.tokenizer
        forms = [tokenizer.encode(text, add_special_tokens=False) for text in (digit, f" {digit}")]
        single = sorted({ids[0] for ids in forms if len(ids) == 1 and ids[0] != tokenizer.unk_token_id})
        if not single:
            raise GuerdonError(f"{self.name}: the tokenizer has no single token for {digit!r}; use mode 'generate'")
        return single

    def _moved(self, value: torch.Tensor) -> torch.Tensor:
        kind = self.model.dtype if value.is_floating_point() else value.dtype
        return value.to(self.model.device, kind)

    @torch.no_grad()
    def compare(self, image_1: Image.Image, image_2: Image.Image, prompt: str | None) -> Verdict:
        """Verdict on two RGB pictures; Failed (kind "unparseable") when the reply holds no clear verdict."""
        content = [
            {"type": "text", "text": "Image 1:"},
            {"type": "image"},
            {"type": "text", "text": "Image 2:"},
            {"type": "image"},
            {"type": "text", "text": _with_caption(self.question, prompt, self.show_caption)},
        ]
        turn = [{"role": "user", "content": content}]
        text = self.processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        pictures = [image_1.convert("RGB"), image_2.convert("RGB")]
        # Nested: processors that take several texts must know that both pictures belong to the one.
        batch = self.processor(text=[text], images=[pictures], return_tensors="pt")
        inputs = {key: self._moved(value) for key, value in batch.items() if isinstance(value, torch.Tensor)}
        if self._digits is not None:
            logits = self.model(**inputs).logits[0, -1].float()
            gap = float(logits[self._digits[0]].logsumexp(0) - logits[self._digits[1]].logsumexp(0))
            if abs(gap) <= self.margin:
                return "tie"
            return "first" if gap > 0 else "second"
        reply = self.model.generate(**inputs, do_sample=False, max_new_tokens=self.max_new_tokens)
        tokens = reply[0, inputs["input_ids"].shape[1] :]
        return parse_verdict(self.processor.tokenizer.decode(tokens, skip_special_tokens=True))


class OpenAICompatibleJudge:
    """A judge behind any OpenAI-style endpoint (see `ChatEndpoint`); pictures travel as base64 PNG. Thread-safe."""

    deterministic = False

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        question: str = QUESTION,
        show_caption: bool = False,
        max_tokens: int = 512,
        temperature: float = 0.0,
        timeout: float = 120.0,
        attempts: int = 5,
        backoff: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.chat = ChatEndpoint(
            base_url, model, api_key=api_key, max_tokens=max_tokens, temperature=temperature, timeout=timeout,
            attempts=attempts, backoff=backoff, sleep=sleep,
        )  # fmt: skip
        self.question, self.show_caption = question, show_caption
        self.name = self.chat.name
        self.identity = _identity(self.chat.url, model, question, show_caption, max_tokens, temperature)

    def compare(self, image_1: Image.Image, image_2: Image.Image, prompt: str | None) -> Verdict:
        """Verdict on two pictures; Failed of kind "unparseable", "refused" or "unavailable"."""
        content = [
            {"type": "text", "text": "Image 1:"},
            {"type": "image_url", "image_url": {"url": _data_uri(image_1)}},
            {"type": "text", "text": "Image 2:"},
            {"type": "image_url", "image_url": {"url": _data_uri(image_2)}},
            {"type": "text", "text": _with_caption(self.question, prompt, self.show_caption)},
        ]
        reply = self.chat([{"role": "user", "content": content}])
        return reply if isinstance(reply, Failed) else parse_verdict(reply)


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
