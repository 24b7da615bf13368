"""SIGTERM and SIGHUP end a command as Ctrl-C does: through its `finally` blocks, which leave nothing behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGTERM", "SIGHUP")
"""SIGHUP is not on Windows."""


class Ended(BaseException):
    """A signal ended the command.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise `Ended` in the block when a signal comes; the old handlers return afterwards.

    A library may swallow it, such as one that calls back from compiled code; then it is raised at the end of the block.
    Ignored signals stay ignored (nohup). Threads other than the main one may not install handlers.
    """
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    if threading.current_thread() is not threading.main_thread():
        before = {}
    ours = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}

    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise Ended(number)

    try:
        for number in ours:
            signal.signal(number, end)
        yield
        if came:
            raise Ended(came[0])
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
