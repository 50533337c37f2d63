"""Battles between pictures, every pair in both orders, stored verdict by verdict so that a run can be resumed."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

from PIL import Image

from guerdon.benchmarks.image_sets import Equaliser, ImageSet
from guerdon.benchmarks.judges import Judge, Verdict
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed

__all__ = ["Battle", "BattleLog", "Slots", "fight", "judge_identity", "judge_name"]

Slots = Literal["12", "21"]
_CHOICES = ("first", "second", "tie")
_OUTAGE = 10  # so many pairs without any answer in a row are an outage, not bad luck


@dataclass(frozen=True)
class Battle:
    """One verdict: ``player`` against ``opponent`` on image ``key``; in order "12" the player was shown in slot 1.

    verdict is "first", "second", "tie" or "failed" (then ``kind`` and ``cause`` say why); ``fingerprint`` binds it to
    the pixels shown, the prompt and the judge.
    """

    pair: str
    order: Slots
    player: str
    opponent: str
    key: str
    verdict: str
    kind: str
    cause: str
    attempts: int
    judge: str
    fingerprint: str

    @property
    def outcome(self) -> float:
        """For the player: 1 won, 0.5 tie, 0 lost, nan no verdict."""
        if self.verdict == "tie":
            return 0.5
        if self.verdict == "failed":
            return math.nan
        return float((self.verdict == "first") == (self.order == "12"))


class BattleLog:
    """Verdicts in a JSON-lines file (or, without a path, in memory), the newest row of each (pair, order) counting.

    A last line cut off by a crash is removed; any other unreadable line raises GuerdonError with its number.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: dict[tuple[str, str], Battle] = {}
        self.outdated = 0
        self._lock = threading.Lock()
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raw = path.read_bytes()
            whole = raw[: raw.rfind(b"\n") + 1]
            if len(whole) < len(raw):
                with path.open("r+b") as opened:
                    opened.truncate(len(whole))
            for number, line in enumerate(whole.splitlines(), start=1):
                row = _parse(line, f"{path}:{number}")
                self.rows[row.pair, row.order] = row

    def usable(self, pair: str, order: Slots, fingerprint: str) -> bool:
        """Whether a stored verdict answers exactly this question; failed rows never do, so they are asked again."""
        row = self.rows.get((pair, order))
        if row is None or row.verdict == "failed":
            return False
        if row.fingerprint != fingerprint:
            with self._lock:
                self.outdated += 1
            return False
        return True

    def add(self, row: Battle) -> None:
        """Store a verdict and flush it."""
        with self._lock:
            self.rows[row.pair, row.order] = row
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as opened:
                    opened.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


def _parse(line: bytes, where: str) -> Battle:
    names = {field.name for field in fields(Battle)}
    try:
        content = json.loads(line)
    except ValueError:
        raise GuerdonError(f"{where}: not a line of JSON") from None
    if not isinstance(content, dict) or set(content) != names:
        wrong = sorted(names ^ set(content)) if isinstance(content, dict) else sorted(names)
        raise GuerdonError(f"{where}: not an arena row; missing or unknown: {', '.join(wrong)}")
    if content["verdict"] not in (*_CHOICES, "failed") or content["order"] not in ("12", "21"):
        raise GuerdonError(f"{where}: verdict {content['verdict']!r} or order {content['order']!r} is not valid")
    return Battle(**content)


def judge_name(judge: Judge) -> str:
    """The name of a judge in tables and logs."""
    return str(getattr(judge, "name", None) or type(judge).__name__)


def judge_identity(judge: Judge) -> str:
    """What stored verdicts are bound to: the judge's own ``identity``, else its name."""
    own = getattr(judge, "identity", None)
    return str((own() if callable(own) else own) or judge_name(judge))


