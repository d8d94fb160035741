"""An environment for each alternative: they pin each other's dependencies, and none belongs into ours.

They are made under ``.venv-alternatives/`` by an explicit command only, and found again there.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(".venv-alternatives")


@dataclass(frozen=True)
class Alternative:
    """A program of this name in ``programs/``, and what it needs. Without packages it runs in this environment."""

    name: str
    title: str
    packages: tuple[str, ...] = ()

    @property
    def program(self) -> Path:
        return Path(__file__).parent / "programs" / f"{self.name}.py"

    def python(self, folder: Path) -> Path:
        """The interpreter that runs it."""
        if not self.packages:
            return Path(sys.executable)
        return (folder / self.name / "bin" / "python").absolute()


ALTERNATIVES = (
    Alternative("litellm_stream", "litellm", ("litellm>=1.106",)),
    Alternative("openai_agents", "OpenAI Agents SDK", ("openai-agents>=0.3",)),
    Alternative("langgraph_graph", "LangGraph", ("langgraph>=1.0", "langchain-openai>=1.0")),
    Alternative("pydantic_ai_agent", "pydantic-ai", ("pydantic-ai-slim[openai]>=1.0",)),
    Alternative("crewai_flow", "CrewAI", ("crewai>=1.5",)),
)


class NotInstallable(Exception):
    """What pip said."""


def install(alternative: Alternative, folder: Path) -> None:
    """Make its environment, unless it is there. Raises :class:`NotInstallable`."""
    if alternative.python(folder).exists():
        return
    place = folder / alternative.name
    # Without pip in it, as not every Python can put one there; ours installs into it.
    _run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(place)])
    try:
        pip = [sys.executable, "-m", "pip", "--python", str(place), "install", "--quiet"]
        _run([*pip, "--disable-pip-version-check", *alternative.packages])
    except NotInstallable:
        alternative.python(folder).unlink()  # so that the next attempt does not take it for whole
        raise


def versions(alternative: Alternative, folder: Path) -> str:
    """The versions of what was asked for."""
    names = [package.partition(">=")[0].partition("[")[0] for package in alternative.packages]
    code = f"from importlib.metadata import version; print(', '.join(f'{{n}} {{version(n)}}' for n in {names!r}))"
    return _run([str(alternative.python(folder)), "-c", code]).strip()


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise NotInstallable(said.splitlines()[-1])
    return done.stdout
