"""A reward model as a folder: settings, head, backbone or adapters, and the scores by which it is known again."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.preferences import text_of
from guerdon.models.detectors.small import load_strictly
from guerdon.models.scalar.backbone import default_dtype, first_line, hidden_size, load_backbone, load_tokens, quiet
from guerdon.models.scalar.head import HeadConfig, RewardHead
from guerdon.models.scalar.tokens import Encoded

SETTINGS, HEAD, BACKBONE, ADAPTER = "reward_model.json", "head.safetensors", "backbone", "adapter"
FORMAT = 1
# What a model is asked when it is saved and when it is loaded: other scores mean that it is another model.
_PROBES = (("Is it so?", "Yes, it is."), ("Name a colour that you like and say why.", "I cannot do that."))


def save(model: Any, folder: Path, *, check: bool = True) -> Path:
    """See `ScalarRewardModel.save_pretrained`. A folder that was written in part holds no settings, so never loads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).unlink(missing_ok=True)
    record: dict[str, Any] = {"format": FORMAT, **model.settings, "adapter": None}
    backbone = model.backbone
    with quiet():
        if isinstance(backbone, PeftModel):
            record["adapter"] = {"base": model.source}
            _save_adapted(backbone, folder, whole=model.source is None)
        else:
            backbone.save_pretrained(folder / BACKBONE)
    model.tokenizer.save_pretrained(folder / BACKBONE)
    if model.processor is not None:
        _save_processor(model.processor, folder / BACKBONE)
    save_file({key: value.contiguous().cpu() for key, value in model.head.state_dict().items()}, folder / HEAD)
    record["dtype"] = str(next(backbone.parameters()).dtype).removeprefix("torch.")
    record["probes"] = _probe_scores(model)
    (folder / SETTINGS).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if check:
        type(model).from_pretrained(folder, dtype=next(backbone.parameters()).dtype)
    return folder


def load(
    cls: Any,
    folder: Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    max_length: int | None = None,
    too_long: str | None = None,
    system_prompt: str | None = None,
    name: str | None = None,
    trust_remote_code: bool = False,
    **fixed: Any,
) -> Any:
    """See `ScalarRewardModel.from_pretrained`."""
    record = _record(folder)
    for key, value in fixed.items():
        if key not in ("pooling", "reward_token"):
            raise unknown("argument of from_pretrained", key, ("device", "dtype", "max_length", "too_long", "name"))
        if value is not None and value != record[key]:
            raise GuerdonError(f"{folder}: this model was trained with {key}={record[key]!r}, not {value!r}")
    device = torch.device(device) if device is not None else torch.device("cpu")
    loading = {"dtype": dtype or default_dtype(device), "trust_remote_code": trust_remote_code}
    backbone = _load_backbone(folder, record, loading)
    head = RewardHead(hidden_size(backbone), **record["head"])
    load_strictly(head, _head_state(folder, record), str(folder / HEAD))
    tokenizer, processor = load_tokens(str(folder / BACKBONE), backbone.config)
    model = cls(
        backbone, tokenizer, head, pooling=record["pooling"], reward_token=record["reward_token"],
        max_length=max_length or record["max_length"], processor=processor, too_long=too_long or record["too_long"],
        system_prompt=system_prompt or record["system_prompt"], frozen=record["frozen"],
        unread_token=record["unread_token"], name=name or record["name"],
    )  # fmt: skip
    model.source = (record["adapter"] or {}).get("base")
    model = model.to(device).eval()
    _check_probes(model, record, folder)
    return model


