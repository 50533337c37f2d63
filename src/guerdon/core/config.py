"""Typed configuration: YAML, dotted overrides, and errors that name the key that was meant."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from guerdon.core.errors import GuerdonError, nearest

C = TypeVar("C", bound=BaseModel)


class Config(BaseModel):
    """Base of every configuration: each key is typed, and an unknown key is an error that names the nearest one."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, validate_default=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for key in data:
                if key not in _keys(cls):
                    raise _unknown_key(str(key), _keys(cls), cls.__name__)
        return data


def load_config(
    cls: type[C],
    yaml_path: str | Path | None = None,
    overrides: Iterable[str] = (),
    *,
    preset: Mapping[str, Any] | None = None,
) -> C:
    """A ``cls`` from its defaults, then a preset, then the YAML file, then overrides like ``"optim.lr=1e-4"`` in order.

    ``preset`` means what ``cls(**preset)`` means: a group in it replaces the default group as a whole. File and
    overrides change only the keys that they name, in whatever group these stand.
    Raises GuerdonError naming the file, the dotted key and the nearest valid key or the reason.
    """
    source = str(yaml_path) if yaml_path is not None else cls.__name__
    given = _read_yaml(Path(yaml_path)) if yaml_path is not None else {}
    _check_keys(cls, given, source, ())
    data = copy.deepcopy(dict(preset or {}))
    _merge(cls, data, given)
    for override in overrides:
        _apply(cls, data, override)
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the configuration"
        wrong = "" if first["type"] == "missing" else f" (given {first['input']!r})"
        raise GuerdonError(f"{source}: {key}: {first['msg']}{wrong}") from None


def dump_config(config: BaseModel, path: str | Path | None = None) -> str:
    """The resolved configuration as YAML text, keys in the order of the class; also written to ``path`` if given."""
    text = to_yaml(config.model_dump(mode="json"))
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def to_yaml(data: Mapping[str, Any]) -> str:
    """A mapping as YAML text that `load_config` reads back."""
    return str(yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))


def parse_scalar(text: str) -> Any:
    """One YAML value as ``--set`` reads it: ``1e-4`` is a float, ``[1, 2]`` a list, ``no`` a string."""
    return _parse(text, "--set")


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: PyYAML reads 1e-4 as a string and no/on/yes as booleans; and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Quotes a text that our loader, or one of YAML 1.1, would read as anything else."""


_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_FLOAT = re.compile(
    r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
for _reads in (_Loader, _Dumper):
    _reads.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
    _reads.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def _parse(text: str, source: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark is not None else ""
        raise GuerdonError(f"{source}{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    finally:
        loader.dispose()


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise GuerdonError(f"configuration file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise GuerdonError(f"configuration file {path} cannot be read: {error}") from None
    data = _parse(text, str(path))
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise GuerdonError(f"{path}: a configuration is a mapping of keys to values, got {type(data).__name__}")
    return data


def _keys(cls: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in cls.model_fields.items()]


def _unknown_key(key: str, keys: list[str], source: str, prefix: tuple[str, ...] = ()) -> GuerdonError:
    dotted = ".".join((*prefix, key))
    guess = nearest(key.split(".")[0], keys)
    hint = f"did you mean {'.'.join((*prefix, guess))!r}? " if guess else ""
    return GuerdonError(f"{source}: unknown key {dotted!r}; {hint}valid keys: {', '.join(keys)}")


def _nested(cls: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The configuration class behind a key, also where it is optional; None for plain values and ambiguous unions."""
    annotation = cls.model_fields[key].annotation if key in cls.model_fields else None
    found = [
        kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, BaseModel)
    ]
    return found[0] if len(found) == 1 and _is_direct(annotation, found[0]) else None


def _is_direct(annotation: Any, kind: type[BaseModel]) -> bool:
    # dict[str, Sub] and list[Sub] hold Sub one level further down; only Sub and Sub | None are the key's own class.
    return annotation is kind or set(get_args(annotation)) == {kind, type(None)}


def _check_keys(cls: type[BaseModel], data: Any, source: str, prefix: tuple[str, ...]) -> None:
    if not isinstance(data, Mapping):
        return
    for key, value in data.items():
        if key not in _keys(cls):
            raise _unknown_key(str(key), _keys(cls), source, prefix)
        inner = _nested(cls, key)
        if inner is not None:
            _check_keys(inner, value, source, (*prefix, key))


def _merge(kind: type[BaseModel], data: dict[str, Any], given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        inner = _nested(kind, key)
        if inner is None or not isinstance(value, Mapping):
            data[key] = value
            continue
        if not isinstance(data.get(key), dict):
            data[key] = _default_group(kind, key)
        _merge(inner, data[key], value)


def _default_group(kind: type[BaseModel] | None, key: str) -> dict[str, Any]:
    """The default of a group of keys as plain data: a field's own default may differ from that of the field's class."""
    if kind is None or key not in kind.model_fields:
        return {}
    default = kind.model_fields[key].get_default(call_default_factory=True, validated_data={})
    return default.model_dump() if isinstance(default, BaseModel) else {}


def _apply(cls: type[BaseModel], data: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    path = name.strip().split(".")
    if not equals or not all(path):
        raise GuerdonError(f"--set {override!r}: write it as key=value, for example optim.lr=1e-4")
    source = f"--set {override}"
    here: Any = data
    kind: type[BaseModel] | None = cls
    for depth, part in enumerate(path):
        if kind is not None and part not in _keys(kind):
            raise _unknown_key(part, _keys(kind), source, tuple(path[:depth]))
        if depth == len(path) - 1:
            here[part] = _parse(text, source)
            return
        if here.get(part) is None:
            here[part] = _default_group(kind, part) if part not in here else {}
        if not isinstance(here[part], dict):
            raise GuerdonError(f"{source}: {'.'.join(path[: depth + 1])!r} is a value, not a group of keys")
        here = here[part]
        kind = _nested(kind, part) if kind is not None else None
