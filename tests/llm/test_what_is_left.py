"""What the I/O loop, which outlives all runs, keeps of them: nothing."""

import gc

import pytest

from rxflow import LLM
from rxflow._streaming.emitter import Emitter
from rxflow.testing.leaks import assert_nothing_is_left
from tests.loopback import Loopback, Reply
from tests.team import Asking


def places() -> int:
    gc.collect()
    return sum(isinstance(each, Emitter) for each in gc.get_objects())


@pytest.mark.slow
def test_no_place_of_a_run_that_was_closed_is_kept_by_timers_of_the_http_client(provider: Loopback, llm: LLM) -> None:
    provider.answer(lambda request: Reply(text=["one", "two"], hold_after=1))

    def begin_and_close() -> None:
        flow = Asking()
        flow.llm = llm
        with flow.kickoff() as output:
            next(iter(output))

    before = places()
    for _ in range(5):
        begin_and_close()
    assert_nothing_is_left()
    assert places() <= before
