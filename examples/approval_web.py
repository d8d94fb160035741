"""A flow on a web page. It asks a person before it pays, and continues when somebody has answered on the page.

In a terminal, the page is served until Ctrl-C. Elsewhere, the program itself starts a run and answers, over HTTP.

python examples/approval_web.py
"""

import json
import signal
import sys
import threading
from typing import Any

import httpx
from _model import chosen_model

from rxflow import Agent, Crew, Flow, Task
from rxflow.flow import start
from rxflow.screens import web
from rxflow.tools import tool

MODEL = chosen_model()


@tool(needs_approval=True)
def pay(amount: float, purpose: str) -> str:
    """Pay an amount in euros."""
    return f"{amount:g} euros paid for {purpose}"


class Order(Flow[dict[str, Any]]):
    @start()
    def order(self) -> str:
        clerk = Agent(role="Clerk", goal="Pay what is due", backstory="Counts twice", llm=MODEL, tools=[pay])
        task = Task(description="Pay the harbour dues", expected_output="A receipt", agent=clerk)
        return str(Crew(agents=[clerk], tasks=[task]).kickoff())


def visit(address: str) -> None:
    """Do over HTTP what the page does: start a run, follow it, and answer its question."""
    with httpx.Client(base_url=f"{address}api", timeout=60) as client:
        run = "/runs/" + client.post("/runs", json={"flow": "Order"}).json()["id"]
        with client.stream("GET", f"{run}/events") as response:
            for line in response.iter_lines():
                if not line.startswith('data: {"v"'):
                    continue
                event = json.loads(line.removeprefix("data: "))
                data = event["data"]
                if event["kind"] == "InputRequested":
                    print(f"[{data['kind']}] {data['message']}")
                    answer = {"approved": True, "arguments": {"amount": 12, "purpose": "the berth"}}
                    client.post(f"{run}/answers/{data['request_id']}", json={"value": answer}).raise_for_status()
                elif event["kind"] == "ToolFinished":
                    print(f"the tool: {data['result']}")
        print(f"the run: {client.get(run).json()['status']}", flush=True)


def visit_and_leave(address: str) -> None:
    try:
        visit(address)
    finally:
        signal.raise_signal(signal.SIGINT)  # stops the server like Ctrl-C


def welcome(address: str) -> None:
    if sys.stdin.isatty():
        print(f"Open {address}; Ctrl-C stops it")
    else:
        threading.Thread(target=visit_and_leave, args=(address,)).start()


try:
    web.serve(Order, port=0, on_ready=welcome)
except KeyboardInterrupt:
    print("the server is stopped")
