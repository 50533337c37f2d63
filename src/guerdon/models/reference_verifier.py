"""A generative verifier: a language model that says whether a response gives the reference answer, YES or NO."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash
from guerdon.core.outcome import Failed
from guerdon.core.preferences import Message
from guerdon.core.progress import progress as progress_bar
from guerdon.models.chat import Chat, LocalChat
from guerdon.models.scalar.tokens import PLAIN_TEMPLATE, escape_specials, length_limit, special_strings

__all__ = ["SETTINGS", "TEMPLATES", "Mode", "ReferenceVerifier", "VerifierTemplate", "read_word"]

Mode = Literal["logprob", "text"]
SETTINGS = "verifier.json"
_FORMAT = 1
_CPU_TOKENS, _DEVICE_TOKENS = 4096, 32768
_PROBE = ("How many are 3 and 4?", "7", "3 and 4 are 7. The answer is 7.")


@dataclass(frozen=True)
class VerifierTemplate:
    """How a case is put to the model: an instruction, then labelled fields, the last one for the verdict.

    system:  a system message; "" for none. question, response, reference, output: the labels of the fields.
    yes, no: the words of the verdict, which must begin with different tokens.

    A label that stands inside a field's text is broken by a space, so that a response cannot add a field of its own.
    """

    instruction: str
    system: str = ""
    question: str = "**Question:**"
    response: str = "**Solution Process (Final Step Only):**"
    reference: str = "**Reference Answer:**"
    output: str = "**Output:**"
    yes: str = "YES"
    no: str = "NO"

    def messages(self, question: str | None, reference: str, response: str) -> list[Message]:
        """The messages of one case; ``question`` None leaves its field out."""
        fields = [(self.question, question)] if question is not None else []
        fields += [(self.response, response), (self.reference, reference)]
        shown = [f"{label} {self._harmless(text)}" for label, text in fields]
        body = "\n".join([*([self.instruction, ""] if self.instruction else []), *shown, self.output])
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": body}]

    def _harmless(self, text: str) -> str:
        for label in (self.question, self.response, self.reference, self.output):
            text = text.replace(label, f"{label[0]} {label[1:]}")
        return text


TEMPLATES: dict[str, VerifierTemplate] = {
    "reference": VerifierTemplate(
        "Decide whether the solution process comes to the reference answer. The solution process may be cut off; only "
        "the answer that it gives counts. The reference answer may be the letter of an option, a number, an "
        "expression, a list or words, in any language, and another way of writing the same thing is the same answer. "
        "Where the solution process gives no answer, or one that is unclear, incomplete or ambiguous, say NO. Your "
        "output is one word, YES or NO, and nothing else.",
        system="You are a helpful assistant.",
    ),
    "semantic": VerifierTemplate(
        "You check an answer against a reference answer that is known to be right. Say YES where both mean the same, "
        "and NO otherwise: a question with several right options is answered by all of them and no other, a number by "
        "the same value in whatever form and unit, a text by the same statement in whatever words. Do not solve the "
        "question yourself, and do not reward effort: an answer that is missing, unclear or open gets NO. Your output "
        "is one word, YES or NO, and nothing else.",
        response="**Answer:**",
    ),
    # For a small model that is trained on it: an instruction would only cost tokens.
    "short": VerifierTemplate("", question="Q:", response="S:", reference="R:", output="V:"),
}
"""The shapes of the paper's tables 7 and 6 in our own words, which are not the published ones (a published verifier
wants its own: `VerifierTemplate`), and one for tiny models."""


class ReferenceVerifier:
    """Judges (question, reference, response) -> P(YES) in [0, 1], by a causal language model or any chat model.

    chat:              any `Chat`; mode "logprob" needs a `LocalChat`, whose model gives probabilities.
    template:          a name of ``TEMPLATES``, or a `VerifierTemplate`.
    include_question:  False leaves the question out (the paper's NQ prompt): on mathematics it cuts false positives of
                       models that would solve instead of compare; on open questions it hurts.
    mode:              "logprob": P(YES) / (P(YES) + P(NO)) of the next token, which always gives a verdict. "text": the
                       greedy reply must be one of the two words, in any case, quotes and mark-up aside.
    max_length:        tokens of a case; default what model and tokenizer allow. A longer case fails ("too_long").

    A score belongs to its case, not to its batch. Raises GuerdonError for an unknown template or mode, a chat model
    without probabilities in mode "logprob", and verdict words that begin with one token.
    Source: One Token to Fool LLM-as-a-Judge (arXiv 2507.08794), tables 6 and 7, appendix E (NQ).
    """

    def __init__(
        self,
        chat: Chat,
        *,
        template: str | VerifierTemplate = "reference",
        include_question: bool = True,
        mode: Mode = "logprob",
        max_length: int | None = None,
        name: str | None = None,
    ) -> None:
        if isinstance(template, str):
            if template not in TEMPLATES:
                raise unknown("template", template, TEMPLATES)
            template = TEMPLATES[template]
        if mode not in get_args(Mode):
            raise unknown("mode of a verifier", mode, get_args(Mode))
        if mode == "logprob" and not (hasattr(chat, "model") and hasattr(chat, "tokenizer")):
            raise GuerdonError("mode 'logprob' needs a local model, which gives probabilities; use mode 'text'")
        self.chat, self.template, self.include_question, self.mode = chat, template, include_question, mode
        self.name = name or str(getattr(chat, "name", type(chat).__name__))
        self.model: Any = (
            getattr(chat, "model", None) if hasattr(chat, "tokenizer") else None
        )  # an endpoint's is a name
        self.tokenizer: Any = getattr(chat, "tokenizer", None)
        self.max_length = max_length
        if mode == "logprob":
            self._specials = special_strings(self.tokenizer)
            assert self.model is not None
            self.max_length = max_length or length_limit(self.tokenizer, self.model.config)
            self._drop, self.words = self._verdict_tokens()

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, device: str | None = None, dtype: Any = "auto", **options: Any
    ) -> ReferenceVerifier:
        """From a folder that `save_pretrained` wrote, with its settings, or a causal language model's folder or hub id.

        ``options`` as in the constructor; they come before the folder's settings. Raises GuerdonError where there is no
        such model, or where a saved verifier does not score as it did.
        """
        folder = Path(path)
        record: dict[str, Any] = {}
        if (folder / SETTINGS).is_file():
            record = _record(folder / SETTINGS)
            stored = {"template": VerifierTemplate(**record["template"]), "name": record["name"]}
            options = {**{key: record[key] for key in ("include_question", "mode", "max_length")}, **stored, **options}
        chat = LocalChat.from_pretrained(str(path), dtype=dtype, device=device, max_new_tokens=8)
        chat.name = folder.name
        verifier = cls(chat, **options)
        if record and all(getattr(verifier, key) == record[key] for key in ("include_question", "mode")):
            verifier._check_probe(record, folder)
        return verifier

    def save_pretrained(self, folder: str | Path) -> Path:
        """Save model, tokenizer and settings; `from_pretrained` gives the same scores."""
        if self.model is None:
            raise GuerdonError(f"{self.name} is asked over a connection: there is nothing to save")
        path = Path(folder)
        self.model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)
        record = {
            "format": _FORMAT, "name": self.name, "template": asdict(self.template), "mode": self.mode,
            "include_question": self.include_question, "max_length": self.max_length, "probe": self._probe(),
        }  # fmt: skip
        (path / SETTINGS).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    def score(
        self,
        questions: Sequence[str],
        references: Sequence[str],
        responses: Sequence[str],
        *,
        token_budget: int | None = None,
        progress: str | None = None,
    ) -> list[float | Failed]:
        """P(YES) of N cases (1.0 or 0.0 in mode "text"); Failed of kind "too_long", "unparseable" or the chat's own.

        token_budget: tokens a forward pass, padding included; it changes no score. progress: what a bar should say.
        """
        cases = list(zip(questions, references, responses, strict=True))
        if self.mode == "text":
            asked = progress_bar(cases, progress, total=len(cases)) if progress is not None else cases
            return [self._asked(*case) for case in asked]
        found: list[float | Failed] = []
        rows: dict[int, list[int]] = {}
        for place, case in enumerate(cases):
            ids = self.encode(*case)
            found.append(ids if isinstance(ids, Failed) else float("nan"))
            if not isinstance(ids, Failed):
                rows[place] = ids
        bar = progress_bar(len(rows), progress) if progress is not None and rows else None
        budget = token_budget or (_CPU_TOKENS if self.model.device.type == "cpu" else _DEVICE_TOKENS)
        for places in _batches(rows, budget):
            for place, value in zip(places, self._p_yes([rows[place] for place in places]).tolist(), strict=True):
                found[place] = value
            if bar is not None:
                bar.advance(len(places))
        return found

    def messages(self, question: str, reference: str, response: str) -> list[Message]:
        """The messages of one case."""
        return self.template.messages(question if self.include_question else None, reference, response)

    def encode(self, question: str, reference: str, response: str) -> list[int] | Failed:
        """Token ids of one case, up to where the verdict's token (one of ``words``) follows; Failed where too long."""
        ids = self.tokenizer(self._rendered(self.messages(question, reference, response)))["input_ids"]
        ids = ids[: len(ids) - self._drop]
        if self.max_length is not None and len(ids) >= self.max_length:
            return Failed(f"{self.name}: a case of {len(ids)} tokens exceeds {self.max_length}", "too_long")
        return ids

    def identity(self) -> str:
        """name@version#hash over template, mode and, of a local model, the weights."""
        told = [asdict(self.template), self.include_question, self.mode, self.max_length]
        weights = dict(self.model.state_dict()) if self.model is not None else {}
        return f"{self.name}@1#{config_hash(told, weights)}"

    @torch.no_grad()
    def _p_yes(self, rows: list[list[int]]) -> Tensor:
        self.model.eval()
        width = max(map(len, rows))
        # Padded on the left, so that one position holds every row's verdict and the others need no logits.
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, width - len(row) :] = torch.tensor(row)
            mask[place, width - len(row) :] = 1
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
        moved = {key: value.to(self.model.device) for key, value in given.items()}
        logits = self.model(**moved, logits_to_keep=1, use_cache=False).logits[:, -1].float()
        return logits[:, list(self.words)].softmax(-1)[:, 0].cpu()

    def _asked(self, question: str, reference: str, response: str) -> float | Failed:
        reply = self.chat(self.messages(question, reference, response), temperature=0.0)
        return reply if isinstance(reply, Failed) else read_word(reply, self.template.yes, self.template.no)

    def _rendered(self, messages: Sequence[Message]) -> str:
        turns = [{**turn, "content": escape_specials(str(turn["content"]), self._specials)} for turn in messages]
        own = getattr(self.tokenizer, "chat_template", None)
        # A verdict without a thought before it: templates that know no such switch ignore it.
        text = self.tokenizer.apply_chat_template(
            turns, chat_template=None if own else PLAIN_TEMPLATE, add_generation_prompt=True, tokenize=False,
            enable_thinking=False,
        )  # fmt: skip
        bos = self.tokenizer.bos_token
        if bos and text.startswith(bos) and self.tokenizer("a")["input_ids"][0] == self.tokenizer.bos_token_id:
            text = text.removeprefix(bos)  # the tokenizer adds its own
        return text

    def _verdict_tokens(self) -> tuple[int, tuple[int, int]]:
        """How many tokens of a rendered case give way to the verdict's first token, and that token of YES and of NO.

        A tokenizer may join the end of the case and the beginning of the verdict into one token.
        """
        text = self._rendered(self.messages(*_PROBE))
        plain = self.tokenizer(text)["input_ids"]
        starts, tokens = [], []
        for word in (self.template.yes, self.template.no):
            ids = self.tokenizer(text + word)["input_ids"]
            same = next((place for place, (a, b) in enumerate(zip(plain, ids)) if a != b), min(len(plain), len(ids)))
            starts.append(len(plain) - same)
            tokens.append(ids[same])
        if starts[0] != starts[1] or tokens[0] == tokens[1]:
            raise GuerdonError(
                f"{self.name}: {self.template.yes!r} and {self.template.no!r} begin with one token, so their "
                "probabilities cannot be compared; use other words or mode 'text'"
            )
        return starts[0], (tokens[0], tokens[1])

    def _probe(self) -> float | None:
        value = self.score(*([part] for part in _PROBE))[0] if self.mode == "logprob" else None
        return value if isinstance(value, float) else None

    def _check_probe(self, record: dict[str, Any], folder: Path) -> None:
        probe = self._probe()
        if probe is not None and record["probe"] is not None and not abs(probe - record["probe"]) <= 1e-2:
            raise GuerdonError(
                f"{folder}: the loaded verifier says {probe:.4g} where the saved one said {record['probe']:.4g}; "
                "weights or tokenizer are not those that were saved"
            )


