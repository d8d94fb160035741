"""A program that prints the files of rxflow that one chunk passes on its way, in the order of the first visit.

A flow runs a crew, whose agent asks a provider on loopback. The provider holds before the third chunk; what the
threads of rxflow call from then until the reader has that chunk is its way. It is a process of its own, because a
profile function must be set before the threads start.
"""

import threading
from pathlib import Path
from types import FrameType

import rxflow
from rxflow import LLM, Agent, Crew, Flow, Task
from rxflow.flow import start
from tests.loopback import Loopback, Reply

ROOM = Path(rxflow.__file__).parent.resolve()
OPERATORS = ROOM.parent / "operators"


class Trace:
    """The files in which the threads of rxflow call a function, while it is on."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {}
        self.is_on = False

    def note(self, frame: FrameType, event: str, argument: object) -> None:
        if self.is_on and event == "call" and threading.current_thread().name.startswith("rxflow"):
            path = Path(frame.f_code.co_filename).resolve()
            if path.is_relative_to(ROOM):
                self.files[path.relative_to(ROOM).as_posix()] = None
            elif path.is_relative_to(OPERATORS):
                self.files[path.relative_to(ROOM.parent).as_posix()] = None


def main() -> None:
    trace = Trace()
    threading.setprofile(trace.note)
    with Loopback() as provider:
        provider.script(Reply(text=["one ", "two ", "three "], hold_after=2, stall_after=3))
        llm = LLM("openai/gpt-4o", base_url=provider.url, api_key="k")
        writer = Agent(role="Writer", goal="Write", backstory="", llm=llm)

        class Postcard(Flow):
            @start()
            def write(self) -> object:
                return Crew(
                    agents=[writer], tasks=[Task(description="Write", expected_output="A line", agent=writer)]
                ).kickoff()

        with Postcard().stream_chunks() as streaming:
            chunks = iter(streaming)
            assert [next(chunks).content, next(chunks).content] == ["one ", "two "]
            provider.wait_until(lambda p: p.holds)
            trace.is_on = True
            provider.release()
            assert next(chunks).content == "three "
            trace.is_on = False
    print(*trace.files, sep="\n")


if __name__ == "__main__":
    main()
