"""Forks, threads and loops: with every warning an error, a program ends at once and says nothing that it did not mean.

Each program runs against a scripted model and, where the socket may matter, against the provider on loopback.
"""

import os

import pytest

from tests.loopback import Loopback, Reply
from tests.slow import all_but
from tests.streaming.program import Program

HOLDING = Reply(text="a b", hold_after=1)

# Each has a stream open when the program is over. None drops it: that is told by a ResourceWarning, as it should be.
OPEN = {
    "for": """
        output = Research().kickoff()
        next(iter(output))
        say("open")
    """,
    "async for": """
        async def main():
            output = await AsyncResearch().kickoff_async()
            await anext(aiter(output))
            return output

        output = asyncio.run(main())
        say("open")
    """,
    "async for in a loop that is closed by hand": """
        async def main():
            output = await AsyncResearch().kickoff_async()
            await anext(aiter(output))
            return output

        loop = asyncio.new_event_loop()
        output = loop.run_until_complete(main())
        loop.close()
        say("open")
    """,
    "async for in trio": """
        import trio

        async def main():
            output = await AsyncResearch().kickoff_async()
            await anext(aiter(output))
            return output

        output = trio.run(main)
        say("open")
    """,
    "subscribe": """
        arrived = threading.Event()
        Research().observe().subscribe(lambda chunk: arrived.set())
        arrived.wait()
        say("open")
    """,
    "subscribe in asyncio": """
        async def main():
            arrived = asyncio.Event()
            AsyncResearch().observe().subscribe(lambda chunk: arrived.set())
            await arrived.wait()

        asyncio.run(main())
        say("open")
    """,
    "a reader in a thread": """
        arrived = threading.Event()

        def read():
            for chunk in Research().kickoff():
                arrived.set()

        threading.Thread(target=read, daemon=True).start()
        arrived.wait()
        say("open")
    """,
    "a kickoff in a thread": """
        flow = Research()
        flow.stream = False
        arrived = threading.Event()
        crew.step_callback = None
        crew.before_kickoff_callbacks.append(lambda inputs: arrived.set())
        threading.Thread(target=flow.kickoff, daemon=True).start()
        arrived.wait()
        say("open")
    """,
    "sys.exit in the loop": """
        kept = []

        async def main():
            kept.append(await AsyncResearch().kickoff_async())
            async for chunk in kept[0]:
                say("open")
                sys.exit()

        asyncio.run(main())
    """,
}


@pytest.mark.parametrize("code", all_but({"async for", "subscribe", "sys.exit in the loop"}, OPEN))
def test_a_program_that_ends_with_a_stream_open_is_silent(code: str) -> None:
    program = Program(code, warnings="error")
    assert program.heard() == "open"
    outcome = program.ended()
    assert outcome == (0, "", "")


@pytest.mark.parametrize(
    "name",
    [
        "for",
        "async for",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("async for in a loop that is closed by hand", "async for in trio", "subscribe")
        ),
    ],
)
def test_and_closes_its_connection(provider: Loopback, name: str) -> None:
    provider.script(HOLDING)
    program = Program(OPEN[name], provider.url, warnings="error")
    assert program.heard() == "open"
    outcome = program.ended()
    assert outcome == (0, "", "")
    assert provider.wait_until(lambda p: p.disconnects)[0].phase == "mid_stream"


@pytest.mark.parametrize("read", ["list(output)", "asyncio.run(read())"], ids=["for", "async for"])
def test_a_stream_whose_loop_was_closed_says_so_after_what_it_has(read: str) -> None:
    program = Program(
        f"""
        async def main():
            output = await AsyncResearch().kickoff_async()
            await anext(aiter(output))
            return output

        async def read():
            return [chunk async for chunk in output]

        loop = asyncio.new_event_loop()
        output = loop.run_until_complete(main())
        loop.close()
        try:
            {read}
        except RuntimeError as error:
            say(error)
        say(output.get_full_text())
        say(output.is_completed)
        """,
        warnings="error",
    )
    said = "this stream has stopped: its event loop was closed\na\nTrue"
    assert program.ended() == (0, said, "")


def test_threads_stream_side_by_side(provider: Loopback) -> None:
    provider.answer(lambda request: Reply(text="fine indeed"))
    program = Program(
        """
        from concurrent.futures import ThreadPoolExecutor

        def read(number):
            if number % 2:
                return "".join(chunk.content for chunk in Research().kickoff())

            async def main():
                return "".join([chunk.content async for chunk in await AsyncResearch().kickoff_async()])

            return asyncio.run(main())

        with ThreadPoolExecutor(8) as pool:
            print(set(pool.map(read, range(24))))
        left = [thread for thread in threading.enumerate() if thread.name == "rxflow run"]
        for thread in left:
            thread.join(60)  # it may be just ending
        print([thread.is_alive() for thread in left if thread.is_alive()])
        """,
        provider.url,
        warnings="error",
    )
    assert program.ended() == (0, "{'fine indeed'}\n[]", "")


def test_loops_in_turn_and_of_several_kinds_stream_on_one_connection(provider: Loopback) -> None:
    provider.answer(lambda request: Reply(text="fine"))
    program = Program(
        """
        import trio

        async def read():
            return "".join([chunk.content async for chunk in await AsyncResearch().kickoff_async()])

        print([asyncio.run(read()) for _ in range(3)])
        print([trio.run(read) for _ in range(3)])
        loop = asyncio.new_event_loop()
        print([loop.run_until_complete(read()) for _ in range(3)])
        loop.close()
        print("".join(chunk.content for chunk in Research().kickoff()))
        """,
        provider.url,
        warnings="error",
    )
    three = "['fine', 'fine', 'fine']"
    assert program.ended() == (0, f"{three}\n{three}\n{three}\nfine", "")
    assert provider.connections == 1


