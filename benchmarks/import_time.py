"""What ``import rxflow`` costs, beside the import of its light dependencies put to use.

Its names come when they are asked for (D-024), so what it costs to have them all is shown too.
Both in the processor's time, with all modules compiled beforehand: a source that Python has to compile anew, as it does
where it may not write ``__pycache__``, would be counted as rxflow's.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass

RXFLOW = "from rxflow import LLM, Agent, Crew, Flow, Process, Task"
"""All that it has to give."""
# pydantic and anyio load most of themselves on first use, so the floor uses what any program with a model would.
FLOOR = "import asyncio, anyio.to_thread, reactivex.operators, pydantic; type('M', (pydantic.BaseModel,), {})"
AT_MOST = 1.3


@dataclass(frozen=True)
class Import:
    """Median milliseconds of the processor, and the median ratio to the floor of the same turn."""

    name: str
    milliseconds: float
    ratio: float
    at_most: float | None


def _milliseconds(code: str, compiled: str) -> float:
    timed = f"import time; t = time.process_time(); {code}; print(time.process_time() - t)"
    environment = os.environ | {"PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout) * 1000


def measure(turns: int) -> list[Import]:
    """The floor first; after one turn that compiles."""
    floor_name = "reactivex, pydantic and anyio, put to use"
    ways = {floor_name: FLOOR, "import rxflow": "import rxflow", RXFLOW: RXFLOW}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as compiled:
        for turn in range(turns + 1):
            for name, code in ways.items():
                milliseconds = _milliseconds(code, compiled)
                if turn:
                    taken[name].append(milliseconds)
    return [
        Import(
            name,
            statistics.median(those),
            statistics.median(a / b for a, b in zip(those, taken[floor_name], strict=True)),
            AT_MOST if name == "import rxflow" else None,
        )
        for name, those in taken.items()
    ]


def table(imports: list[Import]) -> str:
    """What was measured, for people."""
    lines = [f"{'import':<58}{'CPU ms':>8}{'ratio':>8}{'≤':>6}"]
    for each in imports:
        target = "" if each.at_most is None else f"{each.at_most:.1f}"
        lines.append(f"{each.name:<58}{each.milliseconds:>8.0f}{each.ratio:>8.2f}{target:>6}".rstrip())
    return "\n".join(lines)
