"""Process reward models: a token classifier that says of every step of a solution whether it is right.

Two forms are read. "joined": prompt, step, separator, step, separator, as TRL's stepwise-supervision trainer makes
models and data; the class at the separator's last token is the step's (or, with ``place="before"``, at the separator
in front of it, the form of Fine-Grained RLHF's segment classifiers). "chat": a chat template around the steps, each
closed by one special token (the form of Qwen2.5-Math-PRM, "<extra_0>").
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash
from guerdon.core.outcome import Failed
from guerdon.core.preferences import as_messages, text_of
from guerdon.models.scalar.tokens import length_limit

__all__ = ["QWEN_PRM", "SETTINGS", "EncodedSteps", "StepForm", "StepScorer", "load_step_scorer"]

SETTINGS = "step_scorer.json"
_FORMAT = 1


@dataclass(frozen=True)
class StepForm:
    """How a solution is put to the model.

    separator:  text behind (or before) each step; in the form "chat" one special token.
    right:      the class that means "no error", by its place or its name in the model's ``id2label``.
    wrong:      the class it is weighed against; None: all others. (Fine-Grained RLHF's models have a third class that
                was never used, so two are named.)
    system:     a system message, of the form "chat".
    """

    form: Literal["joined", "chat"] = "joined"
    separator: str = "\n"
    place: Literal["after", "before"] = "after"
    right: int | str = 1
    wrong: int | str | None = None
    system: str = ""


QWEN_PRM = StepForm(
    "chat", "<extra_0>", system="Please reason step by step, and put your final answer within \\boxed{}."
)
"""The form of Qwen2.5-Math-PRM: two classes, the second one positive."""


@dataclass(frozen=True)
class EncodedSteps:
    """Tokens of a solution, and the place at which each step's class is read."""

    ids: list[int]
    places: list[int]


