"""Who a reward is: its name, its version, and a hash over its configuration and weights."""

from __future__ import annotations

import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any


def name_of(reward: Any) -> str:
    """The name a reward goes by: its ``__name__``, else the name of what a partial wraps, else its class."""
    while isinstance(reward, functools.partial) and not hasattr(reward, "__name__"):
        reward = reward.func
    return str(getattr(reward, "__name__", type(reward).__name__))


def declared(reward: Any, attribute: str, default: Any) -> Any:
    """What the reward, or the function inside a partial of it, declares as ``attribute``."""
    while isinstance(reward, functools.partial) and not hasattr(reward, attribute):
        reward = reward.func
    return getattr(reward, attribute, default)


def identity(reward: Any) -> str:
    """``name@version#hash12`` over the reward's configuration and weights; a reward's own ``identity()`` wins.

    Configuration: the ``config`` attribute (mapping, pydantic model or dataclass), else the instance's attributes; for
    a function its defaults, closure and partial arguments, and, where it declares no version, its source text.
    Weights: ``state_dict()`` or ``parameters()`` of the reward and of its attributes. A tensor of more than 2**20
    elements is hashed by 2**18 evenly spaced ones, so that identities stay cheap for models of many gigabytes.
    """
    own = getattr(reward, "identity", None)
    if callable(own) and not isinstance(reward, type):
        return str(own())
    version = declared(reward, "version", None)
    digest = hashlib.sha256()
    for line in _fingerprint(reward, version is not None, 0, ()):
        digest.update(line)
    return f"{name_of(reward)}@{version if version is not None else '0'}#{digest.hexdigest()[:12]}"


def config_hash(config: Any, tensors: Mapping[str, Any] | None = None) -> str:
    """12 hex digits over a configuration (JSON-like, pydantic, dataclass) and named tensors: for ``identity()``."""
    digest = hashlib.sha256()
    for line in _fingerprint(config, True, 0, ()):
        digest.update(line)
    for line in _fingerprint(dict(tensors or {}), True, 0, ()):
        digest.update(line)
    return digest.hexdigest()[:12]


def _fingerprint(value: Any, versioned: bool, depth: int, path: tuple[int, ...]) -> Iterator[bytes]:
    """The bytes that stand for a value, the same in every process; ``path`` holds the ids of the values around it."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        yield f"{type(value).__name__}:{value!r};".encode()
        return
    if id(value) in path or depth > 12:
        yield b"cycle;"
        return
    path = (*path, id(value))
    deeper = functools.partial(_fingerprint, versioned=versioned, depth=depth + 1, path=path)
    if hasattr(value, "detach") or type(value).__module__ == "numpy" and hasattr(value, "tobytes"):
        yield from _array_bytes(value)
    elif isinstance(value, Mapping):
        yield b"{"
        for key in sorted(value, key=repr):
            yield f"{key!r}=".encode()
            yield from deeper(value[key])
        yield b"}"
    elif isinstance(value, list | tuple):
        yield b"["
        for item in value:
            yield from deeper(item)
        yield b"]"
    elif isinstance(value, set | frozenset):
        yield f"set:{sorted(map(repr, value))};".encode()
    elif hasattr(value, "model_dump"):
        yield from deeper(value.model_dump(mode="json"))
    elif is_dataclass(value) and not isinstance(value, type) and not callable(value):
        yield from deeper(asdict(value))
    elif isinstance(value, functools.partial):
        yield from deeper(value.func)
        yield from deeper([list(value.args), value.keywords])
    elif inspect.ismethod(value):
        yield from deeper(value.__self__)
        yield value.__name__.encode()
    elif inspect.isfunction(value):
        yield from _function_parts(value, versioned, deeper)
    elif isinstance(value, type) or inspect.isbuiltin(value) or inspect.ismodule(value):
        yield f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', value)};".encode()
    else:
        yield from _object_parts(value, deeper)


def _function_parts(function: Any, versioned: bool, deeper: Callable[[Any], Iterator[bytes]]) -> Iterator[bytes]:
    yield f"def {function.__module__}:{function.__qualname__};".encode()
    if not versioned:
        try:
            yield textwrap.dedent(inspect.getsource(function)).encode()
        except (OSError, TypeError):
            yield function.__code__.co_code
    yield from deeper([list(function.__defaults__ or ()), function.__kwdefaults__ or {}])
    for cell in function.__closure__ or ():
        try:
            yield from deeper(cell.cell_contents)
        except ValueError:  # a cell that is not filled yet
            yield b"empty;"


def _object_parts(value: Any, deeper: Callable[[Any], Iterator[bytes]]) -> Iterator[bytes]:
    kind = type(value)
    yield f"object {kind.__module__}:{kind.__qualname__};".encode()
    if hasattr(value, "config"):
        yield from deeper(_plain_config(value.config))
    if callable(getattr(value, "state_dict", None)):
        yield from deeper(value.state_dict())
        return
    if callable(getattr(value, "parameters", None)):
        yield from deeper(list(value.parameters()))
    own = getattr(value, "identity", None)
    if callable(own):
        yield str(own()).encode()
        return
    attributes = dict(getattr(value, "__dict__", {}))
    if hasattr(value, "config"):
        # The configuration speaks for the plain attributes; what carries weights still counts.
        attributes = {name: item for name, item in attributes.items() if hasattr(item, "state_dict")}
    attributes.pop("config", None)
    # A leading underscore marks caches and counters, which change while the reward stays the same.
    yield from deeper({name: item for name, item in attributes.items() if not name.startswith("_") or _weighs(item)})


def _weighs(item: Any) -> bool:
    return hasattr(item, "state_dict") or hasattr(item, "detach")


def _plain_config(config: Any) -> Any:
    return config.to_dict() if hasattr(config, "to_dict") else config


def _array_bytes(value: Any) -> Iterator[bytes]:
    yield f"array {str(value.dtype).removeprefix('torch.')} {list(value.shape)};".encode()
    flat = value.detach().reshape(-1) if hasattr(value, "detach") else value.reshape(-1)
    size = int(flat.shape[0])
    if size > 1 << 20:
        flat = flat[:: size // (1 << 18)]
    if hasattr(flat, "detach"):
        import torch

        yield flat.cpu().contiguous().view(torch.uint8).numpy().tobytes()
    else:
        yield flat.tobytes()
