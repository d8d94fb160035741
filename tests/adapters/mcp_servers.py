"""Servers for the tests: ``flows`` by rxflow, ``tools`` by mcp alone.

They run in the test's process, or as programs on standard input and output.
"""

import sys
from typing import Any

import anyio
from mcp.server import Server
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel
from reactivex import Observable

from rxflow import Flow
from rxflow.adapters import mcp
from rxflow.flow import listen, start
from rxflow.llm.source import Delta, Request
from rxflow.tools import tool
from tests.adapters import flows
from tests.gate import Gate
from tests.scripted import Scripted, calls
from tests.team import solo

stopped: list[str] = []


class Place(BaseModel):
    place: str = ""
    days: int = 1


class Trip(Flow[Place]):
    """Plan a trip."""

    @start()
    def plan(self) -> str:
        return f"{self.state.days} days in {self.state.place}"

    @listen(plan)
    def write(self, plan: str) -> dict[str, Any]:
        said = str(solo(Scripted("by sea")).kickoff())
        return {"plan": plan, "how": said}


class Waiting(Flow[dict[str, Any]]):
    """Wait for ever."""

    @start()
    async def wait(self) -> str:
        try:
            return str(await solo(Scripted(["first ", Gate()])).kickoff_async())
        finally:
            stopped.append("Waiting")


class Booking(Flow[dict[str, Any]]):
    """Book a berth, if people agree."""

    @start()
    def book(self) -> str:
        name = self.ask("In whose name?")
        return f"{name}: {solo(Payer(), agent={'tools': [pay]}).kickoff()}, {', '.join(paid) or 'not paid'}"


class Payer(Scripted):
    """Answers as the conversation stands, as models do: a method that is run again asks only what was not answered."""

    def stream(self, request: Request) -> Observable[Delta]:
        is_over = request.messages[-1]["role"] == "tool"
        return Scripted("done" if is_over else calls(("pay", {"amount": 40}))).stream(request)


paid: list[str] = []


@tool(needs_approval=True)
def pay(amount: int) -> str:
    """Pay."""
    paid.append(f"paid {amount}")
    return "paid"


class Stopped(Flow[dict[str, Any]]):
    """Name what was stopped."""

    @start()
    def tell(self) -> str:
        return ", ".join(stopped)


tools = MCPServer("tools")


@tools.tool()
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tools.tool()
async def count(ctx: Context) -> str:
    """Count to three."""
    for number in (1, 2, 3):
        await ctx.report_progress(number, 3, f"at {number}")
    return "three"


@tools.tool()
async def fail(why: str) -> str:
    """Fail."""
    raise ToolError(why)


@tools.tool()
async def wait(ctx: Context) -> str:
    """Wait for ever."""
    try:
        await ctx.report_progress(1, 2, "waiting")
        await anyio.sleep_forever()
    finally:
        stopped.append("wait")
    return ""


@tools.tool()
async def name_stopped() -> str:
    """Name what was stopped."""
    return ", ".join(stopped)


def create_flows() -> Server[Any]:
    """A server of flows, as if it had just been started."""
    stopped.clear()
    paid.clear()
    served = (mcp.FlowTool(each) for each in (Trip, Waiting, Booking, Stopped, flows.Failing, flows.WithTools))
    return mcp.create_server("flows", *served)


if __name__ == "__main__":
    if sys.argv[1] == "tools":
        tools.run("stdio")
    else:
        mcp.run_on_stdio(create_flows())
