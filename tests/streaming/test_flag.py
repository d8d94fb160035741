"""The flag that threads wait for: what a wait leaves behind."""

from collections.abc import Callable

import pytest

from rxflow._streaming import interrupts
from rxflow._streaming.interrupts import Flag, create_wait


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the waits that were woken, in order."""
    woken: list[int] = []
    created: list[int] = []

    def create_counted() -> tuple[Callable[[], None], Callable[[float | None], bool]]:
        number = len(created)
        created.append(number)
        wake, wait = create_wait()

        def count_and_wake() -> None:
            woken.append(number)
            wake()

        return count_and_wake, wait

    monkeypatch.setattr(interrupts, "create_wait", create_counted)
    return woken


def test_a_wait_that_has_timed_out_is_not_woken_later(woken: list[int]) -> None:
    flag = Flag()
    for _ in range(3):
        assert not flag.wait(0)
    flag.set()
    assert flag.wait(0)
    assert woken == []


def test_a_wait_that_was_interrupted_is_not_woken_later(woken: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    counted = interrupts.create_wait

    def interrupt(limit_s: float | None) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(interrupts, "create_wait", lambda: (counted()[0], interrupt))
    flag = Flag()
    with pytest.raises(KeyboardInterrupt):
        flag.wait(0)
    flag.set()
    assert woken == []


def test_a_wait_that_is_woken_as_it_times_out_reports_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait has taken its time, and set() has taken the wake-up, before either looks at the other."""
    flag = Flag()
    wake, _ = create_wait()

    def set_and_time_out(limit_s: float | None) -> bool:
        flag.set()
        return False

    monkeypatch.setattr(interrupts, "create_wait", lambda: (wake, set_and_time_out))
    assert flag.wait(0)
