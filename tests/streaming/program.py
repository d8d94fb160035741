"""A program of a test in a process of its own, for what only a whole process shows."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.gate import PATIENCE_S

ROOT = Path(__file__).parents[2]

PRELUDE = """
import asyncio, os, sys, threading
from rxflow import LLM, Flow
from rxflow.flow import start
from tests.gate import Gate
from tests.scripted import Scripted
from tests.team import solo

def say(word):
    print(word, flush=True)

source = Scripted(["a", Gate()])
crew = solo(LLM("openai/gpt-4o", base_url=sys.argv[1], api_key="k") if len(sys.argv) > 1 else source)

class Research(Flow):
    stream = True

    @start()
    def research(self):
        return crew.kickoff().raw

class AsyncResearch(Flow):
    stream = True

    @start()
    async def research(self):
        return (await crew.kickoff_async()).raw
"""


class Program:
    """A program of the test in a process of its own, with rxflow from here."""

    def __init__(self, code: str, *arguments: str, warnings: str = "ignore", first: str = "rxflow") -> None:
        """``first`` is the module that is imported before all others."""
        self.process = subprocess.Popen(
            [sys.executable, "-W", warnings, "-c", f"import {first}\n{PRELUDE}{textwrap.dedent(code)}", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        going.append(self)

    def heard(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ended(self) -> tuple[int, str, str]:
        """Its exit code, and what is left of its output and of its errors."""
        try:
            out, errors = self.process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, errors = self.process.communicate()
            pytest.fail(f"the process hung; it said {out!r} and {errors!r}")
        going.remove(self)
        return self.process.returncode, out.strip(), errors.strip()

    def kill(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.communicate()


going: list[Program] = []
"""Those that have not ended: what a failed test leaves must not be the failure of a later one."""
