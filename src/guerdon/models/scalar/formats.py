"""Published reward models: how each layout names its weights, and how its scores are read.

sequence classification   ``score.weight`` on a transformers stack, one label (Skywork-Reward-V2, and what TRL and
                          OpenRLHF train); also as LoRA adapters that keep their ``score`` (TRL with PEFT).
v_head                    ``v_head.weight`` on a transformers stack, or on InternLM2's (InternLM2-Reward, POLAR), which
                          is Llama's with other names and the three attention projections in one matrix: it is loaded
                          as ``LlamaModel``, so none of the checkpoint's own code runs.
encoder classifier        DeBERTa's ``pooler`` and ``classifier`` (OpenAssistant's reward models, ReMoDetect): see
                          `pooled_classifier`.
InternLM-XComposer        InternLM2's with vision tower and P-LoRA beside it (IXC-2.5-Reward). P-LoRA acts at pictures
                          only; without the checkpoint's code the model is loaded for text and refuses pictures.

Every weight of a checkpoint must have its place. Checkpoints of other layouts need ``trust_remote_code=True``, which
runs the code that they carry. UNVERIFIED: the layouts of POLAR and IXC were checked against weights made here in them,
since their modelling files were not at hand; names follow vLLM's and LMDeploy's loaders of the same models. IXC's data
code puts ``</s>`` before the reward token; here the chat template alone says what stands there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForSequenceClassification, LlamaConfig, LlamaModel

from guerdon.core.errors import GuerdonError
from guerdon.models.detectors.small import load_strictly
from guerdon.models.scalar import pooled_classifier
from guerdon.models.scalar.backbone import default_dtype, first_line, hidden_size, load_tokenizer, quiet
from guerdon.models.scalar.head import RewardHead

HEADS = ("score.weight", "v_head.weight")
_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py"]
_ADAPTER = "adapter_model.safetensors"

_INTERNLM2 = (
    (r"^model\.tok_embeddings\.weight$", "embed_tokens.weight"),
    (r"^model\.norm\.weight$", "norm.weight"),
    (r"^model\.(layers\.\d+)\.attention\.wo\.weight$", r"\1.self_attn.o_proj.weight"),
    (r"^model\.(layers\.\d+)\.feed_forward\.w1\.weight$", r"\1.mlp.gate_proj.weight"),
    (r"^model\.(layers\.\d+)\.feed_forward\.w2\.weight$", r"\1.mlp.down_proj.weight"),
    (r"^model\.(layers\.\d+)\.feed_forward\.w3\.weight$", r"\1.mlp.up_proj.weight"),
    (r"^model\.(layers\.\d+)\.attention_norm\.weight$", r"\1.input_layernorm.weight"),
    (r"^model\.(layers\.\d+)\.ffn_norm\.weight$", r"\1.post_attention_layernorm.weight"),
)
_WQKV = re.compile(r"^model\.(layers\.\d+)\.attention\.wqkv\.weight$")
_PICTURES_ONLY = re.compile(r"^(vit\.|vision_proj\.|plora_)|\.Plora_[AB]\.weight$")


def locate(path: str) -> Path:
    """The folder of a local path or hub id (from the hub, or what of it is on this machine)."""
    if Path(path).is_dir():
        return Path(path)
    if Path(path).exists():
        raise GuerdonError(f"{path} is a file; a reward model is a folder or a hub id")
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise GuerdonError(f"there is no folder {path}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, allow_patterns=_FILES))
    except Exception as error:  # the hub's client has a dozen kinds of them
        raise GuerdonError(f"{path} is no folder, and the hub does not give it: {type(error).__name__}") from error


def load(
    cls: Any,
    folder: Path,
    *,
    trust_remote_code: bool = False,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    tokenizer: Any = None,
    pooling: str | None = None,
    reward_token: str | None = None,
    **options: Any,
) -> Any:
    """See `ScalarRewardModel.from_pretrained`; ``options`` go to the class."""
    device = torch.device(device) if device is not None else torch.device("cpu")
    kind: Any = dtype or default_dtype(device)
    if (folder / _ADAPTER).is_file() and not (folder / "config.json").is_file():
        backbone, weight, bias = _adapted_classifier(folder, kind)
        layout = "score.weight"
    else:
        layout, sizes = _head_of(folder)
        if layout == pooled_classifier.HEAD and sizes[0] == 1:
            found = _loaded(AutoModelForSequenceClassification, folder, dtype=kind, num_labels=1)
            tokenizer = tokenizer or load_tokenizer(str(folder), trust_remote_code=trust_remote_code)
            options = {"name": folder.name, "pooling": pooling, "reward_token": reward_token, **options}
            return pooled_classifier.reward_model(cls, found, tokenizer, **options).to(device).eval()
        if sizes[0] != 1:
            raise GuerdonError(f"{folder}: a head of width {sizes[0]} ({layout!r}); a reward has width 1")
        backbone, weight, bias = _loader(folder, layout, trust_remote_code)(folder, kind)
    if tokenizer is None:
        tokenizer = load_tokenizer(str(folder), trust_remote_code=trust_remote_code)
    head = RewardHead(hidden_size(backbone), bias=bias is not None)
    load_strictly(head, {"layers.0.weight": weight} | ({} if bias is None else {"layers.0.bias": bias}), str(folder))
    if layout == "score.weight":
        options.setdefault("unread_token", backbone.config.get_text_config().pad_token_id)
    elif pooling is None and reward_token is None:
        token_id = _json(folder / "config.json").get("reward_token_id")
        reward_token = None if token_id is None else tokenizer.convert_ids_to_tokens(int(token_id))
    pooling = pooling or ("last" if reward_token is None else "token")
    options.setdefault("name", folder.name)
    model = cls(backbone, tokenizer, head, pooling=pooling, reward_token=reward_token, **options)
    return model.to(device).eval()


def _head_of(folder: Path) -> tuple[str, list[int]]:
    """Name and shape of the head's weight. Raises GuerdonError where there is none."""
    shapes = _shapes(folder)
    for name in HEADS:
        if name in shapes:
            return name, shapes[name]
    if pooled_classifier.HEAD in shapes and pooled_classifier.known(_json(folder / "config.json")):
        return pooled_classifier.HEAD, shapes[pooled_classifier.HEAD]
    other = next((key for key in shapes if re.match(r"(classifier|score|value_head|v_head|reward_head)\b", key)), None)
    if other is not None:
        raise GuerdonError(f"{folder}: its head {other!r} is of an unknown layout; known heads: {', '.join(HEADS)}")
    raise GuerdonError(
        f"{folder}: a checkpoint without a reward head, and one is never made up; "
        "to train a new head on it use ScalarRewardModel.on_backbone"
    )


