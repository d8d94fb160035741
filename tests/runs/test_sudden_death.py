"""A process that is killed in the middle of an effect: what must not be done twice is in the log before it begins."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rxflow import operators as ops
from rxflow.runs import NotResumable, Run, RunLost, Runs
from tests.gate import PATIENCE_S
from tests.runs.conftest import ROOT
from tests.runs.dying import RUN_ID, Booking

LEASE_S = 60.0
"""Of the one that resumes the run: it must not lapse. That of the one that dies is short."""


def die(store: str, notes: Path, moment: str) -> None:
    command = [sys.executable, "-m", "tests.runs.dying", store, str(notes), moment]
    assert subprocess.run(command, cwd=ROOT, check=False, timeout=100).returncode == -signal.SIGKILL


def resumed(runs: Runs, notes: Path) -> Run:
    run = runs[RUN_ID]
    with pytest.raises(RunLost):
        list(run.events().pipe(ops.to_output()))
    run.resume(target=Booking(notes))
    return run


@pytest.mark.slow
def test_a_tool_that_was_being_called_is_not_called_again(store: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    die(store, notes, "paid")
    with Runs(store, lease=LEASE_S) as runs:
        run = resumed(runs, notes)
        with pytest.raises(NotResumable, match="the tool 'pay' was running when the run was interrupted"):
            run.result(PATIENCE_S)
    assert notes.read_text().split() == ["paid"]


@pytest.mark.slow
def test_what_a_person_was_being_shown_is_not_made_again(store: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    die(store, notes, "reviewed")
    with Runs(store, lease=LEASE_S) as runs:
        assert resumed(runs, notes).result(PATIENCE_S) == "by train: fine"
    assert notes.read_text().split() == ["paid", "booked", "reviewed", "reviewed", "ended"]


@pytest.mark.slow
def test_a_person_who_has_answered_is_not_asked_again(store: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    die(store, notes, "ended")
    with Runs(store, lease=LEASE_S) as runs:
        assert resumed(runs, notes).result(PATIENCE_S) == "by train: fine"
    assert notes.read_text().split() == ["paid", "booked", "reviewed", "ended", "ended"]
