"""The cost of a run so far: reported by the providers for ended calls, and estimated for open ones."""

from __future__ import annotations

from collections import deque
from math import ceil

from rxflow._prices import compute_cost, find_entry
from rxflow.types import LLMCancelled, LLMFailed, LLMFinished, LLMStarted
from rxflow.types.usage import BYTES_PER_TOKEN, UsageMetrics, count_bytes, count_message_bytes

RATE_WINDOW_S = 2.0
"""The length of the window over which the rate is computed."""

_STEP_S = 0.1  # output within one step is one entry of the window
_FREE = "rxflow/demo"


class OpenCall:
    """An LLM call that is still open: the size of its prompt and of its output."""

    __slots__ = ("model", "output_bytes", "prompt_bytes")

    def __init__(self, model: str, prompt_bytes: int) -> None:
        self.model = model
        self.prompt_bytes = prompt_bytes
        self.output_bytes = 0

    @property
    def usage(self) -> UsageMetrics:
        """An estimate of the usage. It is empty before the first output, because nothing is billed until then."""
        if not self.output_bytes:
            return UsageMetrics()
        prompt, output = ceil(self.prompt_bytes / BYTES_PER_TOKEN), ceil(self.output_bytes / BYTES_PER_TOKEN)
        return UsageMetrics(
            prompt_tokens=prompt, completion_tokens=output, total_tokens=prompt + output, is_estimated=True
        )


class Spending:
    """Tokens, cost and rate of one run."""

    def __init__(self) -> None:
        self._ended = UsageMetrics()
        self._cost: float | None = None
        self._is_whole = True
        self._open: dict[str, OpenCall] = {}
        self._window: deque[tuple[float, int]] = deque()

    def begin(self, event: LLMStarted) -> None:
        """Record that a call has started."""
        prompt_bytes = sum(map(count_message_bytes, event.messages))
        self._open[event.origin.span_id] = OpenCall(event.model, prompt_bytes)

    def add_output(self, span_id: str, text: str, now: float) -> None:
        """Record that a call has emitted ``text``."""
        size = len(text) if text.isascii() else count_bytes(text)
        call = self._open.get(span_id)
        if call is not None:
            call.output_bytes += size
        window = self._window
        if window and now - window[-1][0] < _STEP_S:
            window[-1] = (window[-1][0], window[-1][1] + size)
            return
        while window and now - window[0][0] > RATE_WINDOW_S:
            window.popleft()
        window.append((now, size))

    def end(self, event: LLMFinished | LLMFailed | LLMCancelled) -> UsageMetrics:
        """Record that a call has ended, and return its usage: the reported one, or else an estimate."""
        call = self._open.pop(event.origin.span_id, None)
        if event.usage.is_reported or call is None:
            return self._count(event.usage, event.cost)
        return self._count(call.usage, _price(call, call.usage))

    def cut_off(self, span_id: str) -> UsageMetrics:
        """Record that a call was stopped without an event that ends it, and return an estimate of its usage."""
        call = self._open.pop(span_id, None)
        if call is None:
            return UsageMetrics()
        return self._count(call.usage, _price(call, call.usage))

    def _count(self, usage: UsageMetrics, cost: float | None) -> UsageMetrics:
        self._ended += usage
        if cost is not None:
            self._cost = (self._cost or 0.0) + cost
        elif usage.is_reported:
            self._is_whole = False
        return usage

    @property
    def usage(self) -> UsageMetrics:
        """All tokens so far. Those of open calls are estimated."""
        return sum((call.usage for call in self._open.values()), self._ended)

    @property
    def cost(self) -> float | None:
        """The cost so far in US dollars, for the calls whose price is known; None if no price is known."""
        known = [self._cost, *(_price(call, call.usage) for call in self._open.values())]
        costs = [each for each in known if each is not None]
        return sum(costs) if costs else None

    @property
    def is_whole(self) -> bool:
        """Whether the cost of every call is known."""
        return self._is_whole and all(
            not call.output_bytes or _price(call, call.usage) is not None for call in self._open.values()
        )

    def compute_rate(self, now: float) -> float:
        """Return the output tokens per second over the last :data:`RATE_WINDOW_S`."""
        recent = [(at, size) for at, size in self._window if now - at <= RATE_WINDOW_S]
        if not recent:
            return 0.0
        return sum(size for _, size in recent) / BYTES_PER_TOKEN / max(now - recent[0][0], _STEP_S)


def _price(call: OpenCall | None, usage: UsageMetrics) -> float | None:
    if call is None or not usage.is_reported:
        return None
    return 0.0 if call.model == _FREE else compute_cost(find_entry(call.model), usage)
