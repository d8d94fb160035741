"""What a task does to the world besides its stream: not after it was disposed."""

import builtins
import threading
from pathlib import Path
from typing import Any

import pytest

from rxflow.types.results import TaskOutput
from tests.gate import Gate
from tests.scripted import Scripted
from tests.team import solo


def disposed_while_it_judges(**given: Any) -> None:
    """A task whose async guardrail still accepts the answer when another thread has disposed the run."""
    inside, disposed = Gate(), Gate()

    async def accept(output: TaskOutput) -> tuple[bool, Any]:
        inside.open()
        disposed.wait()  # it blocks the loop: the run hears of its disposal afterwards
        return True, None

    subscription = solo(Scripted("Late"), guardrail=accept, **given).events().subscribe()
    inside.wait()
    subscription.dispose()
    disposed.open()
    for thread in threading.enumerate():
        if thread.name.startswith("rxflow ") and thread.name not in ("rxflow I/O", "rxflow import"):
            thread.join(5)


def test_no_file_is_written(tmp_path: Path) -> None:
    disposed_while_it_judges(output_file=str(tmp_path / "late.txt"))
    assert list(tmp_path.iterdir()) == []


def test_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(builtins, "input", asked.append)
    disposed_while_it_judges(human_input=True)
    assert asked == []
