"""Warnings that Python gives when something is collected."""

import gc
import warnings
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def unawaited() -> Generator[list[str]]:
    """The warnings about coroutines that were never awaited, complete at the end of the ``with`` block.

    What earlier tests left may be collected in the block too, and warn of other things.
    """
    gc.collect()
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield texts
        gc.collect()
    texts += [text for text in (str(each.message) for each in warned) if "never awaited" in text]
