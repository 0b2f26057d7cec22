"""Show steps of a long job on the error stream, so that output can still be piped."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from interv.terminal import terminal

if TYPE_CHECKING:
    import rich.progress


class Progress:
    """One line for each step: a bar where its bytes are known, else a spinner, with the time.

    Away from a terminal each step is one plain line. Not `shown`, nothing is written.
    """

    def __init__(self, *, shown: bool = True) -> None:
        self._shown = shown
        self._bar: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None

    def __enter__(self) -> Progress:
        if self._shown:
            self._bar = _bar()
            if self._bar.console.is_terminal:
                self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            if kind is None:
                self._finish()
            if self._bar.live.is_started:
                self._bar.stop()
        self._bar = self._task = None

    def step(self, text: str, total_bytes: int | None = None) -> None:
        """Begin a step; the one before it is done."""
        if self._bar is None:
            return
        self._finish()
        if not self._bar.console.is_terminal:
            self._bar.console.print(f"· {text}")
            return
        self._task = self._bar.add_task(text, total=total_bytes)

    def done(self, count: int) -> None:
        """Say how many bytes of the current step are done."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=count)

    def _finish(self) -> None:
        if self._bar is None or self._task is None:
            return
        total = self._bar.tasks[-1].total or 1
        self._bar.update(self._task, total=total, completed=total)


def _bar() -> rich.progress.Progress:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        console=terminal(stderr=True),
    )
