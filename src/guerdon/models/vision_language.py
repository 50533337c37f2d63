"""One image and one question to a vision-language model: next-token logits, or a written answer."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from guerdon.core.errors import GuerdonError


class VisionLanguageModel:
    """Any transformers image-text-to-text model with its processor, asked about one image at a time.

    One image a forward: padding a batch would let one picture's score depend on its neighbours.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        if getattr(processor, "tokenizer", None) is None:
            raise GuerdonError(f"{type(processor).__name__} has no tokenizer; pass the model's own AutoProcessor")
        if not (getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)):
            raise GuerdonError(f"{type(processor).__name__} has no chat template; set processor.chat_template")
        self.model, self.processor = model.eval(), processor
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    @classmethod
    def from_pretrained(
        cls, name: str, *, dtype: torch.dtype = torch.bfloat16, device: str | torch.device = "cpu", **options: Any
    ) -> VisionLanguageModel:
        """Load a hub id or local folder; `options` go to the model's `from_pretrained` (attn_implementation, ...)."""
        from transformers import AutoModelForImageTextToText

        model: Any = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype, **options)
        return cls(model.to(torch.device(device)), load_processor(name))

    @classmethod
    def of(cls, source: Any, processor: Any = None, **loading: Any) -> VisionLanguageModel:
        """From whatever a reward was given: one of these, a transformers model with its processor, or a hub id."""
        if isinstance(source, str):
            return cls.from_pretrained(source, **loading)
        if loading:
            raise GuerdonError(f"{', '.join(loading)}: loading options need a hub id or folder, not a loaded model")
        return source if isinstance(source, cls) else cls(source, processor)

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    def inputs(self, image: Image.Image, text: str) -> dict[str, Any]:
        """Model inputs of a single user turn, image then text, with the prompt for the answer appended."""
        turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
        prompt = self.processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
        batch = self.processor(text=[prompt], images=[image.convert("RGB")], return_tensors="pt")
        device, dtype = self.model.device, self.model.dtype
        return {
            key: value.to(device, dtype) if torch.is_floating_point(value) else value.to(device)
            for key, value in batch.items()
            if isinstance(value, Tensor)
        }

    @torch.no_grad()
    def next_token_logits(self, image: Image.Image, text: str) -> Tensor:
        """Logits of the token that would follow the prompt -> float32 [vocabulary]."""
        options = {"logits_to_keep": 1} if self._keeps_logits else {}
        return self.model(**self.inputs(image, text), **options).logits[0, -1].float()

    @torch.no_grad()
    def answer(self, image: Image.Image, text: str, *, max_new_tokens: int = 512, **options: Any) -> str:
        """The generated answer without special tokens; greedy unless `options` (to `generate`) say otherwise."""
        inputs = self.inputs(image, text)
        settings: dict[str, Any] = {"do_sample": False, **options}
        tokens = self.model.generate(**inputs, max_new_tokens=max_new_tokens, **settings)
        return self.tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    def single_tokens(self, words: tuple[str, ...]) -> list[int]:
        """The token id of each word; GuerdonError for a word that is no single entry of the vocabulary."""
        ids = []
        for word in words:
            pieces = self.tokenizer.encode(word, add_special_tokens=False)
            if len(pieces) != 1 or pieces[0] == self.tokenizer.unk_token_id:
                raise GuerdonError(f"'{word}' is not a single token of {type(self.tokenizer).__name__}: {pieces}")
            ids.append(int(pieces[0]))
        return ids


class QwenImageText:
    """Text and images for the Qwen-VL family (2, 2.5, 3) from its tokenizer and image processor alone.

    transformers' own processor class of this family cannot be built without a video part, which needs torchvision,
    and guerdon does without torchvision. Each image placeholder of the prompt is repeated once for every merged patch.
    """

    def __init__(self, image_processor: Any, tokenizer: Any, chat_template: str | None = None) -> None:
        self.image_processor, self.tokenizer = image_processor, tokenizer
        self.chat_template = chat_template if chat_template is not None else tokenizer.chat_template
        self.image_token = getattr(tokenizer, "image_token", None) or "<|image_pad|>"

    def apply_chat_template(self, messages: list[dict[str, Any]], **options: Any) -> Any:
        """The tokenizer's `apply_chat_template` with this processor's template."""
        return self.tokenizer.apply_chat_template(messages, chat_template=self.chat_template, **options)

    def __call__(self, text: list[str], images: list[Any], return_tensors: str = "pt") -> dict[str, Any]:
        """Model inputs of prompts with one placeholder an image; images in their order, or one list for each prompt."""
        flat = [picture for item in images for picture in (item if isinstance(item, list | tuple) else [item])]
        pictures = self.image_processor(images=flat, return_tensors=return_tensors)
        counts = [int(grid.prod()) // self.image_processor.merge_size**2 for grid in pictures["image_grid_thw"]]
        found = sum(prompt.count(self.image_token) for prompt in text)
        if found != len(counts):
            raise GuerdonError(f"the chat template made {found} image placeholder(s) for {len(counts)} image(s)")
        order = iter(counts)
        parts = [prompt.split(self.image_token) for prompt in text]
        filled = [part[0] + "".join(self.image_token * next(order) + rest for rest in part[1:]) for part in parts]
        tokens = self.tokenizer(filled, return_tensors=return_tensors, padding=len(filled) > 1)
        image_id = self.tokenizer.convert_tokens_to_ids(self.image_token)
        kinds = (tokens["input_ids"] == image_id).int()  # 1 marks an image position, which gets a 2-D rotary index
        return {**tokens, **pictures, "mm_token_type_ids": kinds}


def load_processor(name: str) -> Any:
    """The processor of a hub id or local folder; for the Qwen-VL family without torchvision a `QwenImageText`.

    Raises GuerdonError where another family's processor needs torchvision.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer
    from transformers.utils import is_torchvision_available

    family = str(AutoConfig.from_pretrained(name).model_type)
    if is_torchvision_available() or not family.startswith("qwen"):
        try:
            return AutoProcessor.from_pretrained(name)
        except ImportError as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else "torchvision"
            raise GuerdonError(f"the processor of '{name}' ({family}) cannot be loaded: {reason}") from error
    tokenizer = AutoTokenizer.from_pretrained(name)
    return QwenImageText(AutoImageProcessor.from_pretrained(name), tokenizer, _chat_template(name))


def _chat_template(name: str) -> str | None:
    """The processor's own chat template, where the folder holds one beside the tokenizer's."""
    from transformers.utils import cached_file

    for file in ("chat_template.jinja", "chat_template.json"):
        path = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
        if path is not None:
            text = Path(path).read_text(encoding="utf-8")
            return json.loads(text)["chat_template"] if file.endswith(".json") else text
    return None
