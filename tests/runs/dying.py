"""A worker that dies: begins a run of :class:`Booking`, and kills its process at a moment of it. ::

python -m tests.runs.dying STORE NOTES MOMENT
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from rxflow import Flow
from rxflow.flow import human_feedback, listen, start
from rxflow.llm.source import Delta, Ending, ToolCallDelta
from rxflow.runs import Runs
from rxflow.tools import tool
from rxflow.types.answers import HumanFeedbackResult
from rxflow.types.events import InputRequested
from tests.scripted import Scripted
from tests.team import solo

RUN_ID = "r"


class Booking(Flow):
    """Pays with a tool, books, has that reviewed, and ends. What it does is noted in a file."""

    def __init__(self, notes: Path, dies_at: str = "") -> None:
        super().__init__(input_provider=self.review)
        self._notes = notes
        self._dies_at = dies_at

    def note(self, what: str) -> None:
        """Note it, and die if this is the moment."""
        with self._notes.open("a", encoding="utf-8") as file:
            file.write(f"{what}\n")
        if what == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    @start()
    async def pay(self) -> Any:
        @tool
        async def pay(amount: float) -> str:
            """Pay an amount."""
            self.note("paid")
            return f"paid {amount:g}"

        call: list[Delta] = [ToolCallDelta(0, "c", "pay", '{"amount": 5}'), Ending("tool_calls")]
        model = Scripted(call, "Done")
        return await solo(model, agent={"tools": [pay]}).kickoff_async()

    @listen(pay)
    @human_feedback("Is it good?")
    async def book(self) -> str:
        self.note("booked")
        return "by train"

    def review(self, request: InputRequested) -> str:
        """The person."""
        self.note("reviewed")
        return "fine"

    @listen(book)
    async def end(self, result: HumanFeedbackResult) -> str:
        self.note("ended")
        return f"{result.output}: {result.feedback}"


if __name__ == "__main__":
    address, where, moment = sys.argv[1:]
    Runs(address, lease=1.0).start(Booking(Path(where), moment), run_id=RUN_ID).result(20)
