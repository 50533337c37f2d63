"""Configuration: typed keys, errors that name the key that was meant, overrides, and a faithful dump."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core.config import Config, dump_config, load_config, parse_scalar
from guerdon.core.errors import GuerdonError


class Optim(Config):
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)


class Run(Config):
    name: str = "run"
    steps: int = 10
    kind: Literal["flow", "cps"] = "flow"
    out: Path = Path("runs")
    shuffle: bool = True
    group_size: int | None = None
    optim: Optim = Optim()
    second: Optim | None = None
    weights: dict[str, float] = {}


def written(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_file_and_overrides_in_order(tmp_path):
    path = written(tmp_path, "steps: 20\noptim:\n  learning_rate: 1e-3\n")
    config = load_config(Run, path, ["optim.learning_rate=5e-4", "group_size=8", "weights.realism=2", "kind=cps"])
    assert (config.steps, config.optim.learning_rate, config.group_size, config.kind) == (20, 5e-4, 8, "cps")
    assert config.weights == {"realism": 2.0} and config.optim.betas == (0.9, 0.999)
    assert load_config(Run) == Run() == load_config(Run, written(tmp_path, ""))


def test_overrides_make_optional_groups():
    assert load_config(Run, None, ["second.learning_rate=0.5"]).second == Optim(learning_rate=0.5)
    assert load_config(Run, None, ["second=null", "optim={learning_rate: 2}"]).optim.learning_rate == 2.0


def test_a_group_keeps_the_rest_of_its_own_default(tmp_path):
    class Recipe(Config):
        optim: Optim = Optim(learning_rate=0.25, betas=(0.5, 0.6))

    kept = Optim(learning_rate=2.0, betas=(0.5, 0.6))
    assert load_config(Recipe, None, ["optim.learning_rate=2"]).optim == kept
    assert load_config(Recipe, written(tmp_path, "optim:\n  learning_rate: 2\n")).optim == kept
    # A preset means what Recipe(**preset) means, and is left as it was.
    preset = {"optim": {"learning_rate": 3.0}}
    assert load_config(Recipe, preset=preset) == Recipe(**preset)
    assert load_config(Recipe, None, ["optim.betas=[0.1, 0.2]"], preset=preset).optim.learning_rate == 3.0
    assert preset == {"optim": {"learning_rate": 3.0}}


@pytest.mark.parametrize(
    "text, value",
    [("1e-4", 1e-4), ("3", 3), ("-2.5", -2.5), (".5", 0.5), ("1E3", 1000.0), ("true", True), ("no", "no"), ("on", "on"),
     ("null", None), ("[1, 2e-1]", [1, 0.2]), ("a b", "a b"), ("'3'", "3"), ("", None), ("2024-01-01", "2024-01-01"),
     ("{a: 1}", {"a": 1}), ("1.2.3", "1.2.3")],
)  # fmt: skip
def test_scalars_are_yaml_1_2(text, value):
    parsed = parse_scalar(text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("stepz: 3", "unknown key 'stepz'; did you mean 'steps'?"),
        ("optim:\n  lerning_rate: 3", r"unknown key 'optim.lerning_rate'; did you mean 'optim.learning_rate'\?"),
        ("second:\n  beta: 3", "unknown key 'second.beta'; did you mean 'second.betas'"),
        ("steps: many", "steps: .*integer.*given 'many'"),
        ("steps: 1.5", "steps: .*given 1.5"),
        ("kind: dance", "kind: .*'flow' or 'cps'"),
        ("optim: 3", "optim: "),
        ("- a", "a configuration is a mapping"),
        ("steps: [", "line .*not valid YAML"),
        ("steps: 1\nsteps: 2", "'steps' is given twice"),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(GuerdonError, match=message) as caught:
        load_config(Run, path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override, message",
    [
        ("steps", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("optim.lr=3", "unknown key 'optim.lr'.*valid keys: learning_rate, betas"),
        ("Steps=3", "did you mean 'steps'"),
        ("name.first=x", "name: .*string"),
        ("optim.learning_rate=fast", "optim.learning_rate: .*given 'fast'"),
        ("steps=[1", "not valid YAML"),
    ],
)
def test_override_errors(override, message):
    with pytest.raises(GuerdonError, match=message):
        load_config(Run, None, [override])


def test_override_into_a_value_is_an_error(tmp_path):
    with pytest.raises(GuerdonError, match="'name' is a value, not a group"):
        load_config(Run, written(tmp_path, "name: x"), ["name.first=y"])


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(GuerdonError, match="does not exist"):
        load_config(Run, tmp_path / "no.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GuerdonError, match="bad.yaml cannot be read"):
        load_config(Run, tmp_path / "bad.yaml")


def test_construction_and_assignment_are_checked_too():
    with pytest.raises(GuerdonError, match="Run: unknown key 'stepz'; did you mean 'steps'"):
        Run(stepz=3)
    config = Run()
    with pytest.raises(ValueError):
        config.steps = "many"


def test_yaml_cannot_make_objects(tmp_path):
    with pytest.raises(GuerdonError, match="not valid YAML"):
        load_config(Run, written(tmp_path, "name: !!python/object/apply:os.getcwd []"))


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=12)


@settings(max_examples=80, deadline=None)
@given(
    st.builds(
        Run,
        name=TEXT,
        steps=st.integers(-(10**9), 10**9),
        shuffle=st.booleans(),
        optim=st.builds(Optim, learning_rate=st.floats(allow_nan=False, allow_infinity=False)),
        weights=st.dictionaries(TEXT, st.floats(allow_nan=False), max_size=3),
    )
)
def test_dump_and_load_round_trip(tmp_path_factory, config: Any):
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    dump_config(config, path)
    assert load_config(Run, path) == config


@pytest.mark.parametrize(
    "text", ["0E0", "1e5", ".5", "no", "true", "2001-01-01", "0x1F", "1_000", "~", "null", "=", ""]
)
def test_a_text_that_looks_like_something_else_stays_a_text(tmp_path, text: str):
    dump_config(Run(name=text), tmp_path / "run.yaml")
    assert load_config(Run, tmp_path / "run.yaml").name == text


def test_dump_is_resolved_and_in_order():
    lines = dump_config(Run()).splitlines()
    assert [line.split(":")[0] for line in lines if not line.startswith((" ", "-"))] == list(Run.model_fields)
    assert "  learning_rate: 0.0001" in lines