def _loader(folder: Path, layout: str, trust: bool) -> Any:
    if any(_WQKV.match(key) for key in _shapes(folder)):
        return _internlm2
    config = _json(folder / "config.json")
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
        if not trust:
            raise GuerdonError(
                f"{folder}: model type {config.get('model_type')!r} runs code that the checkpoint carries; "
                "read it, then pass trust_remote_code=True"
            )
        return _remote
    return _classifier if layout == "score.weight" else _v_head


def _classifier(folder: Path, dtype: Any) -> tuple[Any, Tensor, Tensor | None]:
    model = _loaded(AutoModelForSequenceClassification, folder, dtype=dtype, num_labels=1)
    return model.base_model, model.score.weight.detach(), model.score.bias


def _v_head(folder: Path, dtype: Any) -> tuple[Any, Tensor, Tensor | None]:
    head = {"v_head.weight", "v_head.bias"}
    backbone = _loaded(AutoModel, folder, beside=head, dtype=dtype)
    state = _tensors(folder, head)
    return backbone, state["v_head.weight"], state.get("v_head.bias")


def _internlm2(folder: Path, dtype: Any) -> tuple[Any, Tensor, Tensor | None]:
    config = _json(folder / "config.json")
    try:
        heads, groups = int(config["num_attention_heads"]), int(config["num_key_value_heads"])
        shape = {key: config[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
        rope = {"rope_type": "default", "rope_theta": float(config["rope_theta"])}
        scaling = config.get("rope_scaling") or {}
        if scaling:
            rope |= {"rope_type": scaling.get("rope_type", scaling.get("type")), "factor": float(scaling["factor"])}
        stack: Any = LlamaModel(
            LlamaConfig(
                **shape,
                num_attention_heads=heads,
                num_key_value_heads=groups,
                rope_parameters=rope,
                hidden_act=config.get("hidden_act", "silu"),
                rms_norm_eps=config["rms_norm_eps"],
                max_position_embeddings=config["max_position_embeddings"],
                attention_bias=False,
                bos_token_id=config.get("bos_token_id"),
                eos_token_id=config.get("eos_token_id"),
                pad_token_id=config.get("pad_token_id"),
            )  # fmt: skip
        )
    except KeyError as error:
        raise GuerdonError(f"{folder / 'config.json'}: the key {error} is missing") from error
    state = _tensors(folder)
    head = {key: state.pop(key, None) for key in ("v_head.weight", "v_head.bias")}
    load_strictly(stack, internlm2_weights(state, heads, groups), str(folder))
    assert head["v_head.weight"] is not None
    kind = next(iter(state.values())).dtype if dtype == "auto" else dtype
    return stack.to(kind), head["v_head.weight"], head["v_head.bias"]


def internlm2_weights(state: Mapping[str, Tensor], heads: int, groups: int) -> dict[str, Tensor]:
    """InternLM2's weights under the names of transformers' ``LlamaModel``; weights for pictures are left out.

    ``wqkv`` [(groups (heads/groups + 2) size), d] holds, for each of the key-value ``groups``, its query heads, its key
    head and its value head. A name that is not known keeps it, so that strict loading reports it.
    """
    named: dict[str, Tensor] = {}
    for key, value in state.items():
        if _PICTURES_ONLY.search(key):
            continue
        if found := _WQKV.match(key):
            queries, size = heads // groups, value.shape[0] // (heads + 2 * groups)
            split = value.reshape(groups, queries + 2, size, value.shape[1])
            parts = {"q": split[:, :queries], "k": split[:, queries], "v": split[:, queries + 1]}
            for letter, part in parts.items():
                named[f"{found[1]}.self_attn.{letter}_proj.weight"] = part.reshape(-1, value.shape[1])
            continue
        new = next((re.sub(old, to, key) for old, to in _INTERNLM2 if re.match(old, key)), key)
        named[new] = value
    return named


def _remote(folder: Path, dtype: Any) -> tuple[Any, Tensor, Tensor | None]:
    """By the checkpoint's own code, which the caller asked for."""
    model = _loaded(AutoModel, folder, dtype=dtype, trust_remote_code=True)
    head = next((getattr(model, name) for name in ("v_head", "score") if hasattr(model, name)), None)
    stack = model.base_model
    if head is None or stack is model:
        raise GuerdonError(f"{folder}: {type(model).__name__} has no v_head or score beside its stack")
    return stack, head.weight.detach(), head.bias


def _adapted_classifier(folder: Path, dtype: Any) -> tuple[Any, Tensor, Tensor | None]:
    """LoRA adapters of a sequence classifier, merged; their ``score`` must be among them."""
    from peft import PeftModel

    base = _json(folder / "adapter_config.json").get("base_model_name_or_path")
    with safe_open(folder / _ADAPTER, framework="pt") as file:
        heads = [key for key in file.keys() if re.search(r"\bscore\b.*weight$", key) and ".lora_" not in key]
        sizes = [file.get_slice(key).get_shape() for key in heads]
    if not heads:
        raise GuerdonError(
            f"{folder}: LoRA adapters without a reward head, and one is never made up; "
            "train with modules_to_save=['score'] to keep it"
        )
    if sizes[0][0] != 1:
        raise GuerdonError(f"{folder}: a head of width {sizes[0][0]} ({heads[0]!r}); a reward has width 1")
    try:
        with quiet():
            bare = AutoModelForSequenceClassification.from_pretrained(str(base), num_labels=1, dtype=dtype)
            model: Any = PeftModel.from_pretrained(bare, folder).merge_and_unload()
    except (OSError, ValueError, RuntimeError) as error:
        raise GuerdonError(f"{folder}: cannot load adapters over {base!r}: {first_line(error)}") from error
    return model.base_model, model.score.weight.detach(), model.score.bias


def _loaded(kind: Any, folder: Path, *, beside: Iterable[str] = (), **options: Any) -> Any:
    """A transformers model of which every weight was in the checkpoint, and none else but those ``beside`` it."""
    try:
        with quiet():
            model, report = kind.from_pretrained(
                folder, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise GuerdonError(f"{folder}: cannot be loaded: {first_line(error)}") from error
    for which in ("missing", "unexpected", "mismatched"):
        found = {key if isinstance(key, str) else key[0] for key in report[f"{which}_keys"]}
        keys = sorted(found.difference(beside))
        if keys:
            raise GuerdonError(f"{folder}: {len(keys)} {which} weights, first {keys[0]!r}")
    return model


def _shards(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        why = f"{pickled[0]} is a pickle, which is never loaded" if pickled else "there are no weights"
        raise GuerdonError(f"{folder}: no reward model here, {why}; save it as safetensors")
    return files


def _shapes(folder: Path) -> dict[str, list[int]]:
    if not (folder / "config.json").is_file():
        raise GuerdonError(f"{folder}: no reward model here, neither reward_model.json nor config.json")
    shapes: dict[str, list[int]] = {}
    for path in _shards(folder):
        try:
            with safe_open(path, framework="pt") as file:
                shapes |= {key: list(file.get_slice(key).get_shape()) for key in file.keys()}
        except SafetensorError as error:
            raise GuerdonError(f"{path}: not a safetensors file ({error})") from error
    return shapes


def _tensors(folder: Path, only: set[str] | None = None) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in _shards(folder):
        with safe_open(path, framework="pt") as file:
            found |= {key: file.get_tensor(key) for key in file.keys() if only is None or key in only}
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GuerdonError(f"{path}: not readable as JSON ({error})") from error
