"""``record``: all that passes, in a file."""

import asyncio
import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import reactivex as rx
from hypothesis import HealthCheck, given, settings, strategies as st
from reactivex import Subject, operators as rxops
from reactivex.testing import TestScheduler

from rxflow import operators as ops
from rxflow.testing import Marbles, ScriptedLLM, check_operator
from rxflow.testing._virtual_clock import VirtualClock
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import FlowStarted, LLMFailed, ReasoningChunk
from tests.gate import PATIENCE_S
from tests.operators.endings import stubborn
from tests.operators.pieces import said
from tests.signals import Signals, signals_of
from tests.team import solo

FULL = Path("/dev/full")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.cassette"


def lines(path: Path) -> list[dict[str, Any]]:
    """What stands behind the header."""
    header, *rest = map(json.loads, path.read_bytes().splitlines())
    assert header == {"cassette": "rxflow", "version": 1}
    return rest


def recorded(path: Path, *items: Any) -> list[dict[str, Any]]:
    rx.from_iterable(items).pipe(ops.record(path)).subscribe()
    return lines(path)


def test_it_keeps_the_rules(path: Path) -> None:
    check_operator(ops.record(path))


class TestTheFile:
    def test_it_holds_items_with_their_times_and_the_end(self, path: Path, marbles: Marbles) -> None:
        source = marbles.cold("-a--b|", {"a": "hello", "b": said("you")})
        marbles.expect(source.pipe(ops.record(path))).to_be("-a--b|", {"a": "hello", "b": said("you")})
        first, second, end = lines(path)
        assert first == {"at": 0.001, "kind": "str", "data": "hello"}
        assert (second["at"], second["kind"], second["data"]["content"]) == (0.004, "StreamChunk", "you")
        assert end == {"at": 0.005, "kind": "completed"}

    def test_an_error_stands_there_with_type_and_message(self, path: Path, marbles: Marbles) -> None:
        source = marbles.cold("a#", error=OSError("gone"))
        marbles.expect(source.pipe(ops.record(path))).to_be("a#", error=OSError("gone"))
        assert lines(path)[-1] == {
            "at": 0.001,
            "kind": "failed",
            "error": {"type": "OSError", "message": "gone", "args": ["gone"]},
        }

    def test_so_does_a_disposal(self, path: Path, marbles: Marbles) -> None:
        source = marbles.cold("a-b|")
        marbles.expect(source.pipe(ops.record(path)), "^-!").to_be("a-")
        marbles.expect_subscriptions(source).to_be("^-!")
        assert lines(path)[-1] == {"at": 0.002, "kind": "disposed"}

    def test_so_does_that_of_a_source_that_raises_when_it_is_disposed(
        self, path: Path, reported: list[type[BaseException]]
    ) -> None:
        stubborn(rx.never()).pipe(ops.record(path)).subscribe().dispose()
        assert [line["kind"] for line in lines(path)] == ["disposed"]
        assert reported == [ZeroDivisionError]

    def test_it_is_begun_anew_with_each_subscription(self, path: Path) -> None:
        source: Subject[str] = Subject()
        piped = source.pipe(ops.record(path))
        for letter in "ab":
            subscription = piped.subscribe()
            source.on_next(letter)
            subscription.dispose()
        assert [line.get("data") for line in lines(path)] == ["b", None]

    def test_of_two_at_once_the_last_to_begin_has_it(self, path: Path) -> None:
        source: Subject[str] = Subject()
        piped = source.pipe(ops.record(path))
        piped.subscribe()
        source.on_next("a")
        piped.subscribe()
        source.on_next("b")
        source.on_completed()
        assert [line.get("data") for line in lines(path)] == ["b", None]

    def test_what_a_run_has_said_is_in_it_at_each_event(self, path: Path) -> None:
        source: Subject[Any] = Subject()
        source.pipe(ops.record(path)).subscribe()
        source.on_next(said("hello"))
        assert lines(path) == []
        source.on_next(LLMFailed(origin=Origin(), error=OSError("gone")))
        assert [line["kind"] for line in lines(path)] == ["StreamChunk", "LLMFailed"]
        source.on_completed()

    def test_it_is_closed_from_any_thread(self, path: Path) -> None:
        source: Subject[Any] = Subject()
        subscription = source.pipe(ops.record(path)).subscribe()
        source.on_next("a")
        thread = threading.Thread(target=subscription.dispose)
        thread.start()
        thread.join()
        assert [line["kind"] for line in lines(path)] == ["str", "disposed"]

    def test_a_given_scheduler_tells_the_time(self, path: Path) -> None:
        scheduler = TestScheduler()
        source: Subject[str] = Subject()
        source.pipe(ops.record(path, scheduler=scheduler)).subscribe()
        scheduler.advance_by(1.5)
        source.on_next("a")
        source.on_completed()
        assert [line["at"] for line in lines(path)] == [1.5, 1.5]


