"""Checks of conformance that hold on a busy machine, and errors that no caller can catch."""

import threading

import pytest

from rxflow.testing._conformance import harness, source_rules
from tests.gate import PATIENCE_S


@pytest.fixture(autouse=True)
def more_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """All operators here keep the rules: only one that breaks them waits that long."""
    for module, name in (
        (harness, "SIGNAL_TIMEOUT_S"),
        (source_rules, "SIGNAL_TIMEOUT_S"),
        (harness, "DISPOSAL_LIMIT_S"),
        (harness, "_THREAD_END_S"),
    ):
        monkeypatch.setattr(module, name, PATIENCE_S)


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[type[BaseException]]:
    """The types of the errors that no caller could catch."""
    errors: list[type[BaseException]] = []

    def note(hook: threading.ExceptHookArgs) -> None:
        errors.append(hook.exc_type)

    monkeypatch.setattr(threading, "excepthook", note)
    return errors
