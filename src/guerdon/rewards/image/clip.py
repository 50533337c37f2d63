"""Agreement of image and text by CLIP-like models: CLIPScore, PickScore, LongCLIP."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from guerdon.core.errors import GuerdonError
from guerdon.core.identity import config_hash
from guerdon.models.preprocess import normalise, shortest_side_crop
from guerdon.rewards.image.completions import pixels, prompt_texts

Mode = Literal["cosine", "logits", "dot"]
_CACHED_PROMPTS = 4096


class CLIPScore:
    """How well each image fits its prompt, by a transformers CLIP model.

    mode "cosine" (default): cosine of the two features, in [-1, 1]; "logits": exp(logit_scale) * cosine / `divisor`
    (30 by default, about [0, 1] for OpenAI's models); "dot": raw dot product without normalisation / `divisor` (100),
    as RealGen trains with. The raw product can be raised by a larger feature norm, which is not agreement: hence the
    default.

    `model` is a CLIPModel with its `processor`, or a hub id or folder, loaded at the first call. Texts are cut at
    `max_tokens` (default: the model's own context, 77 for CLIP and 248 for LongCLIP) and padded to it, so that a score
    does not depend on the batch. Images are resized in torch (bicubic, antialiased), which differs from PIL's 8-bit
    resizing by rounding. `prompts` may be strings or message lists.
    """

    groupwise = False
    on_failure = "raise"
    version = "1"
    default_model = "openai/clip-vit-large-patch14"
    default_processor: str | None = None
    divisors = {"cosine": 1.0, "logits": 30.0, "dot": 100.0}

    def __init__(
        self,
        model: Any = None,
        processor: Any = None,
        *,
        mode: Mode = "cosine",
        divisor: float | None = None,
        max_tokens: int | None = None,
        batch_size: int = 32,
        device: str | torch.device | None = None,
        name: str = "clip_score",
    ) -> None:
        if mode not in self.divisors:
            raise GuerdonError(f"mode must be one of {', '.join(self.divisors)}, got {mode!r}")
        if model is None:
            model, processor = self.default_model, processor or self.default_processor
        if not isinstance(model, str) and processor is None:
            raise GuerdonError(f"reward '{name}': a loaded model needs its processor")
        self.__name__ = name
        self.mode, self.divisor = mode, self.divisors[mode] if divisor is None else float(divisor)
        self.range = (-1.0, 1.0) if mode == "cosine" and self.divisor == 1.0 else None
        self.max_tokens, self.batch_size = max_tokens, batch_size
        self._source, self._processor_source, self._device = model, processor, device
        self._texts: dict[str, Tensor] = {}

    @cached_property
    def model(self) -> Any:
        model = self._source
        if isinstance(model, str):
            from transformers import CLIPConfig, CLIPModel

            config: Any = CLIPConfig.from_pretrained(model)
            if self.max_tokens is not None and self.max_tokens > config.text_config.max_position_embeddings:
                # Some LongCLIP repositories state CLIP's 77 beside weights for 248; others' weights then do not load.
                config.text_config.max_position_embeddings = self.max_tokens
            model = CLIPModel.from_pretrained(model, config=config)
        model = model if self._device is None else model.to(self._device)
        return model.eval()

    @cached_property
    def processor(self) -> Any:
        source = self._processor_source if self._processor_source is not None else self._source
        if not isinstance(source, str):
            return source
        from transformers import CLIPProcessor

        return CLIPProcessor.from_pretrained(source)

    @cached_property
    def context(self) -> int:
        """Tokens that a text is cut at and padded to."""
        own = int(self.model.config.text_config.max_position_embeddings)
        if self.max_tokens is not None and self.max_tokens > own:
            raise GuerdonError(f"reward '{self.__name__}': max_tokens {self.max_tokens} exceeds the model's {own}")
        return own if self.max_tokens is None else self.max_tokens

    @torch.no_grad()
    def image_features(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] -> projected features [N, d], not normalised."""
        settings = self.processor.image_processor
        prepared = shortest_side_crop(images, int(self.model.config.vision_config.image_size))
        values = normalise(prepared, (settings.image_mean, settings.image_std)).to(self.model.device, self.model.dtype)
        features = [
            self.model.visual_projection(self.model.vision_model(pixel_values=part).pooler_output)
            for part in values.split(self.batch_size)
        ]
        return torch.cat(features).float() if features else torch.zeros(0, 1)

    @torch.no_grad()
    def text_features(self, texts: list[str]) -> Tensor:
        """Texts -> projected features [N, d], not normalised; remembered, since prompts recur in training."""
        if len(self._texts) + len(texts) > _CACHED_PROMPTS:
            self._texts.clear()
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        for start in range(0, len(new), self.batch_size):
            part = new[start : start + self.batch_size]
            tokens = self.processor.tokenizer(
                part, padding="max_length", truncation=True, max_length=self.context, return_tensors="pt"
            ).to(self.model.device)
            output = self.model.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
            features = self.model.text_projection(output.pooler_output).float()
            self._texts.update(zip(part, features, strict=True))
        return torch.stack([self._texts[text] for text in texts])

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float]:
        """One score an image against its prompt. Raises GuerdonError unless there is one prompt for each image."""
        texts = prompt_texts(prompts, len(completions))
        if not texts:
            return []
        images, words = pixels(completions, self.image_features), self.text_features(texts)
        if self.mode == "dot":
            return ((images * words).sum(-1) / self.divisor).tolist()
        cosine = F.cosine_similarity(images, words, dim=-1).clamp(-1.0, 1.0)
        if self.mode == "cosine":
            return (cosine / self.divisor).tolist()
        return (self.model.logit_scale.exp().float() * cosine / self.divisor).tolist()

    @cached_property
    def _identity(self) -> str:
        config = [type(self).__name__, self.mode, self.divisor, self.context]
        return f"{self.__name__}@{self.version}#{config_hash(config, self.model.state_dict())}"

    def identity(self) -> str:
        """Name, version and a hash of mode, context and weights."""
        return self._identity


class PickScore(CLIPScore):
    """PickScore, exp(logit_scale) * cosine / 26 (about [0.7, 1] for its own weights); `divisor=1` gives raw logits.

    Source: Flow-GRPO and Adv-GRPO divide by 26; RealGen uses the undivided logits.
    """

    default_model = "yuvalkirstain/PickScore_v1"
    default_processor = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    divisors = {"logits": 26.0}

    def __init__(self, model: Any = None, processor: Any = None, *, name: str = "pick_score", **options: Any) -> None:
        super().__init__(model, processor, mode="logits", name=name, **options)


class LongCLIPScore(CLIPScore):
    """RealGen's alignment reward by a LongCLIP model with a 248-token context: raw dot product / 100, or cosine.

    The default is LongCLIP-L converted to transformers' form (UNVERIFIED to be the same weights as the published
    `longclip-L.pt`, a pickle). Raises GuerdonError when a loaded model's context is shorter than `max_tokens`.
    """

    default_model = "zer0int/LongCLIP-L-Diffusers"

    def __init__(
        self,
        model: Any = None,
        processor: Any = None,
        *,
        mode: Mode = "dot",
        max_tokens: int = 248,
        name: str = "long_clip_score",
        **options: Any,
    ) -> None:
        super().__init__(model, processor, mode=mode, max_tokens=max_tokens, name=name, **options)