class TestWhatCannotBeWritten:
    def test_a_file_that_cannot_be_opened_is_the_streams_error(self, tmp_path: Path) -> None:
        source: Subject[int] = Subject()
        seen = signals_of(source.pipe(ops.record(tmp_path / "none" / "run.cassette")))
        assert [type(error) for error in seen.errors] == [FileNotFoundError]
        assert not source.observers

    def test_so_is_a_disk_that_is_full(self) -> None:
        if not FULL.exists():
            pytest.skip("there is no device that is always full")
        seen = signals_of(rx.never().pipe(ops.record(FULL)))
        assert [type(error) for error in seen.errors] == [OSError]

    def test_one_that_fills_up_later_disposes_the_source(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Filling(io.BytesIO):
            def flush(self) -> None:
                if b"str" in self.getvalue():
                    raise OSError("no space left")

        file = Filling()

        def opened(*_: object, **__: object) -> Filling:
            return file

        monkeypatch.setattr(Path, "open", opened)
        source: Subject[Any] = Subject()
        seen = Signals()
        seen.subscribe_to(source.pipe(ops.record(path)))
        source.on_next(said("a"))
        source.on_next("b")
        assert seen.ends == [repr(OSError("no space left"))]
        assert not source.observers
        assert file.closed


class TestObjects:
    def test_what_json_does_not_know_is_written_in_words(self, path: Path) -> None:
        class Wish:
            def __str__(self) -> str:
                return "a wish"

        class Mute:
            def __str__(self) -> str:
                raise ZeroDivisionError

        inputs = {"wish": Wish(), "mute": Mute(), "error": ValueError("no"), "numbers": {1, 2}, "bytes": b"\xff"}
        line, _ = recorded(path, FlowStarted(origin=Origin(), inputs=inputs))
        where = f"{__name__}.TestObjects.test_what_json_does_not_know_is_written_in_words.<locals>."
        assert line["data"]["inputs"] == {
            "wish": {"$object": f"{where}Wish", "text": "a wish"},
            "mute": {"$object": f"{where}Mute", "text": "<Mute>"},
            "error": {"$error": "ValueError", "message": "no", "args": ["no"]},
            "numbers": {"$set": [1, 2]},
            "bytes": {"$bytes": "/w=="},
        }

    def test_nothing_makes_it_fail(self, path: Path) -> None:
        circle: dict[str, Any] = {"half": "\ud83d"}
        circle["itself"] = circle
        line, _ = recorded(path, FlowStarted(origin=Origin(), inputs=circle))
        assert line["data"]["inputs"]["half"] == "\ud83d"
        assert line["data"]["inputs"]["itself"] == {"$object": "dict", "text": str(circle)}

    def test_what_is_not_ours_is_kept_as_what_json_makes_of_it(self, path: Path) -> None:
        first, second, _ = recorded(path, {"a": [1, None]}, 5)
        assert first == {"at": first["at"], "kind": "other", "data": {"a": [1, None]}}
        assert second["data"] == 5


SECRETS = [
    "sk-abcdefghijklmnop1234",
    "sk-ant-api03-abcdefghijklmnop1234",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "hf_abcdefghijklmnopqrstuvwxyz",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "AKIAABCDEFGHIJKLMNOP",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefgh",
]


def put_into_json(value: Any, nested: list[bool]) -> str:
    """JSON with ``value``, in strings of JSON."""
    text = value if isinstance(value, str) else json.dumps(value)
    for is_ascii in nested:
        text = json.dumps({"text": text}, ensure_ascii=is_ascii)
    return text


def ends_in_a_word(text: str) -> bool:
    return text[-1].isascii() and (text[-1].isalnum() or text[-1] == "_")


class TestSecrets:
    @pytest.mark.parametrize("secret", SECRETS)
    def test_what_looks_like_a_key_is_masked(self, path: Path, secret: str) -> None:
        error = OSError(f"401: the key {secret} is wrong")
        items = [
            LLMFailed(origin=Origin(), error=error, text=f"my key is {secret}"),
            said(f"it is {secret}"),
            ReasoningChunk(origin=Origin(), content=f"it is {secret}"),
            f"it is {secret}",
        ]
        rx.concat(rx.from_iterable(items), rx.throw(error)).pipe(ops.record(path)).subscribe(on_error=lambda _: None)
        written = path.read_text(encoding="utf-8")
        assert secret not in written
        assert written.count("***") == 8
        assert lines(path)[1]["data"]["content"] == "it is ***"

    @pytest.mark.parametrize(
        "given",
        [
            {"api_key": "mine!"},
            {"OPENAI_API_KEY": "mine!"},
            {"headers": {"Authorization": "mine!"}},
            {"text": "Authorization: Bearer mine_12345"},
            {"password": "mine!"},
            {"nested": json.dumps({"api-key": "mine!"})},
        ],
    )
    def test_so_is_what_is_named_like_one(self, path: Path, given: dict[str, Any]) -> None:
        line, _ = recorded(path, FlowStarted(origin=Origin(), inputs=given))
        assert "mine" not in json.dumps(line)
        assert "***" in json.dumps(line)

    @pytest.mark.parametrize("label", ["task_name", "agent_role"])
    def test_so_is_a_key_in_the_labels_of_a_short_chunk(self, path: Path, label: str) -> None:
        labels: dict[str, Any] = {label: f"Ask with {SECRETS[0]}"}
        recorded(path, said("a", **labels), ReasoningChunk(origin=Origin(**labels), content="b"))
        assert path.read_text(encoding="utf-8").count("Ask with ***") == 2

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        secret=st.sampled_from(SECRETS),
        before=st.text(max_size=5).filter(lambda text: not text or not ends_in_a_word(text)),
        after=st.text(max_size=5),
        nested=st.lists(st.booleans(), max_size=3),
    )
    def test_what_looks_like_a_key_is_masked_whatever_is_around_it(
        self, path: Path, secret: str, before: str, after: str, nested: list[bool]
    ) -> None:
        recorded(path, said(put_into_json(f"{before}{secret}{after}", nested) + " " * 16))
        assert secret not in path.read_text(encoding="utf-8")

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        before=st.text(max_size=5),
        inside=st.tuples(st.text(max_size=5), st.text(max_size=5)),
        after=st.text(max_size=5),
        nested=st.lists(st.booleans(), max_size=3),
    )
    def test_so_is_what_is_named_like_one_whatever_is_in_it_and_around_it(
        self, path: Path, before: str, inside: tuple[str, str], after: str, nested: list[bool]
    ) -> None:
        password = f"{inside[0]}mine!{inside[1]}"
        for named in {"password": password, "after": after}, {"after": after, "password": password}:
            text = put_into_json(named, nested)
            line, _ = recorded(path, FlowStarted(origin=Origin(), inputs={"a": f"{before}{text}{after}", "b": named}))
            assert "mine!" not in json.dumps(line)
            assert line["data"]["inputs"]["b"] == {"password": "***", "after": after}

    @pytest.mark.parametrize("plain", ["task-1234567890abcdefgh", "prompt_tokens: 5", "the api_key is wrong"])
    def test_what_does_not_stays(self, path: Path, plain: str) -> None:
        line, _ = recorded(path, FlowStarted(origin=Origin(), inputs={"text": plain}))
        assert line["data"]["inputs"] == {"text": plain}


