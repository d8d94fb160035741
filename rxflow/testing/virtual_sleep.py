"""``time.sleep`` in virtual time, for sync methods and sync tools."""

from __future__ import annotations

import time
from typing import SupportsIndex

from rxflow.loops import running_loop
from rxflow.testing.counted_threads import sleep_in_virtual_time
from rxflow.testing.virtual_loop import VirtualLoop

_real = time.sleep
_installed = 0  # clocks may be active one inside another


def install() -> None:
    """Replace ``time.sleep``, until the matching :func:`uninstall`. Who imported the name itself keeps the old one."""
    global _real, _installed
    if _installed == 0:
        _real, time.sleep = time.sleep, _sleep
    _installed += 1


def uninstall() -> None:
    """See :func:`install`."""
    global _installed
    _installed -= 1
    if _installed == 0:
        time.sleep = _real


def _sleep(seconds: float | SupportsIndex, /) -> None:
    if not isinstance(seconds, float):
        seconds = seconds.__index__()
    if seconds < 0:
        raise ValueError(f"sleep length must be non-negative: {seconds!r}")
    loop = running_loop()
    if isinstance(loop, VirtualLoop):
        loop.advance(seconds)  # code on a loop that sleeps blocks that loop
    elif not sleep_in_virtual_time(seconds):
        _real(seconds)
