"""From the start of a process to its first chunk: seconds of the processor, and resident memory at that moment.

Each program is a process of its own, which streams one answer of the loopback provider and says what it took when the
first text is there. The floor is a program on the ``openai`` package alone. A first turn compiles all modules.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.provider import provider
from benchmarks.targets import Target, at_most, verdict

CHUNKS = 5

_REPORT = """
import sys, time
def report():
    pages = int(open("/proc/self/statm").read().split()[1])
    print(time.process_time(), pages * 4096 / 1e6)
    sys.stdout.flush()
url = sys.argv[1]
"""
_FLOW = """
from rxflow import LLM, Flow
from rxflow.flow import start

class Asking(Flow):
    stream = True

    @start()
    def ask(self):
        return LLM({model}).call("Hello")

with Asking().kickoff() as output:
    for chunk in output:
        report()
        break
"""
FLOOR = "the openai package alone"
PROGRAMS: dict[str, str] = {
    FLOOR: """
import openai
client = openai.OpenAI(base_url=url, api_key="none")
messages = [{"role": "user", "content": "Hello"}]
for chunk in client.chat.completions.create(model="gpt-4o", messages=messages, stream=True):
    if chunk.choices and chunk.choices[0].delta.content:
        report()
        break
""",
    "httpx + json": """
import json, httpx
body = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
with httpx.stream("POST", url + "/chat/completions", json=body) as response:
    for line in response.iter_lines():
        if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
            report()
            break
""",
    "rxflow, an OpenAI-compatible server": _FLOW.format(model='"openai/gpt-4o", base_url=url, api_key="none"'),
    "rxflow, the embedded model": _FLOW.format(model='"rxflow/demo"'),
}
TARGETS: dict[str, tuple[Target, Target]] = {"rxflow, an OpenAI-compatible server": (at_most(0.8), at_most(60))}
"""Of the processor's time beside the floor's, and of the megabytes."""


@dataclass(frozen=True)
class Startup:
    """One program: medians over its turns."""

    name: str
    cpu_seconds: float
    ratio: float
    """Of the sums of the processor's time over all turns, to the floor's."""
    megabytes: float
    target: Target | None
    megabytes_target: Target | None
    is_reached: bool | None


def _start(program: str, url: str) -> tuple[float, float]:
    """Seconds of the processor and megabytes at the first chunk."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-c", _REPORT + program, url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode or not done.stdout:
        raise RuntimeError(f"a program failed:\n{program}\n{done.stderr}")
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes


def measure(turns: int) -> list[Startup]:
    """All programs by turns, after one turn that compiles. Empty where the system does not say what is resident."""
    if not Path("/proc/self/statm").exists():
        return []
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    with provider(CHUNKS) as url:
        for turn in range(turns + 1):
            for name, program in PROGRAMS.items():
                figures = _start(program, url)
                if turn:
                    taken[name].append(figures)
    floor = sum(seconds for seconds, _ in taken[FLOOR])
    startups: list[Startup] = []
    for name, those in taken.items():
        ratio = sum(seconds for seconds, _ in those) / floor
        megabytes = statistics.median(each for _, each in those)
        target, megabytes_target = TARGETS.get(name, (None, None))
        is_reached = (
            None
            if target is None or megabytes_target is None
            else target.is_reached(ratio) and megabytes_target.is_reached(megabytes)
        )
        seconds = statistics.median(seconds for seconds, _ in those)
        startups.append(Startup(name, seconds, ratio, megabytes, target, megabytes_target, is_reached))
    return startups


def table(startups: list[Startup]) -> str:
    """What was measured, for people."""
    verdicts = f"{'target':>10}{'reached':>9}"
    lines = [f"{'process start to first chunk':<44}{'CPU s':>8}{'ratio':>8}{verdicts}{'MB':>8}{verdicts}"]
    lines += [
        f"{each.name:<44}{each.cpu_seconds:>8.2f}{each.ratio:>8.2f}{verdict(each.target, each.ratio)}"
        f"{each.megabytes:>8.1f}{verdict(each.megabytes_target, each.megabytes)}".rstrip()
        for each in startups
    ]
    return "\n".join(lines)
