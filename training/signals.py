"""SIGTERM and Ctrl-C: end a run between two steps, saved."""

import signal
from types import FrameType
from typing import Any


class StopSignals:
    """Notes the first such signal in `number`; a second one ends the process at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._handlers: dict[int, Any] = {}

    @property
    def reason(self) -> str:
        """Why to stop, for a person; the signal may have reached another process."""
        if self.number is None:
            return "stopped"
        return f"stopped by {signal.Signals(self.number).name}"

    def listen(self) -> None:
        """Take over from the handlers that are there."""
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._handlers[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: whoever runs us handles signals
                break

    def restore(self) -> None:
        """Give back to them."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.number = number