class TestInARun:
    def test_the_events_are_in_it_where_chunks_alone_are_shown(self, path: Path, virtual_clock: VirtualClock) -> None:
        llm = ScriptedLLM("--he-llo|")

        async def main() -> list[StreamChunk]:
            return await llm.observe("Hello").pipe(ops.record(path), rxops.to_list())

        shown = virtual_clock.run(main)
        assert [str(chunk) for chunk in shown] == ["he", "llo"]
        assert [(line["at"], line["kind"]) for line in lines(path)] == [
            (0, "LLMStarted"),
            (0.002, "StreamChunk"),
            (0.005, "StreamChunk"),
            (0.008, "LLMFinished"),
            (0.008, "completed"),
        ]

    def test_no_key_of_a_model_is_in_it(self, path: Path) -> None:
        llm = ScriptedLLM("hello|", api_key="my own key", base_url="http://localhost/secret")
        signals_of(solo(llm).observe().pipe(ops.record(path)))
        assert "my own key" not in path.read_text(encoding="utf-8")

    def test_it_is_written_where_the_run_is_disposed(self, path: Path, marbles: Marbles) -> None:
        llm = ScriptedLLM("he-llo|")
        marbles.expect(llm.observe("Hello").pipe(ops.record(path), rxops.take(1))).to_be("(a|)", {"a": "he"})
        assert [line["kind"] for line in lines(path)] == ["LLMStarted", "StreamChunk", "disposed"]

    def test_a_loop_is_not_needed(self, path: Path) -> None:
        assert asyncio._get_running_loop() is None
        assert recorded(path, "a")[0]["at"] < PATIENCE_S
