"""``cassette``: a recorded run as a marble diagram."""

from pathlib import Path

import pytest
from reactivex import operators as rxops

from rxflow import operators as ops
from rxflow.operators import from_cassette, record
from rxflow.testing import Marbles, ScriptedLLM, cassette
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import LLMFinished, LLMStarted


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.cassette"


def recorded(path: Path, marbles: Marbles, script: str, error: BaseException | None = None) -> Path:
    llm = ScriptedLLM(script, error=error)
    marbles.expect(llm.observe("Hello").pipe(record(path))).to_say(script, error=error)
    return path


def test_a_recording_is_a_diagram_of_its_chunks(path: Path, marbles: Marbles) -> None:
    tape = cassette(recorded(path, marbles, "--he--llo 59s |"), StreamChunk)
    assert tape.diagram == "--a---b 59002ms |"
    assert {name: str(chunk) for name, chunk in tape.values.items()} == {"a": "he", "b": "llo"}
    assert tape.error is None


def test_or_of_all_that_happened(path: Path, marbles: Marbles) -> None:
    tape = cassette(recorded(path, marbles, "--he--llo|"))
    assert tape.diagram == "a-b---c--(d|)"
    assert [type(event) for event in tape.values.values()] == [LLMStarted, StreamChunk, StreamChunk, LLMFinished]


def test_it_is_what_its_replay_does(path: Path, marbles: Marbles) -> None:
    tape = cassette(recorded(path, marbles, "--he--llo|"), StreamChunk)
    marbles.expect(from_cassette(path).pipe(ops.text())).to_be(*tape)


def test_it_is_a_source_for_other_tests(path: Path, marbles: Marbles) -> None:
    tape = cassette(recorded(path, marbles, "--he--llo|"), StreamChunk)
    marbles.expect(marbles.cold(*tape).pipe(ops.words())).to_be("---------(a|)", {"a": "hello"})


def test_an_error_ends_it(path: Path, marbles: Marbles) -> None:
    tape = cassette(recorded(path, marbles, "--he--#", TimeoutError("no more")), StreamChunk)
    assert (tape.diagram, repr(tape.error)) == ("--a---#", repr(TimeoutError("no more")))
    marbles.expect(from_cassette(path).pipe(ops.text())).to_be(*tape)


def test_a_reader_that_had_enough_does_too(path: Path, marbles: Marbles) -> None:
    llm = ScriptedLLM("he-llo|")
    marbles.expect(llm.observe("Hello").pipe(record(path), rxops.take(1))).to_be("(a|)", {"a": "he"})
    assert cassette(path, StreamChunk).diagram == "(a#)"


def test_marks_that_are_too_wide_move_what_follows(path: Path, marbles: Marbles) -> None:
    source = marbles.cold("(ab)-c|")
    marbles.expect(source.pipe(record(path))).to_be("(ab)-c|")
    text = path.read_text(encoding="utf-8").replace('"at":0.005,', '"at":0.0014,')
    path.write_text(text, encoding="utf-8")
    assert cassette(path).diagram == "(ab)c-|"


def test_thousands_of_items_have_names_of_their_own(path: Path, marbles: Marbles) -> None:
    path.write_text(
        '{"cassette": "rxflow", "version": 1}\n'
        + "".join(f'{{"at": {number / 1000}, "kind": "str", "data": "{number}"}}\n' for number in range(2000))
        + '{"at": 2.0, "kind": "completed"}\n',
        encoding="utf-8",
    )
    tape = cassette(path)
    assert list(tape.values.values()) == [str(number) for number in range(2000)]
    marbles.expect(from_cassette(path)).to_be(*tape)


def test_it_can_be_pasted_as_a_test(path: Path, marbles: Marbles) -> None:
    tape = cassette(recorded(path, marbles, "--he--llo|"), StreamChunk)
    assert tape.as_test("a greeting") == (
        "def test_a_greeting(marbles: Marbles) -> None:\n"
        "    values = {\n"
        "        'a': 'he',\n"
        "        'b': 'llo',\n"
        "    }\n"
        "    source = marbles.cold('--a---b--|', values)\n"
        "    marbles.expect(source).to_be('--a---b--|', values)\n"
    )


def test_what_was_pasted_runs(path: Path) -> None:
    failing = Marbles()
    text = cassette(recorded(path, failing, "--he--#", TimeoutError("no more")), StreamChunk).as_test()
    assert "marbles.cold('--a---#', values, TimeoutError('no more'))" in text
    scope: dict[str, object] = {"Marbles": Marbles}
    exec(text, scope)
    test = scope["test_the_recorded_run"]
    assert callable(test)
    test(Marbles())
