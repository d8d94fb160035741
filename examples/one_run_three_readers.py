"""One run, three readers: its words with secrets redacted, its statistics, and a cassette that replays it.

python examples/one_run_three_readers.py
"""

import tempfile
from pathlib import Path

from _model import chosen_model

from rxflow import Agent, Crew, Flow, Task, operators as ops
from rxflow.flow import listen, start
from rxflow.types.streaming import StreamChunk

MODEL = chosen_model()


def ask(role: str, description: str) -> str:
    agent = Agent(role=role, goal="Answer well", backstory="Has seen a lot", llm=MODEL)
    task = Task(description=description, expected_output="A few sentences", agent=agent, name=role.lower())
    return str(Crew(agents=[agent], tasks=[task]).kickoff())


class Support(Flow):
    @start()
    def look(self) -> str:
        return ask("Clerk", "Report on the order with card 4929-1234")

    @listen(look)
    def reply(self, found: str) -> str:
        return ask("Writer", "Write a reply about the order")


def show(chunk: StreamChunk) -> None:
    print(chunk, end="", flush=True)


with tempfile.TemporaryDirectory() as folder:
    cassette = Path(folder, "support.cassette")
    # record() comes before share_log(), so that the run is recorded once. All readers below share this run.
    run = Support().events().pipe(ops.record(cassette), ops.share_log("cancel"))

    words = run.pipe(ops.text(), ops.redact(r"\d{4}-\d{4}", "****"), ops.words())
    figures = run.pipe(ops.stats())
    words.subscribe(show)
    last = figures.run()  # blocks until the end

    print()
    for task, so_far in last.tasks.items():
        print(f"{task}: {so_far.chunks} chunks, {so_far.tokens} tokens")
    print(f"in all: {last.tokens} tokens, {last.cost} dollars")

    again = ops.from_cassette(cassette, speed=None).pipe(ops.text(), ops.only_agent("Writer"), ops.accumulate())
    print(f"the reply again: {again.run()}")
