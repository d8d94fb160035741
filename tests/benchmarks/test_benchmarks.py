"""The benchmark program runs and says what it measured. How fast is judged on a quiet machine, by its reader."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import BENCHMARKS

ROOT = Path(__file__).parents[2]

# Processes of their own, each of which imports litellm: seconds, on a machine that has other things to do.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def ran(only: str, path: Path) -> tuple[str, Any]:
    """What a small run prints, and what it writes."""
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", only, "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert list(figures) == ["machine", only]
    return done.stdout, figures[only]


SHOWN = {
    "throughput": "ratio",
    "wires": "ratio",
    "startup": "ratio",
    "first_chunk": "milliseconds",
    "many_flows": "cpu_seconds",
    "scale": "growth",
    "memory": "growth",
    "stopping": "median",
    "import": "ratio",
    "adapters": "microseconds",
}
"""Of each benchmark a figure that its table shows with two digits."""
WHOLE = ["journal", "runs", "web", "cluster"]


@pytest.mark.parametrize("name", SHOWN)
def test_each_prints_a_table_and_writes_the_same_figures(name: str, tmp_path: Path) -> None:
    shown, figures = ran(name, tmp_path / "figures.json")
    rows: list[dict[str, Any]] = figures["loads"] if name == "many_flows" else figures
    assert len(rows) >= 3
    for row in rows:
        line = re.search(rf"^(?:.* )?{re.escape(row['name'])} .*$", shown, re.MULTILINE)
        assert line is not None, shown
        assert f" {row[SHOWN[name]]:.2f}" in line[0]


def test_none_is_left_out() -> None:
    assert BENCHMARKS.keys() == {*SHOWN, *WHOLE, "operators"}  # those have tests of their own


@pytest.mark.parametrize("name", WHOLE)
def test_those_of_several_processes_print_a_table_and_write_figures(name: str, tmp_path: Path) -> None:
    if name == "cluster":
        pytest.importorskip("ray")
    shown, figures = ran(name, tmp_path / "figures.json")
    assert figures
    assert len(shown.splitlines()) > 3


def test_ways_of_reading_are_held_against_the_bare_loop(tmp_path: Path) -> None:
    _, rates = ran("throughput", tmp_path / "figures.json")
    floor, *others = rates
    assert (floor["name"], floor["ratio"], floor["target"]) == ("bare httpx + json loop", 1.0, None)
    assert [each["target"]["bound"] for each in others] == [0.9, 0.9, 0.8, 0.8]
    assert all(each["chunks_per_second"] > 0 for each in rates)
    assert all(each["is_reached"] == (each["ratio"] >= each["target"]["bound"]) for each in others)


def test_each_wire_is_held_against_a_bare_loop_on_that_wire(tmp_path: Path) -> None:
    shown, rates = ran("wires", tmp_path / "figures.json")
    assert [each["name"] for each in rates] == [
        f"{wire}: {way}"
        for wire in ("anthropic", "gemini", "responses")
        for way in ("bare httpx + json loop", "for", "async for")
    ]
    assert [each["target"] is None for each in rates] == [True, False, False] * 3
    assert "≥ 0.5" in shown


def test_a_program_is_held_against_one_on_the_openai_package(tmp_path: Path) -> None:
    shown, programs = ran("startup", tmp_path / "figures.json")
    floor, httpx, ours, embedded = programs
    assert (floor["name"], floor["ratio"]) == ("the openai package alone", 1.0)
    assert httpx["megabytes"] < floor["megabytes"]
    assert (ours["target"]["bound"], ours["megabytes_target"]["bound"]) == (0.8, 60)
    assert embedded["is_reached"] is None
    assert "≤ 0.8" in shown
    assert "≤ 60" in shown


def test_what_takes_up_names_is_not_left_out_of_the_import(tmp_path: Path) -> None:
    _, imports = ran("import", tmp_path / "figures.json")
    names = [each["name"] for each in imports]
    assert names[1:] == ["import rxflow", "from rxflow import LLM, Agent, Crew, Flow, Process, Task"]
    assert imports[2]["milliseconds"] > imports[1]["milliseconds"] > 0
