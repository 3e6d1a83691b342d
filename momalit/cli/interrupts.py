"""Interrupts that are not lost: Ctrl-C stops a command even where a library swallows the exception that it raises.

Python raises KeyboardInterrupt wherever the main thread happens to be. Inside the import of an optional package, a
destructor or a callback from C, it is often caught with the errors that are expected there, and the program goes on.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_received = False


@contextmanager
def remembered_interrupts() -> Iterator[None]:
    """Remembers inside the ``with`` block that SIGINT arrived.

    Where SIGINT is ignored, as in a shell's background jobs, it stays so.
    """
    global _received
    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _remember)
    try:
        yield
    finally:
        _received = False
        if signal.getsignal(signal.SIGINT) is _remember:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def require_no_interrupt() -> None:
    """Raises the interrupt again that was received, if any; for places where training would go on.

    Raises:
        KeyboardInterrupt: SIGINT arrived before, and something swallowed the exception.
    """
    if _received:
        raise KeyboardInterrupt


def _remember(number: int, frame: FrameType | None) -> None:
    global _received
    _received = True
    signal.default_int_handler(number, frame)
