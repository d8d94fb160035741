"""What the limits on time raise."""

from __future__ import annotations

from typing import ClassVar


class StreamTimeout(TimeoutError):
    """A stream exceeded a limit of ``seconds``; ``seen`` says what had come last."""

    _message: ClassVar[str] = "nothing came for {seconds:g} s; the last that was seen: {seen}"

    def __init__(self, seconds: float, seen: str) -> None:
        super().__init__(self._message.format(seconds=seconds, seen=seen))
        self.seconds = seconds
        self.seen = seen

    def __reduce__(self) -> tuple[type[StreamTimeout], tuple[float, str]]:
        return type(self), (self.seconds, self.seen)
