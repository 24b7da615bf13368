"""SIGINT, SIGTERM and SIGHUP end a run after its step, saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""SIGHUP is not on Windows."""


class Stopped(RuntimeError):
    """A scheduler asked the run to end (SIGTERM), or its terminal is gone (SIGHUP); it is saved and can be resumed."""


@contextmanager
def stop_signals(patient: bool) -> Iterator[list[signal.Signals]]:
    """Collect the signals that come during the block instead of dying of them; the old handlers return after it.

    A second SIGINT raises KeyboardInterrupt at once, unless `patient`: torchrun passes on the Ctrl-C that the
    terminal has sent to all its processes already. Ignored signals stay ignored (nohup); threads other than the main
    one may not install handlers, and nothing is collected there.
    """
    asked: list[signal.Signals] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and signal.SIGINT in asked and not patient:
            raise KeyboardInterrupt
        asked.append(signal.Signals(number))

    before = {number: signal.getsignal(number) for number in SIGNALS}
    if threading.current_thread() is not threading.main_thread():
        before = {}
    ours = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in ours:
            signal.signal(number, note)
        yield asked
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
