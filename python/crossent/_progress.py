"""A progress line on a terminal: share done, rate and time left."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import final

__all__ = ["Progress"]


@final
class Progress:
    """A line on stderr that says how far a run over `total` bytes has come; nothing where stderr is no terminal."""

    def __init__(self, total: int, every: float = 0.1) -> None:
        self._total, self._done = total, 0
        self._every = every
        self._started = self._written = time.monotonic()
        self._shown = sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")  # erase the line
            sys.stderr.flush()

    def add(self, amount: int) -> None:
        """Note that so many more bytes are done."""
        self._done += amount
        now = time.monotonic()
        if not self._shown or now - self._written < self._every:
            return
        self._written = now
        rate = self._done / max(now - self._started, 1e-9)
        left = (self._total - self._done) / rate
        text = f"{100 * self._done / max(self._total, 1):5.1f} %  {rate / 1e9:.2f} GB/s  {_duration(left)} left"
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02} min"
