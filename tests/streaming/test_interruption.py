"""Ctrl-C stops what the main thread reads or waits for, although the error, and so the frame of the loop, is kept."""

import signal
import subprocess
import sys

import pytest

from tests.streaming.program import ROOT, Program

pytestmark = pytest.mark.slow

if sys.platform == "win32":
    pytest.skip("Ctrl-C cannot be sent to one process there", allow_module_level=True)

WATCHED = """
import reactivex as rx
from reactivex import operators as rxops
from rxflow import operators as ops, tool

stopped = threading.Event()
HERE = rxops.do_action(lambda _: say("here"))

class Watched(Scripted):
    def stream(self, request):
        return super().stream(request).pipe(rxops.finally_action(stopped.set))

def announcing():
    async def announce(request):
        say("here")
    return Watched(["a", "b", Gate()], before=announce)

crew = solo(Watched(["a", "b", Gate()]))
streaming = solo(Watched(["a", "b", Gate()]))
streaming.stream = True

@tool
async def wait():
    "Wait."
    say("here")
    try:
        await asyncio.Event().wait()
    finally:
        stopped.set()

def read(source):
    for _ in source:
        say("here")

def stay(source):
    for _ in source:
        say("here")
        threading.Event().wait()

def interrupt(work):
    try:
        work()
    except BaseException as error:
        sys.last_value = error  # as python -i and notebooks do
        say(f"{type(error).__name__}, stopped: {stopped.wait(60)}")
    else:
        say("ended")
"""

READING = {
    "a flow, in the wait": "read(Research().kickoff())",
    "an async flow, in the wait": "read(AsyncResearch().kickoff())",
    "a flow, in the body": "stay(Research().kickoff())",
    "an async flow, in the body": "stay(AsyncResearch().kickoff())",
    "a crew, in the wait": "read(streaming.kickoff())",
    "a crew, in the body": "stay(streaming.kickoff())",
    "frames, in the body": "stay(frame for frame in Research().stream_events() if frame.content)",
    "one channel of the frames": "stay(frame for frame in Research().stream_events().llm if frame.content)",
    "a pipeline, in the body": "stay(Research().observe().pipe(ops.to_output()))",
    "a pipeline of RxPY's, in the body": "stay(Research().observe().pipe(rxops.map(str), ops.to_output()))",
    "through enumerate and zip": "stay(enumerate(zip(Research().kickoff(), Research().kickoff())))",
    "a second loop over what has arrived": "output = Research().kickoff(); next(iter(output)); stay(output)",
    "run()": "crew.agents[0].llm = announcing().llm; Research().observe().run()",
    "a blocking kickoff()": "crew.agents[0].llm = announcing().llm; crew.kickoff()",
    "run() of RxPY": "Research().observe().pipe(rxops.do_action(lambda _: say('here')), rxops.to_list()).run()",
    "run() behind RxPY's merge": "Research().observe().pipe(HERE, rxops.merge(rx.never())).run()",
    "run() behind RxPY's concat": "Research().observe().pipe(HERE, rxops.concat(rx.never())).run()",
    "run() behind RxPY's flat_map": "Research().observe().pipe(HERE, rxops.flat_map(lambda _: rx.never())).run()",
    "run() behind a method of RxPY's": "Research().observe().do_action(lambda _: say('here')).merge(rx.never()).run()",
    "run() behind RxPY's subscribe_on": (
        "Research().observe().pipe(HERE, rxops.subscribe_on(rx.scheduler.NewThreadScheduler())).run()"
    ),
    "run() behind RxPY's share": "Research().observe().pipe(HERE, rxops.share()).run()",
    "run() of a pipe's pipe": "Research().observe().pipe(HERE).pipe(rxops.merge(rx.never())).run()",
    "run() behind operators of both": "Research().observe().pipe(ops.text(), HERE, rxops.merge(rx.never())).run()",
    "run() of an LLM's call": "announcing().llm.observe('Hi').pipe(rxops.merge(rx.never())).run()",
    "an async tool that is run by hand": "wait.run()",
    "a merge of RxPY's": "stay(rx.merge(rx.never(), Research().observe()).pipe(ops.to_output()))",
    "a concat of RxPY's": "stay(rx.concat(rx.empty(), Research().observe()).pipe(ops.to_output()))",
}


@pytest.mark.parametrize("code", READING.values(), ids=READING)
def test_what_the_main_thread_reads_is_stopped(code: str) -> None:
    program = Program(f"{WATCHED}\ndef work():\n    {code}\ninterrupt(work)")
    assert program.heard() == "here"
    program.process.send_signal(signal.SIGINT)
    said = program.heard()
    assert (said if said != "here" else program.heard()) == "KeyboardInterrupt, stopped: True"
    assert program.ended()[0] == 0


