"""Progress of a loop: a bar with the latest metrics on a terminal, one plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, Generic, TextIO, TypeVar, overload

from guerdon.core.processes import first

T = TypeVar("T")


@overload
def progress(
    items: int, description: str, *, total: int | None = ..., file: TextIO | None = ..., every: float = ...
) -> Progress[int]: ...
@overload
def progress(
    items: Iterable[T], description: str, *, total: int | None = ..., file: TextIO | None = ..., every: float = ...
) -> Progress[T]: ...
def progress(
    items: Iterable[Any] | int,
    description: str,
    *,
    total: int | None = None,
    file: TextIO | None = None,
    every: float = 5.0,
) -> Progress[Any]:
    """Wrap a loop: ``for step in (bar := progress(range(n), "train")): ...; bar.show(reward=0.3)``.

    items:   what to iterate over, or a number of steps: ``with progress(100, "x") as bar: bar.advance()``.
    total:   the number of items where ``items`` cannot tell it.
    file:    where to write; default the standard error.
    every:   seconds between two plain lines.
    """
    if isinstance(items, int):
        return Progress(None, description, items, file or sys.stderr, every)
    count = len(items) if total is None and isinstance(items, Sized) else total
    return Progress(items, description, count, file or sys.stderr, every)


class Progress(Generic[T]):
    """A running display of how far a loop is; ends by itself when the loop does, also on an error."""

    def __init__(
        self, items: Iterable[T] | None, description: str, total: int | None, file: TextIO, every: float
    ) -> None:
        self.description, self.total, self.done = description, total, 0
        self._items, self._file, self._every = items, file, every
        self._metrics: dict[str, Any] = {}
        self._bar: Any = None
        self._task: Any = None
        self._last = float("-inf")
        self._printed = -1
        self._speaks = first()

    def __iter__(self) -> Iterator[T]:
        items: Any = range(self.total or 0) if self._items is None else self._items
        with self:
            for item in items:
                yield item
                self.advance()

    def __enter__(self) -> Progress[T]:
        if self._speaks and self._file.isatty():
            self._bar = _terminal_bar(self._file)
        if self._bar is not None:
            self._task = self._bar.add_task(self.description, total=self.total, metrics="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._printed != self.done:
            self._line()

    def show(self, **metrics: Any) -> None:
        """Metrics to show beside the bar from now on; a float is shown with four digits."""
        self._metrics.update(metrics)
        if self._bar is not None:
            self._bar.update(self._task, metrics=self._text())

    def advance(self, count: int = 1, **metrics: Any) -> None:
        """``count`` items more are done."""
        self.done += count
        self._metrics.update(metrics)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, metrics=self._text())
        elif time.monotonic() - self._last >= self._every:
            self._line()

    def _line(self) -> None:
        self._last, self._printed = time.monotonic(), self.done
        if not self._speaks:
            return
        of = f"/{self.total}" if self.total is not None else ""
        print(f"{self.description}: {self.done}{of} {self._text()}".rstrip(), file=self._file, flush=True)

    def _text(self) -> str:
        shown = {key: f"{item:.4g}" if isinstance(item, float) else str(item) for key, item in self._metrics.items()}
        return " ".join(f"{key}={text}" for key, text in shown.items())


def _terminal_bar(file: TextIO) -> Any:
    from rich import progress as parts
    from rich.console import Console
    from rich.errors import LiveError

    bar = parts.Progress(
        parts.TextColumn("{task.description}"), parts.BarColumn(), parts.MofNCompleteColumn(),
        parts.TimeElapsedColumn(), parts.TimeRemainingColumn(), parts.TextColumn("{task.fields[metrics]}"),
        console=Console(file=file),
    )  # fmt: skip
    try:
        bar.start()
    except LiveError:  # another bar is on screen; this one writes plain lines
        return None
    return bar
