"""A reader in another process ends early. The next reader continues after the last chunk of the first, and misses none.

python examples/resume_after_a_dropped_reader.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from _model import chosen_model

from rxflow import LLM, Flow
from rxflow.flow import start
from rxflow.runs import Runs


class Trip(Flow):
    model = LLM("rxflow/demo")

    @start()
    async def plan(self) -> str:
        return str(await self.model.acall("Plan a trip to Lisbon in three sentences"))


def read(store: str, run_id: str, after: int, limit: int) -> None:
    """In the other process: print each chunk with its number, and end after ``limit`` chunks."""
    with Runs(store) as runs:
        for count, chunk in enumerate(runs[run_id].output(after=after), 1):
            print(f"{chunk.seq}\t{chunk}", flush=True)
            if count == limit:
                return


def run_reader(store: str, run_id: str, after: int, limit: int) -> list[tuple[int, str]]:
    """Start a reader process, and return the chunks that it read."""
    command = [sys.executable, __file__, "read", store, run_id, str(after), str(limit)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True).stdout
    lines = [line.partition("\t") for line in printed.splitlines()]
    return [(int(seq), text) for seq, _, text in lines]


def main() -> None:
    Trip.model = chosen_model()
    with tempfile.TemporaryDirectory() as folder, Runs(f"sqlite:///{Path(folder, 'runs.db')}") as runs:
        run = runs.start(Trip())
        first = run_reader(f"sqlite:///{Path(folder, 'runs.db')}", run.id, after=-1, limit=5)
        print(f"the first reader saw {len(first)} chunks and was dropped: {''.join(text for _, text in first)!r}")
        rest = run_reader(f"sqlite:///{Path(folder, 'runs.db')}", run.id, after=first[-1][0], limit=-1)
        print(f"the second one went on behind chunk {first[-1][0]}: {''.join(text for _, text in rest)!r}")
        whole = "".join(text for _, text in [*first, *rest])
        print(f"together they have the whole answer: {whole == run.result()}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["read"]:
        read(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
