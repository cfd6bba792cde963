"""A line that says how far a map is: in a terminal, in a notebook, and nowhere else."""

from __future__ import annotations

import sys
import time
from typing import Any, Optional

#: What is done sooner needs no line, seconds.
QUIET = 0.7
EVERY = 0.1
WIDTH = 30


class Progress:
    """Shown from the consumer's thread. ``wanted``: ``None`` shows it where a person looks on."""

    def __init__(self, total: Optional[int], label: str, wanted: Optional[bool]) -> None:
        self._total, self._label = total, label
        self._began = self._last = time.monotonic()
        self._shown = False
        self._notebook: Any = None
        self._kernel = "ipykernel" in sys.modules
        self._on = wanted if wanted is not None else (self._kernel or _is_terminal())

    def show(self, done: int, fed: int) -> None:
        """At most every tenth of a second."""
        if not self._on:
            return
        now = time.monotonic()
        if now - self._last < EVERY or now - self._began < QUIET:
            return
        self._last = now
        self._write(self.line(done, fed, now))

    def line(self, done: int, fed: int, now: float) -> str:
        """What is shown: how much, how fast, how long still."""
        took = max(now - self._began, 1e-9)
        rate = done / took
        if self._total is None:
            return f"{self._label}: {done:,} of {fed:,} so far | {rate:,.0f}/s"
        part = done / self._total if self._total else 1.0
        bar = "#" * int(part * WIDTH)
        left = _span((self._total - done) / rate) if rate > 0 else "?"
        return f"{self._label}: {part:4.0%} |{bar:<{WIDTH}}| {done:,}/{self._total:,} | {rate:,.0f}/s | {left} left"

    def end(self, done: int) -> None:
        """The last word."""
        if self._shown:
            now = time.monotonic()
            took = now - self._began
            self._write(f"{self._label}: {done:,} in {_span(took)} | {done / max(took, 1e-9):,.0f}/s")
            if self._notebook is None:
                sys.stderr.write("\n")
            self._on = self._shown = False

    def _write(self, line: str) -> None:
        self._shown = True
        if self._kernel and self._in_notebook(line):
            return
        sys.stderr.write(f"\r\x1b[2K{line}" if _is_terminal() else f"\r{line}")
        sys.stderr.flush()

    def _in_notebook(self, line: str) -> bool:
        try:
            from IPython.display import display  # type: ignore[import-not-found,unused-ignore]

            shown = {"text/plain": line}
            if self._notebook is None:
                self._notebook = display(shown, raw=True, display_id=True)
            else:
                self._notebook.update(shown, raw=True)
            return self._notebook is not None
        except Exception:
            self._kernel = False
            return False


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"
