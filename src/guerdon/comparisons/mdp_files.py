"""A finite process and its named rewards, read from a JSON or NPZ file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from guerdon.core.errors import GuerdonError, nearest, unknown
from guerdon.metrics.canonical import coverage
from guerdon.metrics.mdp import Reward, TabularMDP, as_reward, checked_policy

KEYS = ("name", "transition", "discount", "initial", "rewards", "policy", "state_distribution", "action_distribution")
SUFFIXES = (".json", ".npz")
SPARSE_PARTS = ("data", "indices", "indptr", "shape")


@dataclass(frozen=True)
class World:
    """A process with rewards by name.

    policy:           [S, A], whose values level rewards (VAL); None: uniform.
    states, actions:  EPIC's coverage distributions D_S [S] and D_A [A] (DARD takes D_A); None: uniform.
    """

    name: str
    mdp: TabularMDP
    rewards: Mapping[str, Reward]
    policy: NDArray[np.float64] | None = None
    states: NDArray[np.float64] | None = None
    actions: NDArray[np.float64] | None = None
    about: str = field(default="", compare=False)

    def pick(self, names: Sequence[str]) -> World:
        """The same with the rewards ``names`` only, in their order; none named: all.

        Raises GuerdonError for an unknown name (with the nearest), one named twice, or fewer than two.
        """
        for name in names:
            if name not in self.rewards:
                raise unknown(f"reward of {self.name}", name, self.rewards)
        if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
            raise GuerdonError(f"reward {twice!r} is named twice")
        chosen = {name: self.rewards[name] for name in (names or self.rewards)}
        if len(chosen) < 2:
            listed = ", ".join(self.rewards)
            raise GuerdonError(f"a comparison needs at least two rewards; {self.name} has {listed}")
        return replace(self, rewards=chosen)


def load_world(path: str | Path) -> World:
    """The `World` of a file.

    JSON: an object with ``transition`` [S][A][S], ``discount``, ``rewards`` (name -> [S][A][S], [S][A] for a reward on
    (s, a), or [S] for one on the state in which a step begins) and, where wanted, ``initial`` [S], ``policy`` [S][A],
    ``state_distribution`` [S], ``action_distribution`` [A] and ``name``.

    NPZ (never pickled objects): arrays of the same names, each reward as ``rewards/NAME``. A sparse matrix [S * A, S],
    row s * A + a, is stored by SciPy's CSR parts ``transition/data``, ``transition/indices``, ``transition/indptr`` and
    ``transition/shape``; likewise ``rewards/NAME/data`` and so on.

    Raises GuerdonError naming the file and the key: unreadable, a key missing or unknown, ragged or non-numeric values,
    a wrong shape, probabilities that do not add up to 1, no reward.
    """
    file = Path(path)
    if file.suffix.lower() not in SUFFIXES:
        raise GuerdonError(f"{file}: a process is read from {' or '.join(SUFFIXES)}")
    if not file.is_file():
        beside = [one.name for one in file.parent.glob("*") if one.suffix.lower() in SUFFIXES]
        guess = nearest(file.name, beside)
        raise GuerdonError(f"there is no file {str(file)!r}" + (f"; did you mean {guess!r}?" if guess else ""))
    given = _read_json(file) if file.suffix.lower() == ".json" else _read_npz(file)
    for key in given:
        if key not in KEYS:
            raise GuerdonError(f"{file}: {unknown('key', key, KEYS)}")
    for key in ("transition", "discount", "rewards"):
        if key not in given:
            raise GuerdonError(f"{file} has no {key!r}")
    try:
        return _world(given, file)
    except GuerdonError as error:
        raise GuerdonError(f"{file}: {error}") from None


def _world(given: Mapping[str, Any], file: Path) -> World:
    transition = _numbers("transition", given["transition"])
    discount = _numbers("discount", given["discount"])
    if discount.size != 1:
        raise GuerdonError(f"discount must be one number; got {list(discount.shape)}")
    start = given.get("initial")
    mdp = TabularMDP(transition, float(discount.item()), None if start is None else _numbers("initial", start))
    rewards = given["rewards"]
    if not isinstance(rewards, Mapping) or not rewards:
        raise GuerdonError("rewards must map at least one name to a table")
    made = {str(name): _reward(str(name), value, mdp) for name, value in rewards.items()}
    rows = {key: _numbers(key, given[key]) for key in KEYS[5:] if given.get(key) is not None}
    states, actions = rows.get("state_distribution"), rows.get("action_distribution")
    coverage(mdp, states, actions)
    policy = checked_policy(rows["policy"], mdp) if "policy" in rows else None
    return World(str(given.get("name", file.stem)), mdp, made, policy, states, actions)


def _reward(name: str, value: Any, mdp: TabularMDP) -> Reward:
    table = _numbers(f"reward {name!r}", value)
    size, actions = mdp.states, mdp.actions
    if not sparse.issparse(table):
        if table.shape not in ((size, actions, size), (size, actions), (size,)):
            fit = f"[{size}, {actions}, {size}], [{size}, {actions}] or [{size}]"
            raise GuerdonError(f"reward {name!r} must be {fit}; got {list(table.shape)}")
        while table.ndim < 3:
            table = table[..., None]
        table = np.broadcast_to(table, (size, actions, table.shape[-1] if mdp.is_sparse else size))
    if mdp.is_sparse:
        # Only what happens is kept: canonical forms of sparse processes do not look at the rest.
        happens = sparse.csr_array(mdp.rows.astype(bool), dtype=np.float64)
        if sparse.issparse(table):
            table = table * happens if table.shape == happens.shape else table
        elif table.shape[-1] == 1:
            table = sparse.csr_array(sparse.diags_array(table.ravel()) @ happens)
        else:
            table = sparse.csr_array(happens * table.reshape(-1, size))
    try:
        return as_reward(table, mdp)
    except GuerdonError as error:
        raise GuerdonError(f"reward {name!r}: {error}") from None


def _numbers(key: str, value: Any) -> Any:
    """Float64 of a value of a file; a sparse matrix stays one."""
    if sparse.issparse(value):
        return value
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            # Lists of unlike lengths, texts, null and true are all no numbers here.
            raise ValueError
        return array.astype(np.float64)
    except (ValueError, OverflowError):
        raise GuerdonError(f"{key} must hold numbers in lists of one length") from None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        given = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        raise GuerdonError(f"{file} is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise GuerdonError(f"{file} must hold one JSON object with {', '.join(KEYS[1:5])}")
    return given


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; a name that comes twice would lose what came first."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} stands twice in one object")
        found[name] = value
    return found


def _read_npz(file: Path) -> dict[str, Any]:
    try:
        with np.load(file, allow_pickle=False) as held:
            arrays = {key: held[key] for key in held.files}
    except Exception as error:  # a broken zip, a pickled object, a header that lies
        raise GuerdonError(f"{file} cannot be read as NPZ without pickled objects: {error}") from None
    given: dict[str, Any] = {}
    rewards: dict[str, Any] = {}
    for key, value in _joined(arrays, file).items():
        if key.startswith("rewards/"):
            rewards[key.removeprefix("rewards/")] = value
        else:
            given[key] = str(value) if key == "name" else value
    return {**given, "rewards": rewards} if rewards else given


def _joined(arrays: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The arrays, every three that make a sparse matrix as that matrix."""
    found: dict[str, Any] = {}
    for key, value in arrays.items():
        base, _, part = key.rpartition("/")
        if part not in SPARSE_PARTS or not base or base == "rewards":
            found[key] = value
        elif base not in found:
            if lacking := [one for one in SPARSE_PARTS if f"{base}/{one}" not in arrays]:
                raise GuerdonError(f"{file}: the sparse {base!r} lacks {base + '/' + lacking[0]!r}")
            found[base] = _csr(base, [arrays[f"{base}/{one}"] for one in SPARSE_PARTS], file)
    return found


def _csr(base: str, parts: Sequence[Any], file: Path) -> Any:
    try:
        made = sparse.csr_array(tuple(parts[:3]), shape=tuple(int(one) for one in parts[3]), dtype=np.float64)
        made.check_format(full_check=True)
    except (ValueError, TypeError, IndexError) as error:
        raise GuerdonError(f"{file}: {base!r} is no sparse matrix: {error}") from None
    return made
