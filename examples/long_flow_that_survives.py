"""A flow whose process is killed: it continues where it was, and no LLM call is paid twice. It then waits for a person.

python examples/long_flow_that_survives.py
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _model import chosen_model

from rxflow import Agent, Crew, Flow, Task, operators as ops
from rxflow.flow import listen, start
from rxflow.runs import RunLost, Runs
from rxflow.types import LLMStarted, MethodFinished, RunPaused


def work(role: str, description: str) -> str:
    agent = Agent(role=role, goal="Do it well", backstory="Has time", llm=MODEL)
    task = Task(description=description, expected_output="A few sentences", agent=agent)
    return str(Crew(agents=[agent], tasks=[task]).kickoff())


class Survey(Flow):
    @start()
    def measure(self) -> str:
        return work("Surveyor", "Measure the north channel")

    @listen(measure)
    def report(self, measured: str) -> str:
        if os.environ.get("DIES"):
            time.sleep(60)  # the process is killed before this ends
        return work("Writer", "Report on the north channel")

    @listen(report)
    def publish(self, text: str) -> str:
        return f"signed by {self.ask('Who signs?')}: {text[:40]}…"


MODEL = chosen_model()
if dies_with := os.environ.get("DIES"):  # this is the process that will be killed
    for event in Runs(dies_with, lease=0.5).start(Survey(), run_id="survey").events().pipe(ops.to_output()):
        if isinstance(event, MethodFinished):  # its end is in the log
            os.kill(os.getpid(), signal.SIGKILL)  # like a power cut

with tempfile.TemporaryDirectory() as folder:
    store = f"sqlite:///{Path(folder, 'runs.db')}"
    command = [sys.executable, *sys.argv]
    died = subprocess.run(command, env=os.environ | {"DIES": store}, stdout=subprocess.DEVNULL, check=False)
    print(f"the worker was killed: {died.returncode}")

    with Runs(store, lease=0.5) as runs:
        run = runs["survey"]
        try:
            list(run.events().pipe(ops.to_output()))
        except RunLost:
            print(f"the run is {run.status}")
        run.resume(target=Survey())
        try:
            run.result()
        except RunPaused as paused:
            print(f"the run is {run.status}: {paused.pending[0].message}")

        run.answer(run.pending()[0].request_id, "Ada")
        print(run.result())
        for event in run.events().pipe(ops.to_output()):
            match event:
                case LLMStarted(replayed=False):
                    print(f"paid: {event.origin.agent_role}")
                case MethodFinished(replayed=False):
                    print(f"ran: {event.origin.flow_method}")
                case _:
                    pass
