"""The pytest plugin, as a user's test run meets it."""

import pytest

from rxflow.testing import leaks

pytest_plugins = ["pytester"]

# Of no use here, and hypothesis is imported anew each time.
WITHOUT = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:timeout"]

HEAD = """
import asyncio
import pytest
from rxflow.testing._probes import probe
from rxflow.testing._scripted import ScriptedLLM
from reactivex.subject import Subject
"""


@pytest.fixture(autouse=True)
def little_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "GRACE_S", 0.5)


def run(pytester: pytest.Pytester, code: str) -> pytest.RunResult:
    pytester.makepyfile(HEAD + code)
    return pytester.runpytest_inprocess(*WITHOUT, "--strict-markers")


def test_a_good_test_passes(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def test_good():
    assert ScriptedLLM("he-ll-o|").call("x") == "hello"
""",
    )
    result.assert_outcomes(passed=1)


def test_turns_left_over_fail_their_test(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def test_bad():
    assert ScriptedLLM("one|", "two|", "three|").call("x") == "one"

def test_next():
    pass
""",
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*was asked 1×*left over:", "*turn 2: two|", "*turn 3: three|"])


def test_a_request_too_many_fails_its_test_whoever_caught_the_error(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def answer(llm):
    try:
        return llm.call("x")
    except Exception:
        return "a fallback"

def test_bad():
    assert answer(ScriptedLLM()) == "a fallback"

def test_next():
    pass
""",
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*request 1 to *has no turn*"])


def test_a_test_that_fails_by_itself_is_not_told_of_turns_too(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def test_bad():
    ScriptedLLM("one|")
    assert 1 == 2
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*left over*")


def test_turns_of_a_fixture_are_looked_at_too(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.fixture
def llm():
    return ScriptedLLM("one|")

def test_bad(llm):
    pass
""",
    )
    result.assert_outcomes(failed=1)


def test_a_subscription_through_a_probe_that_stays_fails_the_run(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def test_bad():
    Subject().pipe(probe("the tail")).subscribe()

def test_next():
    seen, source = probe(), Subject()
    source.pipe(seen).subscribe().dispose()
""",
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*1 of the subscriptions through the tail*neither ended nor were disposed*"])


LEAKING = """
subscriptions = []

def teardown_module():
    subscriptions[0].dispose()

{marker}
def test_bad():
    subscriptions.append(ScriptedLLM("a-", repeat=True).observe("x").subscribe())
"""


def test_a_run_that_goes_on_fails_the_run(pytester: pytest.Pytester) -> None:
    result = run(pytester, LEAKING.format(marker=""))
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*the test left behind:", '*ScriptedLLM("a-", repeat=True).observe("x").subscribe()*'])


OPEN = """
import threading
from rxflow.flow import Flow, start

class Endless(Flow):
    stream = True

    @start()
    async def speak(self):
        yield "a"
        await asyncio.Event().wait()

def test_bad():
    global output
    output = Endless().kickoff()
    for chunk in output:
        {what}

def test_next():
    assert "rxflow run" not in [thread.name for thread in threading.enumerate()]
"""


def test_a_test_that_fails_with_a_stream_open_is_told_of_its_failure_only(pytester: pytest.Pytester) -> None:
    result = run(pytester, OPEN.format(what='assert chunk.content == "b"'))
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.no_fnmatch_line("*left behind*")


def test_a_run_that_a_test_leaves_does_not_go_on_in_the_next(pytester: pytest.Pytester) -> None:
    result = run(pytester, OPEN.format(what="break"))
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*the test left behind:"])


@pytest.mark.slow
def test_runs_are_seen_also_where_the_test_is_the_first_to_import_them(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
def test_bad():
    global loop, subscriptions
    import asyncio
    from rxflow.testing import ScriptedLLM
    loop, subscriptions = asyncio.new_event_loop(), []
    async def main():
        subscriptions.append(ScriptedLLM("a-", repeat=True).observe("x").subscribe())
    loop.run_until_complete(main())
"""
    )
    result = pytester.runpytest_subprocess(*WITHOUT)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*a run, subscribed at *in main: subscriptions.append(*"])


def test_a_run_on_a_loop_that_stays_fails_the_run(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
loop = asyncio.new_event_loop()
subscriptions = []

def teardown_module():
    subscriptions[0].dispose()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

def test_bad():
    async def main():
        subscriptions.append(ScriptedLLM("a-", repeat=True).observe("x").subscribe())
    loop.run_until_complete(main())
""",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*a run, subscribed at *in main: subscriptions.append(*"])


def test_a_marker_lets_a_run_go_on(pytester: pytest.Pytester) -> None:
    result = run(pytester, LEAKING.format(marker='@pytest.mark.rxflow_leaks("it is disposed with the module")'))
    result.assert_outcomes(passed=1)


def test_what_a_fixture_disposes_at_its_end_is_not_left(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.fixture
def running():
    subscription = ScriptedLLM("a-", repeat=True).observe("x").pipe(probe()).subscribe()
    yield
    subscription.dispose()

def test_good(running):
    pass
""",
    )
    result.assert_outcomes(passed=1)


def test_a_virtual_clock_is_there_for_the_asking(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def test_async(virtual_clock):
    virtual_clock.run(asyncio.sleep(3600))
    assert virtual_clock.now == 3600

def test_sync(virtual_clock):
    assert ScriptedLLM("he 1h llo|").call("x") == "hello"
    assert virtual_clock.now == 3600.005
""",
    )
    result.assert_outcomes(passed=2)


def test_marbles_are_there_and_must_be_compared(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def test_good(marbles):
    marbles.expect(marbles.cold("-a-b|")).to_be("-a-b|")

def test_bad(marbles):
    marbles.expect(marbles.cold("-a-b|"))
""",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*1 of the expectations of this test were never compared*"])


def test_unittest_classes_are_looked_at_as_well(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
import unittest

class TestBad(unittest.TestCase):
    def test_bad(self):
        ScriptedLLM("one|")
""",
    )
    result.assert_outcomes(failed=1)
