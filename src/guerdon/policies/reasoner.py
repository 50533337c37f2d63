"""The embedded reasoner: a Qwen3 language model of 1.5 MB that solves the word problems of ``core/arithmetic.py``.

Trained by ``scripts/train_reasoner.py`` to write a step a line and then its answer, on worked solutions a third of
which are wrong, as solutions found in the wild are. Of problems whose numbers were held out it solves seven in ten
when greedy, one in four when sampled, and eight in ten in at least one of eight samples: the room that reinforcement
learning has. Of the held-out tellings, which it never saw either, it solves one in eight when greedy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from guerdon.core.arithmetic import (
    CLOSINGS,
    TEMPLATES,
    Form,
    Problem,
    Solution,
    Step,
    solution_text,
    word_problem,
    wrong_solution,
)
from guerdon.core.errors import GuerdonError, unknown

__all__ = [
    "LONGEST", "Split", "embedded_reasoner", "new_reasoner", "problem_rows", "reasoner_tokenizer", "split_of",
    "split_problems", "worked_text",
]  # fmt: skip

ASSETS = Path(__file__).parent.parent / "assets"
LONGEST = 96  # tokens of a completion; nearly all worked texts are shorter
Split = Literal["train", "held_out"]

_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
_FIRST = ("First, ",)
_NEXT = ("Next, ", "Then ")
_LAST = ("Therefore ", "Thus ", "As a result, ")
_OPENINGS = ("I need to go step by step.", "Let me see.", "We need to look at the numbers.")
_CHECK = "Let me check: {}."
_BACK = "Wait, that is not correct."


def embedded_reasoner(folder: Path | None = None) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """(model in float32 in evaluation mode, tokenizer with its chat template) from ``folder`` or from the package.

    A problem is a user turn; the tokenizer reads any text, and a digit is always one token. Raises GuerdonError where
    there is no reasoner.
    """
    folder = Path(folder) if folder is not None else ASSETS / "reasoner"
    if not (folder / "model.safetensors").is_file():
        raise GuerdonError(f"no reasoner in '{folder}': expected model.safetensors and a tokenizer")
    model: Any = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return model.eval(), tokenizer


def split_of(problem: Problem) -> Split:
    """The split of a problem: one story with one set of numbers in eight is held out, whoever tells it and how."""
    numbers = sorted(problem.numbers.items())
    digest = hashlib.blake2b(repr((problem.template, numbers)).encode(), digest_size=2).digest()
    return "held_out" if digest[0] % 8 == 0 else "train"


def split_problems(
    count: int, seed: int, split: Split = "train", *, templates: Sequence[str] = TEMPLATES
) -> list[Problem]:
    """``count`` different problems of one split, those of the series of ``seed`` in order.

    Raises GuerdonError for another split, and as `guerdon.core.arithmetic.word_problem`.
    """
    if split not in get_args(Split):
        raise unknown("split", split, get_args(Split))
    found: dict[str, Problem] = {}
    place, most = 0, 200 * count + 1000
    while len(found) < count and place < most:
        problem = word_problem(seed, place, templates=templates)
        if split_of(problem) == split:
            found.setdefault(problem.question, problem)
        place += 1
    if len(found) < count:
        raise GuerdonError(f"{len(templates)} templates hold no {count} different problems of the split {split!r}")
    return list(found.values())


def problem_rows(problems: Iterable[Problem], *, form: Form = "question", chat: bool = True) -> list[dict[str, Any]]:
    """Rows for a trainer: {"prompt", "solution", "worked", "question", "paraphrase", "template"}.

    prompt: the problem in one of its forms, as a user turn, or as plain text without ``chat``. solution: the answer;
    worked: a text that comes to it.
    """
    rows = []
    for problem in problems:
        told = problem.told(form)
        rows.append(
            {
                "prompt": [{"role": "user", "content": told}] if chat else told, "solution": str(problem.answer),
                "worked": solution_text(problem.solution), "question": told, "paraphrase": problem.paraphrase,
                "template": problem.template,
            }
        )  # fmt: skip
    return rows


def worked_text(problem: Problem, rng: np.random.Generator, *, wrong: float = 0.35) -> str:
    """A solution as people write them: in one of several manners, and wrong with probability ``wrong``.

    Steps may be introduced ("First, "), checked ("Let me check: 3 * 4 = 12.") or taken back ("Wait, that is not
    correct."); some texts give the answer alone or forget to state it.
    """
    spoilt = rng.random() < wrong
    solution = wrong_solution(problem, int(rng.integers(2**31))) if spoilt else problem.solution
    if rng.random() < 0.05:
        return CLOSINGS["sentence"].format(solution.answer)
    lines = [str(rng.choice(_OPENINGS))] if rng.random() < 0.12 else []
    for place, step in enumerate(solution.steps):
        lines += _told(step, place, len(solution.steps), solution, rng)
    kind = rng.random()
    if kind < 0.94:
        closing = "sentence" if kind < 0.74 else "marked" if kind < 0.84 else "boxed"
        lines.append(CLOSINGS[closing].format(solution.answer))
    return "\n".join(lines)


def _told(step: Step, place: int, count: int, solution: Solution, rng: np.random.Generator) -> list[str]:
    choices = _FIRST if place == 0 else _LAST if place == count - 1 else _NEXT
    plain = str(step)
    if rng.random() < 0.2:
        plain = f"{rng.choice(choices)}{plain[0].lower()}{plain[1:]}"
    lines = [plain]
    if step.right and rng.random() < 0.04:
        off = step.result + int(rng.choice([-10, -2, -1, 1, 2, 10]))
        if off > 0:
            lines = [f"{step.text} {step.expression} = {off}.", _BACK, plain]
    while rng.random() < 0.08:
        lines.append(_CHECK.format(f"{step.expression} = {step.result}"))
    return lines


def reasoner_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in which the words of the problems and each digit are one token, and any other text is
    bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, min_frequency=1, special_tokens=_SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(_lexicon(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", chat_template=_TEMPLATE,
        padding_side="left", clean_up_tokenization_spaces=False,
    )  # fmt: skip


def _lexicon() -> list[str]:
    rng = np.random.default_rng(0)
    texts = [*_OPENINGS, *_FIRST, *_NEXT, *_LAST, _CHECK, _BACK]
    for place in range(3000):
        problem = word_problem(0, place)
        texts += [problem.question, problem.paraphrase, problem.held_out, worked_text(problem, rng)]
        texts.append(solution_text(problem.solution, closing="letter"))
    return texts


def new_reasoner(
    tokenizer: PreTrainedTokenizerFast, *, hidden: int = 128, layers: int = 4, heads: int = 4, seed: int = 0
) -> Qwen3ForCausalLM:
    """An untrained reasoner: a ``Qwen3ForCausalLM`` of ``hidden`` width. Raises GuerdonError where heads do not
    fit."""
    if hidden % heads:
        raise GuerdonError(f"hidden size {hidden} is not a multiple of {heads} heads")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=hidden * 2, num_hidden_layers=layers,
                num_attention_heads=heads, num_key_value_heads=heads, head_dim=hidden // heads,
                max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
            )
        )  # fmt: skip