def fight(
    player: ImageSet,
    opponent: ImageSet,
    judge: Judge,
    log: BattleLog,
    equaliser: Equaliser,
    *,
    prompts: Sequence[str] | None = None,
    attempts: int = 3,
    backoff: float = 1.0,
    workers: int = 1,
    sleep: Callable[[float], None] = time.sleep,
    on_pair: Callable[[], None] = lambda: None,
) -> tuple[list[Battle], list[Battle]]:
    """Judge image i of ``player`` against image i of ``opponent`` in both orders, for every i; -> (order 12, order 21).

    Verdicts already in ``log`` for the same pixels, prompt and judge are kept. A verdict that fails is asked for again
    up to ``attempts`` times, waiting ``backoff`` * 2^k seconds; not when the judge is deterministic, nor when it says
    "refused" or "unavailable", which it has retried itself. What still fails is stored as failed.
    ``workers`` > 1 asks in threads; the judge must then be thread-safe.
    Raises GuerdonError for sets that do not match image by image, and after 10 calls in a row without any answer.
    """
    mismatch = player.mismatch(opponent)
    if mismatch is not None:
        raise GuerdonError(f"an arena pairs images one to one: {mismatch}")
    if attempts < 1 or workers < 1:
        raise GuerdonError(f"attempts and workers must be at least 1; got {attempts} and {workers}")
    name, identity = judge_name(judge), judge_identity(judge)
    outage = _Outage(name, log.path)
    stop = threading.Event()

    def one(index: int) -> None:
        if stop.is_set():
            return
        try:
            images = equaliser.picture(player, index), equaliser.picture(opponent, index)
            prompt = prompts[index] if prompts is not None else None
            pair = f"{player.name} | {opponent.name} | {player.keys[index]}"
            print_of = _fingerprint(*images, prompt, identity)
            for order in cast(tuple[Slots, Slots], ("12", "21")):
                if log.usable(pair, order, print_of):
                    continue
                shown = images if order == "12" else images[::-1]
                verdict, tries = _ask(judge, shown, prompt, attempts, backoff, sleep)
                bad = verdict if isinstance(verdict, Failed) else None
                log.add(
                    Battle(
                        pair=pair,
                        order=order,
                        player=player.name,
                        opponent=opponent.name,
                        key=player.keys[index],
                        verdict="failed" if isinstance(verdict, Failed) else verdict,
                        kind=bad.kind if bad is not None else "",
                        cause=bad.cause if bad is not None else "",
                        attempts=tries,
                        judge=name,
                        fingerprint=print_of,
                    )
                )
                outage.note(bad)
            on_pair()
        except BaseException:
            stop.set()
            raise

    if workers == 1:
        for index in range(len(player)):
            one(index)
    else:
        with ThreadPoolExecutor(workers) as pool:
            waiting = [pool.submit(one, index) for index in range(len(player))]
            try:
                for future in wait(waiting, return_when=FIRST_EXCEPTION).done:
                    future.result()
            except BaseException:
                stop.set()  # an interrupt must not first judge everything that is still queued
                raise
    found: dict[Slots, list[Battle]] = {
        order: [log.rows[f"{player.name} | {opponent.name} | {key}", order] for key in player.keys]
        for order in cast(tuple[Slots, Slots], ("12", "21"))
    }
    return found["12"], found["21"]


class _Outage:
    """Counts calls in a row that the judge did not answer, over all threads, and ends the run at `_OUTAGE`."""

    def __init__(self, judge: str, path: Path | None) -> None:
        self.judge, self.path, self.count, self.lock = judge, path, 0, threading.Lock()

    def note(self, failure: Failed | None) -> None:
        with self.lock:
            self.count = self.count + 1 if failure is not None and failure.kind in ("unavailable", "exception") else 0
            if failure is not None and self.count >= _OUTAGE:
                kept = f"; verdicts so far are in {self.path}, run again to go on" if self.path else ""
                raise GuerdonError(f"judge {self.judge} failed {_OUTAGE} times in a row: {failure.cause}{kept}")


def _ask(
    judge: Judge,
    images: tuple[Image.Image, ...],
    prompt: str | None,
    attempts: int,
    backoff: float,
    sleep: Callable[[float], None],
) -> tuple[Verdict, int]:
    verdict: Any = None
    for attempt in range(attempts):
        try:
            verdict = judge.compare(images[0], images[1], prompt)
        except GuerdonError:
            raise
        except Exception as error:  # a judge is foreign code: one error must not end an arena of thousands
            verdict = Failed(cause=f"{type(error).__name__}: {error}", kind="exception")
        if not isinstance(verdict, Failed):
            if verdict not in _CHOICES:
                wanted = f"{', '.join(_CHOICES)} or Failed"
                raise GuerdonError(f"judge {judge_name(judge)} returned {verdict!r}; want {wanted}")
            return verdict, attempt + 1
        if verdict.kind in ("refused", "unavailable"):
            return verdict, attempt + 1
        if verdict.kind != "exception" and getattr(judge, "deterministic", False):
            return verdict, attempt + 1
        if attempt + 1 < attempts:
            sleep(backoff * 2.0**attempt)
    return verdict, attempts


def _fingerprint(first: Image.Image, second: Image.Image, prompt: str | None, judge: str) -> str:
    digest = hashlib.sha256()
    for part in (str(first.size), first.tobytes(), str(second.size), second.tobytes(), prompt or "", judge):
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]
