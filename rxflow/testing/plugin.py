"""The pytest plugin: fixtures, and checks after each test.

- ``virtual_clock``: time that passes only while everything waits.
- ``marbles``: expectations as marble diagrams. A test fails if an expectation was never compared.
- No turn of a ``ScriptedLLM`` may be left over.
- No run, thread or task of rxflow may outlive its test, and no subscription through a ``probe()`` may stay open. The
  marker ``@pytest.mark.rxflow_leaks("why")`` turns this check off.

pytest loads this plugin in every Python environment with rxflow. So the plugin imports most modules only when a test
needs them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

import pytest

from rxflow.testing.leaks import Dues, collect, collecting, complaint_about, watching_runs

if TYPE_CHECKING:
    from rxflow.testing._marbles import Marbles
    from rxflow.testing._virtual_clock import VirtualClock

_MARKER = "rxflow_leaks"
_dues = pytest.StashKey[Dues]()
_has_failed = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", f"{_MARKER}(why): runs, threads and tasks of rxflow may outlive this test")


@pytest.fixture(autouse=True)
def rxflow_leak_check(request: pytest.FixtureRequest) -> Generator[None]:
    """Check that no run, thread, task or probed subscription of rxflow outlives the test.

    This fixture is set up before the other fixtures of a test function, and torn down after these fixtures. A test that
    failed or has the marker ``rxflow_leaks`` is not checked.
    """
    with collecting() as dues, watching_runs() as runs:
        request.node.stash[_dues] = dues
        yield
    if request.node.get_closest_marker(_MARKER) is not None:
        return
    complaints: list[str] = []
    if not request.node.stash.get(_has_failed, False):
        complaints = [*dues.complaints("fixtures"), *filter(None, [complaint_about(runs)])]
    runs.dispose()  # runs that have not ended must not disturb the next test
    _complain(complaints)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test. If it passes, check that all turns of scripts were used, and all expectations were compared."""
    item.stash[_has_failed] = True
    result = yield
    item.stash[_has_failed] = False
    if _dues in item.stash:
        _complain(item.stash[_dues].complaints("test"))
    return result


@pytest.fixture
def virtual_clock() -> Generator[VirtualClock]:
    """A :class:`~rxflow.testing._virtual_clock.VirtualClock`, active during the test."""
    from rxflow.testing._virtual_clock import VirtualClock

    with VirtualClock() as clock:
        yield clock


@pytest.fixture
def marbles() -> Marbles:
    """A :class:`~rxflow.testing._marbles.Marbles`. An expectation that was never compared fails the test."""
    from rxflow.testing._marbles import Marbles

    marbles = Marbles()
    collect(marbles, after="test")
    return marbles


def _complain(complaints: Iterable[str]) -> None:
    message = "\n".join(complaints)
    if message:
        pytest.fail(message, pytrace=False)
