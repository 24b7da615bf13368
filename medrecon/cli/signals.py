"""SIGTERM and SIGHUP end a command as Ctrl-C does: through its `finally` blocks, which leave nothing behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from medrecon.cli.show import note

NAMES = ("SIGTERM", "SIGHUP")
"""SIGHUP is not on Windows."""


class Ended(BaseException):
    """A signal ended the command.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int, text: str = "") -> None:
        super().__init__(text or f"ended by {signal.Signals(number).name}")
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


@contextmanager
def finishing(what: str) -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether a signal, or Ctrl-C, has asked to stop: the first does no more than that.

    A second one acts as before. `Stopped`, raised in the block, ends the command as the signal would have, with its
    text.

    Args:
        what: is being finished.
    """
    from medrecon.runs import Stopped

    came: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt if number == signal.SIGINT else Ended(number)
        came.append(number)
        note(f"{signal.Signals(number).name}: finishing {what}; once more ends it at once")

    numbers = [getattr(signal, name) for name in ("SIGINT", *NAMES) if hasattr(signal, name)]
    main = threading.current_thread() is threading.main_thread()
    before = {n: signal.getsignal(n) for n in numbers} if main else {}
    ours = {n: handler for n, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in ours:
            signal.signal(number, ask)
        yield lambda: bool(came)
    except Stopped as error:
        text = f"stopped: {error}; the same command goes on from there"
        raise (KeyboardInterrupt(text) if came[0] == signal.SIGINT else Ended(came[0], text)) from None
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