def test_the_cells_of_a_notebook_share_a_stream() -> None:
    # As IPython does it in a terminal: one loop, a task for each cell, and between cells the loop stands still.
    program = Program(
        """
        async def first():
            global output
            output = await AsyncResearch().kickoff_async()
            async for chunk in output:
                say(chunk.content)
                break

        async def second():
            say([chunk.content for chunk in output.chunks])
            plain = solo(Scripted("all at once")).kickoff()  # a plain kickoff, in the running loop
            say(plain.raw)
            for chunk in solo(Scripted(["one"]), crew={"stream": True}).kickoff():
                say(chunk.content)
            async with output:
                pass
            say(output.is_cancelled)

        loop = asyncio.new_event_loop()
        for cell in (first, second):
            loop.run_until_complete(cell())
        say(len(asyncio.all_tasks(loop)))
        loop.close()
        """,
        warnings="error",
    )
    assert program.ended() == (0, "a\n['a']\nall at once\none\nTrue\n0", "")


def test_and_it_goes_on_between_the_cells_where_the_loop_does() -> None:
    # As Jupyter does it: each cell is a task on the kernel's loop, on which other tasks run during and between cells.
    program = Program(
        """
        held, last = Gate(), Gate()
        story = solo(Scripted(["a", held, "b", last, "c"]))

        class Story(Flow):
            stream = True

            @start()
            async def tell(self):
                return (await story.kickoff_async()).raw

        async def first():
            global output, cursor
            output = await Story().kickoff_async()
            cursor = aiter(output)
            async for chunk in cursor:
                say(chunk.content)
                break

        async def second():
            say([chunk.content for chunk in output.chunks])  # the second of them came while no cell ran
            plain = solo(Scripted("all at once")).kickoff()  # a plain kickoff, and a plain for, in the running loop
            say(plain.raw)
            for chunk in solo(Scripted(["one"]), crew={"stream": True}).kickoff():
                say(chunk.content)

        async def third():
            last.open()
            async for chunk in cursor:
                say(chunk.content)
            say(output.result)

        shown = []

        async def widget(is_shown):
            async for chunk in output:
                shown.append(chunk.content)
                if chunk.content == "b":
                    is_shown.set()

        async def kernel():
            is_shown = asyncio.Event()
            await asyncio.create_task(first())
            beside = asyncio.create_task(widget(is_shown))
            held.open()
            async with asyncio.timeout(60):
                await is_shown.wait()
            await asyncio.create_task(second())
            await asyncio.create_task(third())
            await beside
            say(shown)
            say(len(asyncio.all_tasks()))

        asyncio.run(kernel())
        """,
        warnings="error",
    )
    said = ["a", "['a', 'b']", "all at once", "one", "b", "c", "abc", "['a', 'b', 'c']", "1"]
    assert program.ended() == (0, "\n".join(said), "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
class TestFork:
    def test_a_stream_of_the_parent_is_told_to_go_no_further_in_the_child_and_goes_on_in_the_parent(
        self, provider: Loopback
    ) -> None:
        provider.script(HOLDING, Reply(text="child"))
        program = Program(
            """
            output = Research().kickoff()
            cursor = iter(output)
            say(next(cursor).content)
            child = os.fork()
            if child == 0:
                try:
                    list(output)
                except RuntimeError as error:
                    say(str(error).replace(str(os.getppid()), "PARENT"))
                output.close()
                say("".join(chunk.content for chunk in Research().kickoff()))
                sys.exit(0)
            say(os.waitpid(child, 0)[1])
            say("".join(chunk.content for chunk in cursor))
            """,
            provider.url,
            warnings="error",
        )
        assert [program.heard() for _ in range(4)] == [
            "a",
            "this stream has stopped: its run lives in the process PARENT, of which this one is a fork",
            "child",
            "0",
        ]
        provider.release()
        assert program.ended() == (0, "b", "")
        assert not provider.disconnects  # not by the child's close, and not by its exit

    def test_a_child_may_drop_or_close_what_it_has_inherited(self) -> None:
        program = Program(
            """
            output, dropped = Research().kickoff(), Research().kickoff()
            print(next(iter(output)).content, next(iter(dropped)).content, flush=True)
            child = os.fork()
            if child == 0:
                output.close()
                del dropped
                sys.exit(0)
            print(os.waitpid(child, 0)[1], output, dropped)
            output.close()
            dropped.close()
            """,
            warnings="error",
        )
        running = "<FlowStreamingOutput running, 1 chunks>"
        assert program.ended() == (0, f"a a\n0 {running} {running}", "")

    def test_children_of_a_pool_stream_as_their_parent_does(self, provider: Loopback) -> None:
        provider.answer(lambda request: Reply(text="fine"))
        program = Program(
            """
            import multiprocessing

            def read(number):
                return "".join(chunk.content for chunk in Research().kickoff())

            print(read(0))
            with multiprocessing.get_context("fork").Pool(2) as pool:
                print(pool.map(read, range(6)))
            print(read(0))
            """,
            provider.url,
            warnings="error",
        )
        assert program.ended() == (0, f"fine\n{['fine'] * 6}\nfine", "")
