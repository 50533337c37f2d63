"""`ScalarRewardModel`: any transformers backbone, a pooled state, a head, and one number for a conversation."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash
from guerdon.core.preferences import Message
from guerdon.metrics.pair_accuracy import rank_of
from guerdon.models.scalar import formats, saved
from guerdon.models.scalar.backbone import (
    default_dtype,
    freeze_parts,
    hidden_size,
    load_backbone,
    load_tokens,
    with_lora,
)
from guerdon.models.scalar.head import POOLINGS, HeadConfig, RewardHead, pool_hidden
from guerdon.models.scalar.tokens import PLAIN_TEMPLATE, Encoded, Encoder, collate, length_limit

log = logging.getLogger("guerdon.models.scalar")
Conversation = Sequence[Message] | str


class ScalarRewardModel(nn.Module):
    """r(conversation) = head(pool(backbone(tokens))), unbounded; only differences on one prompt mean something.

    A conversation's score does not depend on what shares its batch. It is messages (through the tokenizer's chat
    template), or a string, which is taken for text that was rendered already.

    backbone:      a transformers model that gives ``last_hidden_state``; text or vision-language (with ``processor``).
    head:          a `RewardHead` of the backbone's width.
    pooling:       "last", "mean", "first" or "token" (at ``reward_token``, then appended to every conversation).
    max_length:    tokens; default what tokenizer and backbone allow. too_long, system_prompt: see `tokens.Encoder`.
    frozen:        parts of the backbone out of training (`backbone.freeze_parts`). name: in logs.
    unread_token:  id that pooling "last" passes over at the end, as transformers' sequence classifiers pass over their
                   pad id even where it is a real last token (pad == eos); None for models trained here.

    Sources: Skywork-Reward-V2 (arXiv 2507.01352), sec. 4.1; BaseReward (arXiv 2509.16127), sec. 4.2; IXC-2.5-Reward
    (arXiv 2501.12368), from which ``scores``, ``compare`` and ``rank``.
    """

    def __init__(
        self,
        backbone: Any,
        tokenizer: Any,
        head: RewardHead,
        *,
        pooling: str = "last",
        reward_token: str | None = None,
        max_length: int | None = None,
        processor: Any = None,
        too_long: str = "cut",
        system_prompt: str = "allow",
        frozen: Iterable[str] = (),
        unread_token: int | None = None,
        name: str = "reward_model",
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise unknown("pooling", pooling, POOLINGS)
        if (pooling == "token") != (reward_token is not None):
            raise GuerdonError("pooling='token' and a reward_token go together; give both or neither")
        if getattr(backbone.config, "is_encoder_decoder", False):
            raise GuerdonError(f"{type(backbone).__name__} is an encoder-decoder; a reward model needs one stack")
        width = hidden_size(backbone)
        if head.hidden_size != width:
            raise GuerdonError(f"the head takes states of width {head.hidden_size}, the backbone's have {width}")
        self.backbone, self.head, self.pooling, self.name = backbone, head, pooling, name
        self.frozen, self.unread_token = tuple(frozen), unread_token
        freeze_parts(backbone, self.frozen)
        self.encoder = Encoder(
            tokenizer, max_length=max_length or length_limit(tokenizer, backbone.config), processor=processor,
            reward_token=reward_token, too_long=too_long, system_prompt=system_prompt,
        )  # fmt: skip
        self.source: str | None = None
        self._hashed: tuple[Any, str] = ((), "")

    @classmethod
    def on_backbone(
        cls,
        source: Any,
        *,
        tokenizer: Any = None,
        processor: Any = None,
        head: HeadConfig | None = None,
        pooling: str = "last",
        reward_token: str | None = None,
        max_length: int | None = None,
        freeze: Iterable[str] = (),
        lora: Any = None,
        seed: int = 0,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> ScalarRewardModel:
        """A new head on a backbone, to be trained: until then its scores mean nothing.

        source:        a hub id, a folder, or a transformers model (of a causal model its stack is taken) with
                       ``tokenizer`` or ``processor``.
        reward_token:  for pooling="token"; added to the tokenizer where it is missing.
        lora:          a rank, arguments of ``peft.LoraConfig``, or one; the head is trained and saved with it.
        seed:          of the head (and of what else is new). options: further arguments of the class.
        dtype:         of the backbone; default float32 on a CPU, as stored elsewhere.
        trust_remote_code:  run the backbone's own modelling code (default False).

        Raises GuerdonError where weights of the backbone are missing.
        """
        device = torch.device(device) if device is not None else torch.device("cpu")
        if isinstance(source, str | Path):
            loading: dict[str, Any] = {"dtype": dtype or default_dtype(device), "trust_remote_code": trust_remote_code}
            backbone = load_backbone(str(source), **loading)
            tokenizer, processor = load_tokens(str(source), backbone.config, tokenizer, processor)
        else:
            backbone = source.base_model if isinstance(source, PreTrainedModel) else source
            tokenizer = tokenizer if tokenizer is not None else getattr(processor, "tokenizer", None)
            if tokenizer is None:
                raise GuerdonError(f"{type(source).__name__} comes without a tokenizer; pass tokenizer= or processor=")
        if not getattr(processor if processor is not None else tokenizer, "chat_template", None):
            tokenizer.chat_template = PLAIN_TEMPLATE
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            grown = reward_token is not None and _add_token(tokenizer, backbone, reward_token)
            made = RewardHead(hidden_size(backbone), **(head or HeadConfig()).model_dump())
            freeze = tuple(freeze)
            if lora is not None:
                backbone = with_lora(backbone, lora, freeze)
        model = cls(
            backbone, tokenizer, made, pooling=pooling, reward_token=reward_token, max_length=max_length,
            processor=processor, frozen=freeze, **options,
        )  # fmt: skip
        # With LoRA only the adapters are saved, and the backbone is found again by its name: if nothing else changed.
        model.source = str(source) if isinstance(source, str | Path) and not grown else None
        return model.to(device)

    @classmethod
    def from_pretrained(cls, path: str | Path, **options: Any) -> ScalarRewardModel:
        """Load a reward model, in evaluation mode: a folder of `save_pretrained`, or a published checkpoint.

        path:               folder or hub id.
        trust_remote_code:  run the checkpoint's own modelling code, where its layout needs that (default False).
        device, dtype:      default the CPU in float32, elsewhere as stored.
        pooling, reward_token, max_length, too_long, system_prompt:  for published checkpoints, which do not say them
                            (defaults by layout); for our own folders only the last three.

        Raises GuerdonError for a checkpoint without a reward head (one is never made up), a head of another width than
        1, missing or unknown weights, and one of ours that no longer gives the scores it was saved with.
        """
        folder = formats.locate(str(path))
        if (folder / saved.SETTINGS).is_file():
            return saved.load(cls, folder, **options)
        return formats.load(cls, folder, **options)

    def save_pretrained(self, path: str | Path, *, check: bool = True) -> Path:
        """Write head, backbone (or its LoRA adapters), tokenizer and settings; safetensors and JSON.

        With ``check`` the folder is loaded again and must give the same scores, else GuerdonError.
        """
        return saved.save(self, Path(path), check=check)

    # -- what it is made of

    @property
    def tokenizer(self) -> Any:
        return self.encoder.tokenizer

    @property
    def processor(self) -> Any:
        return self.encoder.processor

    @property
    def max_length(self) -> int:
        return self.encoder.max_length

    @property
    def config(self) -> Any:
        """The backbone's configuration, where transformers looks for it."""
        return self.backbone.config

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def settings(self) -> dict[str, Any]:
        """What makes this a reward model, beside the weights."""
        encoder = self.encoder
        return {
            "name": self.name, "pooling": self.pooling, "reward_token": encoder.reward_token,
            "max_length": encoder.max_length, "too_long": encoder.too_long, "system_prompt": encoder.system_prompt,
            "head": self.head.config, "frozen": list(self.frozen), "unread_token": self.unread_token,
        }  # fmt: skip

    def identity(self) -> str:
        """``name@1#hash`` over settings, chat template, architecture and all weights as they are now."""
        # Hashing gigabytes for each batch would cost more than scoring it. A change in place raises the version, one
        # through ``.data`` does not, but moves the few values that are looked at.
        tensors = self.state_dict(keep_vars=True).values()
        few = torch.cat([one.detach().reshape(-1)[:: max(1, one.numel() // 8)].float().cpu() for one in tensors])
        state = (tuple((one.data_ptr(), one._version) for one in tensors), tuple(few.tolist()))
        if self._hashed[0] != state:
            renderer = self.processor if self.processor is not None else self.tokenizer
            settings = {key: value for key, value in self.settings.items() if key not in ("name", "frozen")}
            told = [settings, getattr(renderer, "chat_template", None), _architecture(self.config.to_dict())]
            self._hashed = (state, config_hash(told, self.state_dict()))
        return f"{self.name}@1#{self._hashed[1]}"

    # -- tensors

    def encode(self, conversation: Conversation, images: Sequence[Any] = (), *, split: bool = False) -> Encoded:
        """Token ids of a conversation and what is known about them; see `tokens.Encoder`."""
        return self.encoder(conversation, images, split=split)

    def batch(self, encoded: Sequence[Encoded], *, side: str = "right") -> dict[str, Tensor]:
        """Inputs of ``forward`` for some encoded conversations, padded on one ``side``, on the model's device."""
        return {name: value.to(self.device) for name, value in collate(encoded, self.encoder.pad_id, side=side).items()}

    def states(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None = None, **pictures: Any
    ) -> Tensor:
        """The backbone's last states: [B, T] -> [B, T, d]. Without ``position_ids`` padding must be on the right."""
        extra: dict[str, Any] = dict(pictures)
        if pictures.get("pixel_values") is not None and self._takes("mm_token_type_ids"):
            extra["mm_token_type_ids"] = (input_ids == self.config.image_token_id).int()
        if position_ids is not None:
            extra["position_ids"] = position_ids
        if hasattr(self.config.get_text_config(), "use_cache"):
            extra["use_cache"] = False
        return self.backbone(input_ids=input_ids, attention_mask=attention_mask, **extra).last_hidden_state

    def hidden(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None = None, **pictures: Any
    ) -> Tensor:
        """The pooled state that the head reads: [B, T] with padding on any side -> [B, d]."""
        if position_ids is None:
            # Every architecture counts positions from the first token right when the padding comes last.
            input_ids, attention_mask = _padded_right(input_ids, attention_mask)
        return self.pool(self.states(input_ids, attention_mask, position_ids, **pictures), attention_mask, input_ids)

    def pool(self, states: Tensor, attention_mask: Tensor, input_ids: Tensor) -> Tensor:
        """States [B, T, d] of sequences [B, T] -> [B, d], at the place or places that this model reads."""
        if self.pooling == "last" and self.unread_token is not None:
            attention_mask = attention_mask * (input_ids != self.unread_token)
        return pool_hidden(states, attention_mask, self.pooling, input_ids, self.encoder.reward_id)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None = None, **pictures: Any
    ) -> Tensor:
        """Rewards of token sequences [B, T] (mask 1 = real, padding on any side) -> float32 [B]."""
        return self.head(self.hidden(input_ids, attention_mask, position_ids, **pictures))

    # -- conversations

    def score(
        self,
        conversations: Sequence[Conversation],
        *,
        images: Sequence[Sequence[Any]] | None = None,
        progress: str | None = None,
        **batching: Any,
    ) -> Tensor:
        """Rewards of conversations -> float32 [N] on the CPU, without gradient and in evaluation mode.

        images:    the pictures of each conversation (see `tokens.Encoder`).
        progress:  what a progress bar should say; None for no bar.
        batching:  arguments of `batching.score_encoded`, none of which changes a score.

        Conversations that had to be cut are counted, and the count is logged as a warning.
        """
        if isinstance(conversations, str):
            raise GuerdonError("score takes a list of conversations, got a single string")
        shown = images if images is not None else [()] * len(conversations)
        if len(shown) != len(conversations):
            raise GuerdonError(f"{len(conversations)} conversations come with pictures for {len(shown)}")
        encoded = self.encoder.many(conversations, shown)
        self.report_cuts(encoded)
        return self.score_encoded(encoded, progress=progress, **batching)

    def score_encoded(self, encoded: Sequence[Encoded], **batching: Any) -> Tensor:
        """Rewards of encoded conversations -> float32 [N] on the CPU; arguments of `batching.score_encoded`."""
        from guerdon.models.scalar.batching import score_encoded

        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                return torch.as_tensor(score_encoded(self, list(encoded), **batching)).float().cpu()
        finally:
            self.train(training)

    def report_cuts(self, encoded: Sequence[Encoded]) -> int:
        """How many of these conversations lost tokens to the length limit; logs a warning if any did."""
        cut = [one.truncated for one in encoded if one.truncated]
        if cut:
            log.warning(
                "%d of %d conversations are longer than %d tokens: the beginning of their prompts is left out, "
                "%d tokens together (too_long='fail' refuses them)", len(cut), len(encoded), self.max_length, sum(cut),
            )  # fmt: skip
        return len(cut)

    def scores(self, conversations: Sequence[Conversation], images: Any = None) -> list[float]:
        """`score` as a list of floats (the name that IXC-2.5-Reward's users know)."""
        return self.score(conversations, images=images).tolist()

    def compare(self, first: Conversation, second: Conversation, images: Sequence[Any] = ()) -> bool:
        """Whether the first conversation scores strictly higher than the second."""
        one, other = self.scores([first, second], [images, images])
        return one > other

    def rank(self, conversations: Sequence[Conversation], images: Any = None) -> list[int]:
        """The rank of each conversation, 0 = best (not the order that sorts them); equal scores share the better."""
        return rank_of(self.score(conversations, images=images))

    def _takes(self, argument: str) -> bool:
        base = self.backbone.get_base_model() if hasattr(self.backbone, "get_base_model") else self.backbone
        return argument in inspect.signature(base.forward).parameters


def _add_token(tokenizer: Any, backbone: Any, token: str) -> bool:
    """Make ``token`` one of the vocabulary; True where the table of embeddings had to grow for it."""
    tokenizer.add_special_tokens({"extra_special_tokens": [token]}, replace_extra_special_tokens=False)
    if len(tokenizer) <= backbone.get_input_embeddings().num_embeddings:
        return False
    backbone.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return True


def _architecture(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what saving and loading change in it."""
    told = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "auto_map"}
    return {
        key: _architecture(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in told
    }


def _padded_right(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows with their real tokens first, in order."""
    if bool((mask[:, 1:] <= mask[:, :-1]).all()):
        return ids, mask
    order = torch.argsort(mask.bool().logical_not().long(), dim=1, stable=True)
    return ids.gather(1, order), mask.gather(1, order)