STEPS = """
import gc, signal
from itertools import count

gc.disable()  # Python swallows a KeyboardInterrupt that comes in a callback of its collector

waiting = sys.modules["rxflow._streaming.interrupts"].__file__

def interrupt_at(step, work):
    # Ctrl-C comes at a step where Python looks for signals, and at the latest before the wait.
    taken = count()
    waits = False

    def profile(frame, event, thing):
        nonlocal waits
        if event == "c_call" and thing.__name__ == "acquire" and frame.f_code.co_filename == waiting:
            waits = True
        if waits or (event in ("call", "c_return") and next(taken) == step):
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)

    sys.setprofile(profile)
    try:
        work()
    except KeyboardInterrupt as error:
        sys.last_value = error
    finally:
        sys.setprofile(None)
    return not waits

def interrupt_at_each_step(once):
    steps = next(step for step in count() if not once(step))
    say("enough" if steps > 30 else f"only {steps}")
"""


def test_ctrl_c_at_any_step_of_a_read_stops_the_run() -> None:
    """``threading.Event.wait`` cannot promise that: interrupted as it takes its lock, it blocks the run's thread."""
    program = Program(
        WATCHED
        + STEPS
        + """
def read_at(step):
    reader = iter(Research().kickoff())
    next(reader), next(reader)
    stopped.clear()
    goes_on = interrupt_at(step, lambda: next(reader))
    if not stopped.wait(60):
        say(f"step {step}: the run goes on")
    return goes_on

interrupt_at_each_step(read_at)
"""
    )
    assert program.ended() == (0, "enough", "")


@pytest.mark.parametrize("busy", [0, 4], ids=["in a thread that is there", "in a new thread"])
def test_after_ctrl_c_at_any_step_of_a_start_the_next_run_works(busy: int) -> None:
    program = Program(
        WATCHED
        + STEPS
        + f"""
outputs = [Research().kickoff() for _ in range({busy})]
for output in outputs:
    next(iter(output))
other = solo(Scripted("x y"))
other.kickoff()

def start_at(step):
    goes_on = interrupt_at(step, crew.kickoff)
    if other.kickoff().raw != "x y":
        say(f"step {{step}}: the next run fails")
    return goes_on

interrupt_at_each_step(start_at)
for output in outputs:
    output.close()
"""
    )
    assert program.ended() == (0, "enough", "")


def test_after_ctrl_c_before_the_new_thread_has_its_loop_the_next_run_works() -> None:
    program = Program(
        WATCHED
        + """
import signal

new_event_loop, start_thread, go_on = asyncio.new_event_loop, threading.Thread.start, threading.Event()

def start_and_interrupt(thread):
    threading.Thread.start = start_thread
    start_thread(thread)
    signal.raise_signal(signal.SIGINT)

def create_later():
    asyncio.new_event_loop = new_event_loop
    go_on.wait()
    return new_event_loop()

asyncio.new_event_loop, threading.Thread.start = create_later, start_and_interrupt
try:
    crew.kickoff()
except KeyboardInterrupt:
    say("interrupted")
say(solo(Scripted("x y")).kickoff().raw)
go_on.set()
"""
    )
    assert program.ended() == (0, "interrupted\nx y", "")


def test_all_loops_that_the_main_thread_is_in_are_stopped() -> None:
    program = Program(
        WATCHED
        + """
outer, inner = Research().kickoff(), Research().kickoff()

def work():
    for _ in outer:
        stay(inner)

interrupt(work)
list(outer), list(inner)
say(f"{outer.is_cancelled} {inner.is_cancelled}")
"""
    )
    assert program.heard() == "here"
    program.process.send_signal(signal.SIGINT)
    assert program.heard() == "KeyboardInterrupt, stopped: True"
    assert program.heard() == "True True"
    assert program.ended()[0] == 0


def test_an_interrupted_cell_of_a_notebook_stops_its_run() -> None:
    """A cell is executed inside a running event loop, with Python's own handler of the signal; its error is kept."""
    program = Program(
        WATCHED
        + """
async def cell():
    interrupt(lambda: stay(Research().kickoff()))

loop = asyncio.new_event_loop()
loop.run_until_complete(cell())
loop.close()
"""
    )
    assert program.heard() == "here"
    program.process.send_signal(signal.SIGINT)
    assert program.heard() == "KeyboardInterrupt, stopped: True"
    assert program.ended()[0] == 0