def _record(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    needed = ("pooling", "reward_token", "max_length", "too_long", "system_prompt", "head", "frozen", "unread_token")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise GuerdonError(f"{path}: format {record['format']!r} is not {FORMAT}; a newer guerdon wrote it")
        missing = [key for key in (*needed, "name", "adapter", "dtype", "probes") if key not in record]
        if missing:
            raise KeyError(missing[0])
        HeadConfig(**record["head"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GuerdonError(f"{path}: not the settings of a reward model ({error!r})") from error
    return record


def _head_state(folder: Path, record: dict[str, Any]) -> dict[str, torch.Tensor]:
    if not (folder / HEAD).is_file():
        raise GuerdonError(f"{folder}: a checkpoint without a head ({HEAD} is missing); one is never made up")
    try:
        state = load_file(folder / HEAD)
    except SafetensorError as error:
        raise GuerdonError(f"{folder / HEAD}: not a safetensors file ({error})") from error
    weights = sorted((int(key.split(".")[1]), key) for key in state if key.endswith(".weight"))
    if weights and len(state[weights[-1][1]]) != 1:
        raise GuerdonError(f"{folder / HEAD}: a head of width {len(state[weights[-1][1]])}; a reward has width 1")
    return state


def _load_backbone(folder: Path, record: dict[str, Any], loading: dict[str, Any]) -> Any:
    if record["adapter"] is None:
        return load_backbone(str(folder / BACKBONE), strict=True, **loading)
    base = load_backbone(record["adapter"]["base"] or str(folder / BACKBONE), **loading)
    try:
        stored = load_file(folder / ADAPTER / "adapter_model.safetensors")
        with quiet():
            backbone = PeftModel.from_pretrained(base, str(folder / ADAPTER), is_trainable=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise GuerdonError(f"{folder / ADAPTER}: cannot load the adapters: {first_line(error)}") from error
    own = get_peft_model_state_dict(backbone, save_embedding_layers=False)
    for key in sorted(set(stored) ^ set(own)):
        kind = "unknown weight" if key in stored else "missing weight"
        raise GuerdonError(f"{folder / ADAPTER}: {kind} {key!r}")
    return backbone


def _save_adapted(backbone: PeftModel, folder: Path, *, whole: bool) -> None:
    """Adapters, and what they stand on: ``whole``, or its configuration where it can be found again by its name."""
    backbone.save_pretrained(str(folder / ADAPTER), save_embedding_layers=False)
    base: Any = backbone.get_base_model()
    if whole:
        base.save_pretrained(folder / BACKBONE, state_dict=_without_adapters(base.state_dict()))
    else:
        base.config.save_pretrained(folder / BACKBONE)


def _without_adapters(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A base model's weights under their own names, from a model that adapters were put into."""
    kept = {key: value for key, value in state.items() if ".lora_" not in key and ".modules_to_save." not in key}
    return {key.replace(".base_layer.", ".").replace(".original_module.", "."): value for key, value in kept.items()}


def _save_processor(processor: Any, folder: Path) -> None:
    if hasattr(processor, "save_pretrained"):
        processor.save_pretrained(folder)
        return
    processor.image_processor.save_pretrained(folder)
    if processor.chat_template is not None:
        (folder / "chat_template.jinja").write_text(processor.chat_template, encoding="utf-8")


def _encoded_probes(model: Any) -> list[Encoded]:
    encoder = copy.copy(model.encoder)
    encoder.too_long = "cut"
    turns = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in _PROBES]
    renderer = model.processor if model.processor is not None else model.tokenizer
    if not getattr(renderer, "chat_template", None):
        return [encoder(text_of(turn)) for turn in turns]
    made = [encoder(turn) for turn in turns]
    if model.processor is not None:
        picture = Image.linear_gradient("L").resize((56, 56)).convert("RGB")
        if len(shown := encoder(turns[0], [picture])) <= model.max_length:
            made.append(shown)
    return made


@torch.no_grad()
def _probe_scores(model: Any) -> list[float]:
    training = model.training
    model.eval()
    try:
        return [float(model(**model.batch([one]))) for one in _encoded_probes(model)]
    finally:
        model.train(training)


def _check_probes(model: Any, record: dict[str, Any], folder: Path) -> None:
    """Raise GuerdonError unless the loaded model gives the scores that were written down when it was saved."""
    encoder = model.encoder
    model.encoder = copy.copy(encoder)
    model.encoder.max_length = record["max_length"]  # the caller may have asked for another
    try:
        scores = _probe_scores(model)
    finally:
        model.encoder = encoder
    exact = record["dtype"] == "float32" == str(next(model.backbone.parameters()).dtype).removeprefix("torch.")
    for stored, score in zip(record["probes"], scores, strict=True):
        allowed = (1e-4 if exact and model.device.type == "cpu" else 5e-2) * max(1.0, abs(stored))
        if not abs(stored - score) <= allowed:
            raise GuerdonError(
                f"{folder}: the loaded model scores {score:.6g} where the saved one scored {stored:.6g}; weights, "
                "tokenizer or base model are not those that were saved"
            )
