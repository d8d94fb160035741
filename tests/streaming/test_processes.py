"""What only a whole process shows: its exit, Ctrl-C, and fork."""

import signal
import sys

import pytest

from tests.loopback import Loopback, Reply
from tests.slow import all_but
from tests.streaming.program import Program

STREAMS = {
    "sync method": """
        output = Research().kickoff()
        next(iter(output))
        say("open")
    """,
    "async method": """
        output = AsyncResearch().kickoff()
        next(iter(output))
        say("open")
    """,
    "plain subscription": """
        arrived = threading.Event()
        subscription = Research().observe().subscribe(lambda chunk: arrived.set())
        arrived.wait()
        say("open")
    """,
    "closed, with a sync method that blocks": """
        class Busy(Flow):
            stream = True

            @start()
            def work(self):
                inside.set()
                threading.Event().wait()

        inside = threading.Event()
        with Busy().kickoff() as output:
            threading.Thread(target=lambda: list(output)).start()
            inside.wait()
        say("open")
    """,
}


@pytest.mark.parametrize("code", all_but({"sync method"}, STREAMS))
def test_a_process_with_an_open_stream_ends_at_once_and_in_silence(code: str) -> None:
    program = Program(code)
    assert program.heard() == "open"
    outcome = program.ended()
    assert outcome == (0, "", "")


def test_a_process_with_an_open_connection_ends_at_once_and_closes_it(provider: Loopback) -> None:
    provider.script(Reply(text="a b", hold_after=1))
    program = Program(
        """
        output = Research().kickoff()
        next(iter(output))
        say("open")
        """,
        provider.url,
    )
    assert program.heard() == "open"
    outcome = program.ended()
    assert outcome == (0, "", "")
    assert provider.wait_until(lambda p: p.disconnects)[0].phase == "mid_stream"


def test_a_stream_that_is_dropped_warns_and_nothing_else_is_said() -> None:
    program = Program(
        """
        def main():
            next(iter(Research().kickoff()))
            say("open")
        main()
        """,
        warnings="default::ResourceWarning",
    )
    assert program.heard() == "open"
    code, _, errors = program.ended()
    assert code == 0
    assert errors.count("was dropped while its run was going on") == 1
    assert "Traceback" not in errors


if sys.platform != "win32":  # where Ctrl-C cannot be sent to one process, and nothing forks

    class TestCtrlC:
        def test_in_a_for_loop_it_raises_and_with_closes_the_connection(self, provider: Loopback) -> None:
            provider.script(Reply(text=["a", "b"], hold_after=1))
            program = Program(
                """
                try:
                    with Research().kickoff() as output:
                        for chunk in output:
                            say(chunk.content)
                except KeyboardInterrupt:
                    say(f"interrupted {output.is_cancelled} {output.is_completed}")
                """,
                provider.url,
            )
            assert program.heard() == "a"
            program.process.send_signal(signal.SIGINT)
            assert program.heard() == "interrupted True True"
            assert provider.wait_until(lambda p: p.disconnects)[0].phase == "mid_stream"
            assert program.ended() == (0, "", "")

        @pytest.mark.parametrize("kind", ["Research", "AsyncResearch"])
        def test_a_program_that_does_not_catch_it_ends_as_any_other(self, kind: str) -> None:
            program = Program(
                f"""
                for chunk in {kind}().kickoff():
                    say(chunk.content)
                """
            )
            assert program.heard() == "a"
            program.process.send_signal(signal.SIGINT)
            code, _, errors = program.ended()
            assert code == -signal.SIGINT
            assert errors.endswith("KeyboardInterrupt")
            assert errors.count("Traceback") == 1

        def test_a_plain_kickoff_that_waits_is_interrupted(self) -> None:
            program = Program(
                """
                crew.before_kickoff_callbacks.append(lambda inputs: say("inside"))
                try:
                    crew.kickoff()
                except KeyboardInterrupt:
                    say("interrupted")
                """
            )
            assert program.heard() == "inside"
            program.process.send_signal(signal.SIGINT)
            assert program.heard() == "interrupted"
            assert program.ended() == (0, "", "")

        def test_in_asyncio_it_cancels_the_run(self) -> None:
            program = Program(
                """
                async def main():
                    async with await AsyncResearch().kickoff_async() as output:
                        async for chunk in output:
                            say(chunk.content)
                try:
                    asyncio.run(main())
                except KeyboardInterrupt:
                    say(f"interrupted {len(source.requests)} {source.ended}")
                """
            )
            assert program.heard() == "a"
            program.process.send_signal(signal.SIGINT)
            assert program.heard() == "interrupted 1 1"
            assert program.ended() == (0, "", "")

    def test_parent_and_child_of_a_fork_stream_on_connections_of_their_own(provider: Loopback) -> None:
        provider.answer(lambda request: Reply(text="fine"))
        program = Program(
            """
            def read():
                return "".join(chunk.content for chunk in Research().kickoff())

            say("parent " + read())
            child = os.fork()
            if child == 0:
                say("child " + read())
                sys.exit(0)
            _, status = os.waitpid(child, 0)
            say(f"parent {read()}, child ended with {status}")
            """,
            provider.url,
        )
        code, out, errors = program.ended()
        assert out.splitlines() == ["parent fine", "child fine", "parent fine, child ended with 0"]
        assert (code, errors) == (0, "")
        assert provider.connections == 2  # the parent's, used again after the child's exit, and the child's
