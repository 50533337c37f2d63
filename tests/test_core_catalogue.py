"""The catalogue: lookups by name, entry points of other packages, and references to code."""

from __future__ import annotations

import ast
import importlib.util
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from guerdon.core import catalogue
from guerdon.core.catalogue import System, benchmarks, find_system, load_reward, resolve, rewards, systems
from guerdon.core.errors import GuerdonError

OTHER = System("other", "Other", "arXiv 0000.00000", "run", "It works.", "docs/other.md", "test_core_catalogue:Length")


class Length:
    """A reward with a configuration."""

    __name__ = "length"

    def __init__(self, scale: float, offset: float = 0.0):
        self.scale, self.offset = scale, offset

    def __call__(self, prompts, completions, **columns):
        return [self.scale * len(text) + self.offset for text in completions]


def plain(prompts, completions, **columns):
    return [1.0] * len(completions)


def make(scale: float = 1.0):
    return Length(scale)


def nothing():
    return 3


@pytest.fixture
def announced(monkeypatch):
    points = {
        "guerdon.rewards": [EntryPoint("length", f"{__name__}:Length", "guerdon.rewards")],
        "guerdon.systems": [EntryPoint("other", f"{__name__}:OTHER", "guerdon.systems")],
        "guerdon.benchmarks": [EntryPoint("bench", f"{__name__}:plain", "guerdon.benchmarks")],
    }
    monkeypatch.setattr(catalogue, "entry_points", lambda group: points.get(group, []))
    return points


def test_entry_points_are_listed_and_loaded(announced):
    assert rewards()["length"] == f"{__name__}:Length" and benchmarks()["bench"] == f"{__name__}:plain"
    assert systems()["other"] == OTHER == find_system("other")
    made = load_reward("length", scale=2.0)
    assert made(prompts=["p"], completions=["abc"]) == [6.0]
    with pytest.raises(GuerdonError, match="unknown reward 'lenght'; did you mean 'length'"):
        load_reward("lenght")
    with pytest.raises(GuerdonError, match="unknown system 'othr'; did you mean 'other'"):
        find_system("othr")


def test_a_name_announced_twice_is_an_error(announced):
    announced["guerdon.rewards"].append(EntryPoint("length", "elsewhere:Length", "guerdon.rewards"))
    with pytest.raises(GuerdonError, match="'length' comes from both"):
        rewards()


def test_an_entry_point_that_does_not_load_is_named(announced):
    announced["guerdon.systems"].append(EntryPoint("bad", "no_such_module:X", "guerdon.systems"))
    with pytest.raises(GuerdonError, match="entry point guerdon.systems:bad .*cannot be loaded"):
        systems()
    announced["guerdon.systems"][-1] = EntryPoint("bad", f"{__name__}:plain", "guerdon.systems")
    with pytest.raises(GuerdonError, match="is not a catalogue.System"):
        systems()


def test_references():
    assert load_reward(f"{__name__}:plain") is plain
    assert load_reward(f"{__name__}:make", scale=3)(prompts=["p"], completions=["ab"]) == [6]
    with pytest.raises(GuerdonError, match="unknown configuration key of reward .*'scal'; did you mean 'scale'"):
        load_reward(f"{__name__}:Length", scal=3)
    with pytest.raises(GuerdonError, match="needs the configuration key 'scale'"):
        load_reward(f"{__name__}:Length")
    with pytest.raises(GuerdonError, match="takes no configuration, got scale"):
        load_reward(f"{__name__}:plain", scale=3)
    with pytest.raises(GuerdonError, match="made int, which is not callable"):
        load_reward(f"{__name__}:nothing")
    with pytest.raises(GuerdonError, match="has no 'Lenght'; did you mean 'Length'"):
        resolve(f"{__name__}:Lenght")
    with pytest.raises(GuerdonError, match="there is no module 'no_such_module'"):
        resolve("no_such_module:x")
    with pytest.raises(GuerdonError, match="not of the form module:attribute"):
        resolve("module:")


def test_a_file_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    source = "def five(prompts, completions, **columns):\n    return [5.0] * len(completions)\n"
    (tmp_path / "my_own_rewards.py").write_text(source)
    assert load_reward(f"{tmp_path}/my_own_rewards.py:five")(prompts=["p"], completions=["c"]) == [5.0]
    with pytest.raises(GuerdonError, match="there is no file"):
        load_reward(f"{tmp_path}/absent.py:five")
    (tmp_path / "json.py").write_text("x = 1")
    with pytest.raises(GuerdonError, match="another module is already loaded as 'json'"):
        load_reward(f"{tmp_path}/json.py:x")


def test_everything_of_ours_exists():
    targets = [*catalogue._REWARDS.values(), *catalogue._BENCHMARKS.values()]
    targets += [system.target for system in catalogue.SYSTEMS if system.target]
    for target in targets:
        module, _, attribute = target.partition(":")
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin is not None, f"{target}: no such module"
        names = {
            getattr(node, "name", None) or getattr(alias, "asname", None) or getattr(alias, "name", None)
            for node in ast.parse(Path(spec.origin).read_text()).body
            for alias in getattr(node, "names", [node])
        }
        assert attribute in names, f"{target}: {module} does not define {attribute}"
    slugs = [system.slug for system in catalogue.SYSTEMS]
    assert len(slugs) == len(set(slugs))