def test_a_loop_that_a_later_cell_goes_on_with_is_stopped_too() -> None:
    """Between cells a notebook puts its own handler back, and for each cell Python's."""
    program = Program(
        WATCHED
        + """
output = Research().kickoff()
reader = iter(output)
next(reader)
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupt(lambda: stay(reader))
""",
        first="signal",
    )
    assert program.heard() == "here"
    program.process.send_signal(signal.SIGINT)
    assert program.heard() == "KeyboardInterrupt, stopped: True"
    assert program.ended()[0] == 0


def test_python_in_interactive_mode_stops_the_run_and_goes_on() -> None:
    process = subprocess.Popen(
        [sys.executable, "-i", "-q"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    code = (
        f"from tests.streaming.program import PRELUDE\nexec(PRELUDE)\nexec({WATCHED!r})\nstay(Research().kickoff())\n"
    )
    process.stdin.write(code)
    process.stdin.flush()
    assert process.stdout.readline().strip() == "here"
    process.send_signal(signal.SIGINT)
    process.stdin.write("say(f'{sys.last_value!r}, stopped: {stopped.wait(60)}')\n")
    process.stdin.close()
    assert process.stdout.readline().strip() == "KeyboardInterrupt(), stopped: True"
    process.stdout.close()
    assert process.wait(60) == 0


def test_a_handler_of_the_program_that_does_not_raise_decides_that_the_loop_goes_on() -> None:
    program = Program(
        WATCHED
        + """
import signal
gate = Gate()
asked = threading.Event()
signal.signal(signal.SIGINT, lambda *_: (say("noted"), asked.set()))
crew = solo(Watched(["a", gate, "b"]))
output = Research().kickoff()
for chunk in output:
    say(chunk.content)
    if not gate.is_open:
        asked.wait()
        gate.open()
say(f"{output.result} {output.is_cancelled}")
"""
    )
    assert program.heard() == "a"
    program.process.send_signal(signal.SIGINT)
    assert program.heard() == "noted"
    assert program.heard() == "b"
    assert program.heard() == "ab False"
    assert program.ended()[0] == 0


def test_a_handler_of_the_program_that_raises_stops_the_run() -> None:
    program = Program(
        WATCHED
        + """
import signal

def leave(number, frame):
    raise LookupError("mine")

signal.signal(signal.SIGINT, leave)
interrupt(lambda: stay(Research().kickoff()))
say(str(signal.getsignal(signal.SIGINT) is leave))
"""
    )
    assert program.heard() == "here"
    program.process.send_signal(signal.SIGINT)
    assert program.heard() == "LookupError, stopped: True"
    assert program.heard() == "True"
    assert program.ended()[0] == 0


def test_a_handler_that_the_program_sets_in_the_loop_stays() -> None:
    program = Program(
        WATCHED
        + """
import signal

def mine(number, frame):
    say("mine")

crew = solo(Scripted("a b"))
for _ in Research().kickoff():
    signal.signal(signal.SIGINT, mine)
say(str(signal.getsignal(signal.SIGINT) is mine))
"""
    )
    assert program.heard() == "True"
    assert program.ended()[0] == 0


ENDINGS = {
    "the end of the loop": "read(Research().kickoff())",
    "break": "output = Research().kickoff()\nfor _ in output: break",
    "kickoff()": "crew.kickoff()",
    "run()": "Research().observe().run()",
}


@pytest.mark.parametrize("code", ENDINGS.values(), ids=ENDINGS)
def test_afterwards_the_program_has_its_handler_back(code: str) -> None:
    program = Program(
        f"{WATCHED}\nimport signal\ncrew = solo(Scripted('a b'))\n{code}\n"
        "say(str(signal.getsignal(signal.SIGINT) is signal.default_int_handler))"
    )
    said = program.ended()[1].splitlines()
    assert said[-1] == "True"


def test_what_runs_in_the_background_is_left_alone() -> None:
    """After a break, and in a loop of another thread, the run is not what Ctrl-C interrupts."""
    program = Program(
        WATCHED
        + """
left = Research().kickoff()
for _ in left:
    break
others = Research().kickoff()
arrived = threading.Event()
threading.Thread(target=lambda: [arrived.set() for _ in others], daemon=True).start()
arrived.wait()
try:
    say("here")
    threading.Event().wait()
except KeyboardInterrupt:
    say(f"{left.is_completed} {others.is_completed} {stopped.is_set()}")
"""
    )
    assert program.heard() == "here"
    program.process.send_signal(signal.SIGINT)
    assert program.heard() == "False False False"
    assert program.ended()[0] == 0


def test_a_loop_in_another_thread_works_without_the_signal() -> None:
    program = Program(
        WATCHED
        + """
crew = solo(Scripted("a b"))
thread = threading.Thread(target=lambda: say("".join(map(str, Research().kickoff()))))
thread.start()
thread.join()
"""
    )
    assert program.heard() == "a b"
    assert program.ended()[0] == 0
