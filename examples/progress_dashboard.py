"""A flow of two crews in a live dashboard: phases, agents, a tool call with its arguments, text, and a summary.

python examples/progress_dashboard.py
"""

import asyncio
from time import perf_counter

from _model import chosen_model
from _screen import Ink, Screen

from rxflow import Agent, Crew, Flow, Task
from rxflow.flow import listen, start
from rxflow.tools import tool
from rxflow.types.streaming import StreamChunkType

MODEL = chosen_model()


@tool
def capacity_by_year(subject: str) -> str:
    """The capacity installed worldwide, by year."""
    return "14 GW in 2016, 35 GW in 2020 and 83 GW in 2024"


ARCHIVIST = Agent(
    role="Archivist", goal="Find figures", backstory="Never guesses.", llm=MODEL, tools=[capacity_by_year]
)
PLANNER = Agent(role="Port planner", goal="Think ahead", backstory="Knows ships.", llm=MODEL)


class WindReport(Flow):
    stream = True

    @start()
    def collect(self) -> str:
        task = Task(description="Collect figures on offshore wind", expected_output="By year", agent=ARCHIVIST)
        return str(Crew(agents=[ARCHIVIST], tasks=[task]).kickoff())

    @listen(collect)
    def advise(self, notes: str) -> str:
        task = Task(
            name="Advise a port on quays for turbines",
            description="Advise a port on quays for turbines\n{notes}",
            expected_output="One piece of advice",
            agent=PLANNER,
        )
        return str(Crew(agents=[PLANNER], tasks=[task]).kickoff(inputs={"notes": notes}))


async def main() -> None:
    screen, flow, began = Screen(), WindReport(), perf_counter()
    phase = turn = call = None
    phases = calls = 0
    screen.line("  Offshore wind: a report in two phases", Ink.TITLE)
    async with await flow.kickoff_async() as streaming:
        async for chunk in streaming:
            if phase != chunk.task_id:
                phase, phases = chunk.task_id, phases + 1
                screen.line(f"\n  ● {chunk.task_name}", Ink.PHASE)
                screen.write(chunk.agent_role, Ink.AGENT)
            if turn != chunk.llm_call_id:
                turn = chunk.llm_call_id
                screen.end_line()
            if chunk.chunk_type is StreamChunkType.TEXT:
                screen.write(chunk.content)
            elif chunk.tool_call:
                if call != chunk.tool_call.tool_id:
                    call, calls = chunk.tool_call.tool_id, calls + 1
                    screen.end_line()
                    screen.write(f"→ {chunk.tool_call.tool_name} ", Ink.TOOL)
                screen.write(chunk.tool_call.arguments, Ink.TOOL)

    screen.line(f"\n  ✓ Done in {perf_counter() - began:.1f} s", Ink.DONE)
    counts = f"phases: {phases} · tool calls: {calls} · chunks: {len(streaming.chunks)}"
    screen.line(f"    {counts} · answer: {len(streaming.result)} characters", Ink.FAINT)


asyncio.run(main())