class StepScorer:
    """P(step is right) of every step, from a token classifier: a `guerdon.rewards.text.segment.SegmentJudge`.

    model:         gives logits [B, T, classes], as ``.logits`` or as its first output.
    tokenizer:     its tokenizer.
    token_budget:  tokens a forward pass, padding included.

    Each step of a causal model is scored from what stands before it only, so a later step cannot mend it. Solutions of
    one batch do not touch each other. Raises GuerdonError for a class or a separator that the model does not have.
    """

    def __init__(
        self, model: Any, tokenizer: Any, form: StepForm | None = None, *, token_budget: int = 8192,
        max_length: int | None = None, name: str = "step_scorer",
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.form = model.eval(), tokenizer, form or StepForm()
        self.token_budget, self.__name__ = token_budget, name
        self.max_length = max_length or int(length_limit(tokenizer, model.config))
        self._right = self._class(self.form.right)
        self._wrong = None if self.form.wrong is None else self._class(self.form.wrong)
        self._separator = tokenizer.encode(self.form.separator, add_special_tokens=False)
        if not self._separator or self.form.form == "chat" and len(self._separator) != 1:
            raise GuerdonError(
                f"the separator {self.form.separator!r} is {len(self._separator)} tokens of this tokenizer; "
                f"the form {self.form.form!r} needs {'one' if self.form.form == 'chat' else 'some'}"
            )

    def __call__(self, prompts: Any, segments: Sequence[Sequence[str]], **columns: Any) -> list[list[float] | Failed]:
        """One probability a step; a solution that is too long, or holds the separator's token, fails alone."""
        found: list[list[float] | Failed] = [[] for _ in segments]
        held: list[tuple[int, EncodedSteps]] = []
        for row, steps in enumerate(segments):
            if steps:
                encoded = self.encode("" if prompts is None else prompts[row], steps)
                if isinstance(encoded, Failed):
                    found[row] = encoded
                else:
                    held.append((row, encoded))
        for batch in _batches(sorted(held, key=lambda one: len(one[1].ids)), self.token_budget):
            for (row, _), scores in zip(batch, self._scored([one for _, one in batch])):
                found[row] = scores
        return found

    def encode(self, prompt: Any, steps: Sequence[str]) -> EncodedSteps | Failed:
        """The tokens that the model sees of one solution, or why it cannot see it."""
        made = self._chat(prompt, steps) if self.form.form == "chat" else self._joined(prompt, steps)
        if isinstance(made, EncodedSteps) and len(made.ids) > self.max_length:
            return Failed(f"{len(made.ids)} tokens; the step scorer takes {self.max_length}", "too_long")
        return made

    def _joined(self, prompt: Any, steps: Sequence[str]) -> EncodedSteps:
        ids = self.tokenizer.encode(_plain(prompt), add_special_tokens=False)
        if getattr(self.tokenizer, "bos_token_id", None) is not None:
            ids = [self.tokenizer.bos_token_id, *ids]
        places = []
        for step in steps:
            own = self.tokenizer.encode(step, add_special_tokens=False)
            if self.form.place == "before":
                places.append(len(ids) + len(self._separator) - 1)
                ids = [*ids, *self._separator, *own]
            else:
                ids = [*ids, *own, *self._separator]
                places.append(len(ids) - 1)
        return EncodedSteps(ids, places)

    def _chat(self, prompt: Any, steps: Sequence[str]) -> EncodedSteps | Failed:
        told = [{"role": "system", "content": self.form.system}] if self.form.system else []
        told += [*as_messages(prompt, "user")]
        separator = self.form.separator
        told.append({"role": "assistant", "content": separator.join(steps) + separator})
        text = self.tokenizer.apply_chat_template(told, tokenize=False, add_generation_prompt=False)
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        places = [place for place, one in enumerate(ids) if one == self._separator[0]]
        if len(places) != len(steps):
            return Failed(f"the text holds {separator!r}, which closes a step here", "misaligned")
        return EncodedSteps(ids, places)

    @torch.no_grad()
    def _scored(self, batch: Sequence[EncodedSteps]) -> list[list[float]]:
        device = next(self.model.parameters()).device
        width = max(len(one.ids) for one in batch)
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        ids = torch.tensor([one.ids + [pad] * (width - len(one.ids)) for one in batch], device=device)
        mask = torch.tensor([[1] * len(one.ids) + [0] * (width - len(one.ids)) for one in batch], device=device)
        output = self.model(input_ids=ids, attention_mask=mask)
        logits = (output.logits if hasattr(output, "logits") else output[0]).float()
        return [self._probability(logits[row, one.places]).tolist() for row, one in enumerate(batch)]

    def _probability(self, logits: torch.Tensor) -> torch.Tensor:
        if self._wrong is not None:
            return torch.sigmoid(logits[:, self._right] - logits[:, self._wrong])
        return logits.softmax(dim=-1)[:, self._right]

    @property
    def classes(self) -> tuple[int, int]:
        """(right, wrong): the classes that a training sets. Raises GuerdonError where the second is not named and the
        model has more than two."""
        if self._wrong is not None:
            return self._right, self._wrong
        others = [one for one in range(int(self.model.config.num_labels)) if one != self._right]
        if len(others) != 1:
            raise GuerdonError(f"the model has {len(others) + 1} classes: name the wrong one in its StepForm")
        return self._right, others[0]

    def _class(self, wanted: int | str) -> int:
        names = {int(key): str(value) for key, value in getattr(self.model.config, "id2label", {}).items()}
        if isinstance(wanted, int):
            if names and wanted not in names:
                raise GuerdonError(f"the model has classes 0 to {len(names) - 1}, and no {wanted}")
            return wanted
        found = [key for key, value in names.items() if value == wanted]
        if not found:
            raise unknown("class of the step scorer", wanted, names.values())
        return found[0]

    def save(self, folder: str | Path) -> Path:
        """Write the model, the tokenizer and the form, for `load_step_scorer`."""
        folder = Path(folder)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        record = {"format": _FORMAT, "form": asdict(self.form), "name": self.__name__}
        (folder / SETTINGS).write_text(json.dumps(record, indent=1), encoding="utf-8")
        return folder

    def identity(self) -> str:
        """Name, version, and a hash of the weights and the form."""
        return f"{self.__name__}@1#{config_hash(asdict(self.form), self.model.state_dict())}"


def load_step_scorer(
    path: str | Path, *, form: StepForm | None = None, device: str | None = None, trust_remote_code: bool = False,
    **options: Any,
) -> StepScorer:  # fmt: skip
    """A step scorer from a folder or the hub.

    A folder that `StepScorer.save` wrote knows its form; another model needs ``form`` where it is not TRL's: a model
    whose name holds "Math-PRM" is read as `QWEN_PRM`. trust_remote_code: run code that comes with the model, which
    Qwen's needs; never by itself.

    Raises GuerdonError where the model cannot be read, or a saved form is of another version.
    """
    from transformers import AutoModel, AutoModelForTokenClassification, AutoTokenizer

    settings = Path(path) / SETTINGS
    if form is None and settings.is_file():
        try:
            record = json.loads(settings.read_text(encoding="utf-8"))
            if record["format"] != _FORMAT:
                raise GuerdonError(f"{settings}: format {record['format']}, this version reads {_FORMAT}")
            form = StepForm(**record["form"])
            options.setdefault("name", record["name"])
        except (ValueError, KeyError, TypeError) as error:
            raise GuerdonError(f"{settings} is no record of a step scorer: {error}") from None
    form = form or (QWEN_PRM if "math-prm" in str(path).lower() else StepForm())
    kind: Any = AutoModel if form.form == "chat" else AutoModelForTokenClassification
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
        model = kind.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise GuerdonError(f"no step scorer could be read from {str(path)!r}: {str(error).splitlines()[0]}") from None
    return StepScorer(model.to(device) if device else model, tokenizer, form, **options)


def _plain(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else text_of(as_messages(prompt, "user"))


def _batches(rows: list[tuple[int, EncodedSteps]], budget: int) -> list[list[tuple[int, EncodedSteps]]]:
    """Rows in order of their length, as many a batch as fit with padding, at least one."""
    found: list[list[tuple[int, EncodedSteps]]] = []
    for row in rows:
        if not found or len(row[1].ids) * (len(found[-1]) + 1) > budget:
            found.append([])
        found[-1].append(row)
    return found
