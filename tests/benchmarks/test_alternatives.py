"""What else one would pick is optional: what is absent or fails is named with the reason, and the rest is measured."""

from pathlib import Path

import pytest

from benchmarks.alternatives.__main__ import FLOOR, OURS, Skipped, measure, missing, table
from benchmarks.alternatives.environments import ALTERNATIVES, Alternative

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

NOBODY = Alternative("no_such_program", "Nobody")


def test_all_are_skipped_by_name_where_none_is_installed(tmp_path: Path) -> None:
    skipped = missing(ALTERNATIVES, tmp_path, may_install=False)
    assert [each.name for each in skipped] == [
        "litellm",
        "OpenAI Agents SDK",
        "LangGraph",
        "pydantic-ai",
        "CrewAI",
    ]
    assert {each.reason for each in skipped} == {"it is not installed; --install does that"}
    assert all(each.program.is_file() for each in ALTERNATIVES)


def test_one_that_cannot_be_installed_is_skipped_with_what_pip_said_and_tried_again_next_time(tmp_path: Path) -> None:
    absent = Alternative("absent", "Absent", (str(tmp_path / "no_such_package"),))
    for _ in range(2):
        (skipped,) = missing([absent], tmp_path, may_install=True)
        assert skipped.name == "Absent"
        assert skipped.reason.startswith("it could not be installed: ")
        assert "no_such_package" in skipped.reason


def test_the_floor_and_ours_are_measured_and_a_program_that_fails_is_named(tmp_path: Path) -> None:
    rates, skipped = measure([NOBODY], tmp_path, 200, 1)
    assert [rate.name for rate in rates] == [FLOOR.title, OURS.title]
    assert rates[1].ours_is == 1.0
    assert all(rate.chunks_per_second > 0 for rate in rates)
    (failed,) = skipped
    assert failed.name == "Nobody"
    assert "no_such_program.py" in failed.reason

    shown = table(rates, [*skipped, Skipped("Absent", "it is away")], 200)
    assert "skipped Nobody: it failed: " in shown
    assert "skipped Absent: it is away" in shown
    assert "1.00×" in shown
