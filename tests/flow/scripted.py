"""What the tests of flows share: a model that says what it is told, and a record of a subscription's signals."""

import threading
from dataclasses import dataclass, field
from typing import Any

import reactivex
from reactivex import Observable

from rxflow import LLM, Agent, Crew, Task
from rxflow.llm.request import Delta, Ending, Request
from rxflow.types.usage import UsageMetrics

USAGE = UsageMetrics(prompt_tokens=3, completion_tokens=2, total_tokens=5, successful_requests=1)
PATIENCE = 5.0  # seconds: what does not come until then does not come


class Says:
    """A source that answers every call with the same words, or fails after them, and counts the calls."""

    def __init__(self, *words: str, failing: Exception | None = None) -> None:
        self.words = words
        self.failing = failing
        self.calls = 0

    def stream(self, request: Request) -> Observable[Delta]:
        self.calls += 1
        if self.failing is not None:
            return reactivex.concat(reactivex.from_iterable(self.words), reactivex.throw(self.failing))
        return reactivex.from_iterable([*self.words, Ending(usage=USAGE)])

    async def calls_functions(self, model: str) -> bool:
        return True

    def retry_delay(self, error: BaseException, attempt: int, of: int) -> float | None:
        return None

    def explain(self, error: BaseException, model: str) -> BaseException:
        return error


def llm_saying(*words: str) -> LLM:
    return LLM("scripted", source=Says(*words))


def crew_of(llm: LLM, *, description: str = "Say it", stream: bool = False) -> Crew:
    speaker = Agent(role="Speaker", goal="Speak", backstory="Speaks", llm=llm)
    task = Task(description=description, expected_output="Words", agent=speaker, name="saying")
    return Crew(agents=[speaker], tasks=[task], stream=stream)


def crew_saying(*words: str, stream: bool = False) -> Crew:
    return crew_of(llm_saying(*words), stream=stream)


@dataclass
class Signals:
    """What a subscription was told: its items, and every terminal."""

    items: list[Any] = field(default_factory=list[Any])
    errors: list[BaseException] = field(default_factory=list[BaseException])
    completions: int = 0

    @property
    def terminals(self) -> int:
        return len(self.errors) + self.completions


def signals_of(source: Observable[Any]) -> Signals:
    """Subscribe, wait for the first terminal, and give what had come until then; later signals are noted too."""
    signals = Signals()
    ended = threading.Event()

    def on_error(error: Exception) -> None:
        signals.errors.append(error)
        ended.set()

    def on_completed() -> None:
        signals.completions += 1
        ended.set()

    source.subscribe(signals.items.append, on_error, on_completed)
    assert ended.wait(PATIENCE), f"no terminal; so far: {signals.items}"
    return signals
