"""Reward models made of an encoder: DeBERTa's pooler and classifier as pooling "first" and a head of two layers.

    r(text) = w . gelu(W h_[CLS] + b) + c

So OpenAssistant's reward models and ReMoDetect's detector score, train and save as every other reward model here. The
prompt and the answer of a conversation are joined by the separator, as these models were trained; a text alone has no
prompt. Dropout before the two layers, which acts in training only, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guerdon.core.errors import GuerdonError
from guerdon.models.detectors.small import load_strictly
from guerdon.models.scalar.head import RewardHead

HEAD = "classifier.weight"
MODEL_TYPES = ("deberta-v2",)
SEPARATED_TEMPLATE = (
    "{% for message in messages %}{% if not loop.first %}{{ sep_token }}{% endif %}{{ message['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}{{ sep_token }}{% endif %}"
)


def known(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint of this configuration is of this layout."""
    return config.get("model_type") in MODEL_TYPES


def reward_model(
    cls: Any, model: Any, tokenizer: Any, *, pooling: str | None = None, reward_token: str | None = None, **options: Any
) -> Any:
    """A `ScalarRewardModel` of a transformers sequence classifier with one label, whose scores it gives.

    Raises GuerdonError for another pooling, or a pooler whose activation is not GELU.
    """
    if pooling not in (None, "first") or reward_token is not None:
        raise GuerdonError(f"{options.get('name', 'this model')}: an encoder's classifier reads the first token only")
    config = model.config
    activation = getattr(config, "pooler_hidden_act", "gelu")
    if activation != "gelu":
        raise GuerdonError(f"{options.get('name', 'this model')}: a pooler with activation {activation!r}, not 'gelu'")
    head = RewardHead(int(config.hidden_size), num_layers=2, activation="gelu", width=int(config.pooler_hidden_size))
    weights = {f"layers.0.{name}": value for name, value in model.pooler.dense.state_dict().items()}
    weights |= {f"layers.2.{name}": value for name, value in model.classifier.state_dict().items()}
    load_strictly(head, weights, str(options.get("name", "classifier")))
    if not getattr(tokenizer, "chat_template", None):
        tokenizer.chat_template = SEPARATED_TEMPLATE
    return cls(model.base_model, tokenizer, head, pooling="first", **options)