def read_word(reply: str, yes: str = "YES", no: str = "NO") -> float | Failed:
    """1.0 or 0.0 where ``reply`` is ``yes`` or ``no`` and nothing else, in any case; else Failed("unparseable").

    Quotes, stars, a final stop, and thoughts up to ``</think>`` are read over. A guess is never made.
    """
    said = re.sub(r"^[\s\"'`*_.]+|[\s\"'`*_.]+$", "", reply.rpartition("</think>")[2])
    for word, value in ((yes, 1.0), (no, 0.0)):
        if said.casefold() == word.casefold() and "<think>" not in reply.rpartition("</think>")[2]:
            return value
    return Failed(f"the reply is neither {yes} nor {no}: {reply.strip()[:80]!r}", "unparseable")


def _batches(rows: dict[int, list[int]], budget: int) -> Iterator[list[int]]:
    """Places of rows, longest first, in batches of at most ``budget`` tokens with their padding."""
    batch: list[int] = []
    for place in sorted(rows, key=lambda place: -len(rows[place])):
        if batch and (len(batch) + 1) * len(rows[batch[0]]) > budget:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != _FORMAT:
            raise GuerdonError(f"{path}: format {record['format']!r} is not {_FORMAT}; a newer guerdon wrote it")
        VerifierTemplate(**record["template"])
        missing = [key for key in ("name", "mode", "include_question", "max_length", "probe") if key not in record]
        if missing:
            raise KeyError(missing[0])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GuerdonError(f"{path}: not the settings of a verifier ({error!r})") from error
    return record
