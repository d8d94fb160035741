"""Every event as a line of JSON, and back."""

import json
import os
import subprocess
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, make_dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from types import ModuleType, NoneType, UnionType
from typing import Any, ClassVar, Union, cast, get_args, get_origin
from uuid import UUID

import jsonschema
import pytest
from hypothesis import Phase, given, settings, strategies as st
from pydantic import BaseModel, Field, PrivateAttr, SecretStr, field_validator

from rxflow.types import (
    AgentOutput,
    CrewFinished,
    CrewOutput,
    Custom,
    FlowStarted,
    Happened,
    InputRequested,
    LLMStarted,
    MethodFinished,
    Origin,
    Retracted,
    StreamChunk,
    TaskFinished,
    TaskOutput,
    ToolCallChunk,
    codec,
    event_schema,
)
from rxflow.types.codec import (
    CodecError,
    RecordedError,
    RecordedEvent,
    RecordedModel,
    RecordedObject,
    decode,
    encode,
)

ROOT = Path(__file__).parents[2]
FOREIGN_PATH = "$path" if os.name == "nt" else "$windows_path"
SCHEMA: Any = jsonschema.Draft202012Validator(event_schema.build_schema())


class Color(Enum):
    RED = 1


class Trip(BaseModel):
    place: str = Field(default="", alias="Place")
    days: tuple[int, ...] = ()

    @field_validator("place")
    @classmethod
    def _shout(cls, place: str) -> str:
        return place.upper()


@dataclass(frozen=True)
class Step:
    name: str
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured(Happened):
    """A program's own event."""

    metres: float
    by: tuple[str, ...] = ()


built: list[int] = []


class Program:
    @dataclass(frozen=True, kw_only=True)
    class ToolProgress(Happened):
        """A program's own event with the name of one of rxflow's."""

        percent: int

        def __post_init__(self) -> None:
            built.append(self.percent)


class LoudChunk(StreamChunk):
    volume: int = 0


class Register(BaseModel):
    """Keeps an index that only ``model_post_init`` fills. It raises ``error``, if there is one."""

    error: ClassVar[Exception | None] = None

    names: tuple[str, ...] = ()
    _index: dict[str, int] = PrivateAttr(default_factory=dict[str, int])

    def model_post_init(self, context: Any, /) -> None:
        if self.error is not None:
            raise self.error
        self._index.update((name, number) for number, name in enumerate(self.names))

    def find(self, name: str) -> int:
        return self._index[name]


class Open(BaseModel, extra="allow"):
    """Accepts names that it does not declare, also those that mean something in the format."""


class Named(BaseModel):
    cls: str
    values: tuple[int, ...] = ()


@dataclass(frozen=True)
class Words(dict[str, int]):
    language: str


class Access(Flag):
    READ = 1
    WRITE = 2


class Shade(Enum):
    DARK = (0, 0, 0)
    HALF = 0.5
    CLEAR = None
    WHITE = "white"
    STRANGE = object()


@dataclass(frozen=True, kw_only=True)
class Painted(Happened):
    shade: Shade
    layers: typing.List  # type: ignore[type-arg]  # noqa: UP006
    bare: list  # type: ignore[type-arg]
    right: Access = Access.READ


class Unplaced(tzinfo):
    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        raise OSError("the time zone cannot be read")

    dst = utcoffset

    def tzname(self, dt: datetime | None) -> str | None:
        return None


class RegisteredChunk(StreamChunk):
    error: ClassVar[Exception | None] = None

    def model_post_init(self, context: Any, /) -> None:
        if self.error is not None:
            raise self.error


UNREADY = [OSError("the database cannot be reached"), ValueError("no such place"), ZeroDivisionError()]
"""Errors that a program's ``model_post_init`` may raise where a log is read."""

texts = st.text(st.characters(exclude_categories=()), max_size=20)  # half characters too
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | texts
    | st.binary(max_size=8)
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.just(Color.RED)
    | st.just(Path("a/b"))
    | st.builds(RecordedObject, texts, texts)
)
hashables = texts | st.integers() | st.dates() | st.tuples(st.integers(), texts)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(hashables, max_size=3)
        | st.frozensets(hashables, max_size=3)
        | st.dictionaries(texts | st.sampled_from(["$tuple", "$model", "$"]), inner, max_size=3)
        | st.dictionaries(hashables, inner, max_size=3)
        | st.lists(inner, max_size=2).map(lambda days: Trip.model_construct(days=tuple(days)))
        | st.builds(Step, texts, st.lists(texts, max_size=2).map(tuple))
    ),
    max_leaves=8,
)
errors: st.SearchStrategy[Exception] = st.builds(RecordedError, st.sampled_from(["litellm.Timeout"]), texts)


def strategy_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a declared type."""
    origin, args = get_origin(hint), get_args(hint)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: texts,
        int: st.integers(-(2**63), 2**63 - 1),
        float: st.floats(allow_nan=False),
        bool: st.booleans(),
        NoneType: st.none(),
        Any: values,
        BaseModel: st.just(Trip(Place="Rome", days=(1, 2))),
    }
    if hint in simple:
        return simple[hint]
    if origin in (Union, UnionType):
        return st.one_of(*map(strategy_of, args))
    if origin is tuple:
        return st.lists(strategy_of(args[0]), max_size=3).map(tuple)
    if origin is list:
        return st.lists(strategy_of(args[0]), max_size=3)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return st.dictionaries(strategy_of(args[0]), strategy_of(args[1]), max_size=3)
    if origin is not None:  # a Sequence
        return st.lists(strategy_of(args[0]), max_size=3) | st.lists(strategy_of(args[0]), max_size=3).map(tuple)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(hint)
    if isinstance(hint, type) and issubclass(hint, BaseException):
        return errors
    return events_of(cast("type[Any]", hint))


def events_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    hints = {name: hint for name, hint in codec.get_hints(kind).items() if (kind, name) != (TaskOutput, "summary")}
    return st.builds(kind, **{name: strategy_of(hint) for name, hint in hints.items()})


class TestEveryEvent:
    @pytest.mark.parametrize("name", sorted(codec.KINDS))
    @settings(max_examples=8, deadline=None, phases=[Phase.generate])  # shrinking an event takes minutes
    @given(data=st.data())
    def test_it_comes_back_as_what_it_was(self, name: str, data: st.DataObject) -> None:
        event = data.draw(events_of(codec.KINDS[name]))
        line = encode(event)
        again = decode(line)
        assert again == event
        assert type(again) is type(event)
        assert encode(again) == line
        assert decode(line.decode()) == event
        assert (line.count(b"\n"), line[-2:]) == (1, b"}\n")
        SCHEMA.validate(json.loads(line))

    @settings(max_examples=50, deadline=None)
    @given(values)
    def test_so_does_any_value(self, value: Any) -> None:
        (again,) = [cast("Custom", decode(encode(Custom(origin=Origin(), name="n", value=value)))).value]
        assert again == value
        assert type(again) is type(value)


class TestErrors:
    @pytest.mark.parametrize("error", [ValueError("no"), KeyError("a"), FileNotFoundError(2, "No such file")])
    def test_pythons_own_are_of_the_class_that_they_were(self, error: Exception) -> None:
        event = Retracted(origin=Origin(), attempts=(0,), error=error)
        again = cast("Retracted", decode(encode(event)))
        assert (type(again.error), str(again.error)) == (type(error), str(error))
        assert encode(again) == encode(event)

    def test_its_arguments_may_be_long_numbers(self) -> None:
        event = Retracted(origin=Origin(), attempts=(0,), error=ValueError("at least", 10**5000))
        assert "ValueError" in str(cast("Retracted", decode(encode(event))).error)

    def test_others_are_stand_ins_that_equal_their_own_decoding(self) -> None:
        class OutOfTea(Exception):
            pass

        once = cast("Retracted", decode(encode(Retracted(origin=Origin(), attempts=(), error=OutOfTea("no tea")))))
        assert isinstance(once.error, RecordedError)
        assert str(once.error) == f"{OutOfTea.__module__}.{OutOfTea.__qualname__}: no tea"
        assert decode(encode(once)) == once
        assert len({once.error, cast("Retracted", decode(encode(once))).error}) == 1


class TestValues:
    def value_of(self, value: Any) -> Any:
        return cast("Custom", decode(encode(Custom(origin=Origin(), name="n", value=value)))).value

    @pytest.mark.parametrize(
        "value",
        [
            (1, [2, (3,)]),
            {"$tuple": [1]},
            {1: "a", (2, 3): "b"},
            datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
            date(2026, 1, 2),
            time(1, 2),
            timedelta(days=-1, microseconds=3),
            UUID(int=5),
            Decimal("1.10"),
            {1, 2},
            b"\xff",
            float("inf"),
            Color.RED,
            Step("a", ("b",)),
            Trip(Place="Rome", days=(1, 2)),
            [Trip(Place="Rome")],
            Open(**{"a": 1, "$model": "reports:Report"}),
            Open(**{"$model": {"a": 1}}),
            Open(**{"$tuple": 1, "$fields": 2, "b": (3,)}),
            Named(cls="x", values=(1,)),
            Access.READ,
            Access.READ | Access.WRITE,
            Access(0),
        ],
    )
    def test_what_json_lacks_keeps_its_type(self, value: Any) -> None:
        assert self.value_of(value) == value
        assert type(self.value_of(value)) is type(value)

    def test_so_does_a_number_that_python_does_not_write_in_decimal(self) -> None:
        assert self.value_of(10**5000) == 10**5000

    def test_not_a_number_too(self) -> None:
        assert str(self.value_of(float("nan"))) == "nan"
        assert b"NaN" not in encode(Custom(origin=Origin(), name="n", value=[float("nan")]))

    def test_a_users_object_is_its_name_and_its_text(self) -> None:
        class Wish:
            def __str__(self) -> str:
                return "a wish"

        stand_in = self.value_of(Wish())
        assert stand_in == RecordedObject(f"{__name__}.{Wish.__qualname__}", "a wish")
        assert (str(stand_in), self.value_of(stand_in)) == ("a wish", stand_in)

    def test_a_pydantic_object_of_an_unknown_class_keeps_its_fields(self) -> None:
        class Report(BaseModel):
            title: str
            pages: tuple[int, ...] = ()

        stand_in = self.value_of(Report(title="Tides", pages=(1, 2)))
        assert isinstance(stand_in, RecordedModel)
        assert (cast("Any", stand_in).title, cast("Any", stand_in).pages) == ("Tides", (1, 2))
        assert stand_in.recorded_type == f"{__name__}:{Report.__qualname__}"
        assert self.value_of(stand_in) == stand_in

    @pytest.mark.parametrize("name", ["cls", "_fields_set", "self", "values"])
    def test_its_fields_may_have_any_name(self, name: str) -> None:
        spot = make_dataclass("Spot", [name])(1)
        stand_in = self.value_of(spot)
        assert isinstance(stand_in, RecordedModel)
        assert stand_in.model_extra == {name: 1}
        assert self.value_of(stand_in) == stand_in

    def test_a_flag_of_an_unknown_class_has_a_text(self) -> None:
        class Right(Flag):
            READ = 1
            WRITE = 2

        for right, text in ((Right(0), "0"), (Right.READ, "READ"), (Right.READ | Right.WRITE, "READ|WRITE")):
            assert str(self.value_of(right)) == text

    def test_a_dataclass_that_is_a_dict_keeps_its_fields(self) -> None:
        stand_in = self.value_of(Words("en"))
        assert isinstance(stand_in, RecordedModel)
        assert stand_in.model_extra == {"language": "en"}

    def test_a_dataclass_itself_is_an_object(self) -> None:
        @dataclass
        class Spot:
            name: str = "Rome"

        stand_in = self.value_of(Spot)
        assert isinstance(stand_in, RecordedObject)
        assert stand_in.type == "type"

    @pytest.mark.parametrize("kind", ["set", "frozenset", "dict"])
    def test_an_object_of_an_unknown_class_may_be_in_a_set_or_a_key(self, kind: str) -> None:
        @dataclass(frozen=True)
        class Spot:
            name: str

        class Report(BaseModel, frozen=True):
            title: str

        for one in (Spot("Rome"), Report(title="Tides")):
            value: Any = {"set": {one}, "frozenset": frozenset({one}), "dict": {one: 1}}[kind]
            decoded = self.value_of(value)
            (stand_in,) = decoded
            assert isinstance(stand_in, RecordedModel)
            assert stand_in.recorded_type == f"{__name__}:{type(one).__qualname__}"
            assert self.value_of(decoded) == decoded

    @pytest.mark.parametrize(
        ("tag", "text", "path"),
        [
            ("$path", "/tmp/a", PurePosixPath("/tmp/a")),
            ("$windows_path", r"C:\Temp\a", PureWindowsPath(r"C:\Temp\a")),
        ],
    )
    def test_a_path_of_another_system_is_a_pure_path(self, tag: str, text: str, path: PurePath) -> None:
        line = encode(Custom(origin=Origin(), name="n", value={"here": 1}))
        written = json.dumps({tag: text}).encode()
        value = cast("Custom", decode(line.replace(b'{"here":1}', written))).value
        assert value == path
        assert type(value) is type(path if tag == FOREIGN_PATH else Path(path))
        assert self.value_of(value) == value
        assert type(self.value_of(value)) is type(value)

    def test_a_key_that_would_have_no_hash_is_its_name_and_its_text(self) -> None:
        class Frozen(dict[str, int]):
            def __hash__(self) -> int:  # type: ignore[override]
                return 1

        stand_in = RecordedObject(f"{__name__}.{Frozen.__qualname__}", "{'a': 1}")
        key = Frozen(a=1)
        assert self.value_of({key}) == {stand_in}
        assert self.value_of({(key,): 1}) == {RecordedObject("tuple", "({'a': 1},)"): 1}

    def test_no_validator_and_no_constructor_runs_again(self) -> None:
        assert self.value_of(Trip.model_construct(place="as it is")).place == "as it is"

    def test_private_attributes_are_filled_by_model_post_init(self) -> None:
        assert self.value_of(Register(names=("a", "b"))).find("b") == 1

    @pytest.mark.parametrize("error", UNREADY)
    def test_an_object_whose_model_post_init_raises_keeps_its_fields(
        self, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        line = encode(Custom(origin=Origin(), name="n", value=[Register(names=("a",))]))
        monkeypatch.setattr(Register, "error", error)
        (stand_in,) = cast("Custom", decode(line)).value
        assert isinstance(stand_in, RecordedModel)
        assert (stand_in.recorded_type, cast("Any", stand_in).names) == (f"{__name__}:Register", ("a",))

    def test_a_secret_is_not_written(self) -> None:
        class Account(BaseModel):
            key: SecretStr

        assert b"hidden" not in encode(Custom(origin=Origin(), name="n", value=Account(key=SecretStr("hidden"))))

    def test_nothing_makes_it_fail(self) -> None:
        class Hostile(dict[str, Any]):
            def items(self) -> Any:
                raise ZeroDivisionError

            def __str__(self) -> str:
                raise ZeroDivisionError

        circle: list[Any] = [1]
        circle += [circle, circle]
        deep: Any = []
        for _ in range(1000):
            deep = [deep]
        unplaced = datetime(2026, 1, 2, tzinfo=Unplaced())
        hostile = [Hostile(a=1), circle, deep, Hostile, print, unplaced]
        decode(encode(Custom(origin=Origin(), name="n", value=hostile)))

    def test_the_same_object_twice_is_not_a_circle(self) -> None:
        inner = [1]
        assert self.value_of([inner, inner]) == [[1], [1]]

    def test_a_name_in_a_file_imports_nothing(self) -> None:
        line = encode(Custom(origin=Origin(), name="n", value=Trip())).replace(
            f"{__name__}:Trip".encode(), b"antigravity:Trip"
        )
        assert isinstance(cast("Custom", decode(line)).value, RecordedModel)
        assert "antigravity" not in sys.modules

    def test_a_name_in_a_file_calls_no_function_of_a_module(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module, asked = ModuleType("lazy"), list[str]()
        monkeypatch.setattr(module, "__getattr__", asked.append, raising=False)
        monkeypatch.setitem(sys.modules, "lazy", module)
        line = encode(Custom(origin=Origin(), name="n", value=Trip()))
        decode(line.replace(f"{__name__}:Trip".encode(), b"lazy:Trip"))
        decode(line.replace(f"{__name__}:Trip".encode(), b"lazy:Trip.Inner"))
        assert asked == []


class TestResults:
    def test_a_structured_answer_is_of_its_class(self) -> None:
        task = TaskOutput(description="Go", raw="{}", pydantic=Trip(Place="Rome"))
        for event in (
            TaskFinished(origin=Origin(), result=task),
            CrewFinished(origin=Origin(), result=CrewOutput(pydantic=Trip(Place="Rome"), tasks_output=[task])),
            MethodFinished(origin=Origin(), result=CrewOutput(tasks_output=[task])),
            TaskFinished(origin=Origin(), result=AgentOutput(description="Go")),
        ):
            assert decode(encode(event)) == event
            assert type(cast("Any", decode(encode(event))).result) is type(event.result)

    def test_one_of_an_unknown_class_still_has_its_fields(self) -> None:
        class Plan(BaseModel):
            place: str

        event = TaskFinished(origin=Origin(), result=TaskOutput(description="Go", pydantic=Plan(place="Rome")))
        once = cast("TaskFinished", decode(encode(event)))
        assert once.result["place"] == "Rome"
        assert once.result.to_dict() == {"place": "Rome"}
        assert decode(encode(once)) == once


class TestOwnEvents:
    @pytest.mark.parametrize(
        "event",
        [
            Measured(origin=Origin(span_id="r/1"), seq=3, at=1.5, metres=2.0, by=("a",)),
            LoudChunk(content="hey", volume=11, tool_call=ToolCallChunk(tool_id="1")),
        ],
    )
    def test_a_programs_own_event_is_of_its_class(self, event: Any) -> None:
        assert decode(encode(event)) == event
        assert type(decode(encode(event))) is type(event)
        SCHEMA.validate(json.loads(encode(event)))

    @pytest.mark.parametrize("error", UNREADY)
    def test_one_whose_model_post_init_raises_keeps_its_fields(
        self, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        line = encode(cast("Any", RegisteredChunk(content="hey")))
        monkeypatch.setattr(RegisteredChunk, "error", error)
        stand_in: Any = decode(line)
        assert isinstance(stand_in, RecordedEvent)
        assert (stand_in.kind, stand_in.data["content"]) == (f"{__name__}:RegisteredChunk", "hey")
        assert encode(stand_in) != b""

    def test_one_with_the_name_of_an_event_of_rxflow_is_not_constructed_again(self) -> None:
        event: Any = Program.ToolProgress(origin=Origin(), percent=50)
        built.clear()
        assert decode(encode(event)) == event
        assert built == []

    @pytest.mark.parametrize("declared", ["OnlyForTheTypeChecker", "json.Missing", "not a type"])
    def test_its_annotations_may_be_for_type_checkers_alone(self, declared: str) -> None:
        class Own(Happened):
            pass

        Own.__annotations__["value"] = declared
        kind: Any = dataclass(frozen=True, kw_only=True)(Own)
        assert b'{"$tuple":[1,2]}' in encode(kind(origin=Origin(), value=(1, 2)))

    @pytest.mark.parametrize("shade", Shade)
    @pytest.mark.parametrize("right", [Access(0), Access.READ, Access.READ | Access.WRITE])
    def test_its_enums_may_have_any_values(self, shade: Shade, right: Access) -> None:
        event: Any = Painted(origin=Origin(), shade=shade, layers=[1, (2,)], bare=[Shade.DARK], right=right)
        assert decode(encode(event)) == event

    def test_where_its_class_is_not_loaded_it_has_a_stand_in(self) -> None:
        line = encode(cast("Any", Measured(origin=Origin(span_id="r/1"), seq=3, metres=2.0))).replace(
            f"{__name__}:".encode(), b"elsewhere:"
        )
        event: Any = decode(line)
        assert event == RecordedEvent(
            origin=Origin(span_id="r/1"), seq=3, kind="elsewhere:Measured", data={"metres": 2.0, "by": []}
        )
        assert encode(event) == line

    def test_what_is_not_an_event_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"^not an event: 'text'; rxflow\.types\.events has their classes$"):
            encode(cast("Any", "text"))


BROKEN_TAGS: list[Any] = [{"$nothing": 1}, {"$datetime": "soon"}, {"$tuple": 5}, {"$dict": [[[], 1]]}]


class TestBrokenLines:
    @pytest.mark.parametrize(
        ("line", "said"),
        [
            (b"hm", r"not JSON \(Expecting value: line 1 column 1 \(char 0\)\): b'hm'"),
            (b"[1]", r'not an encoded event, which begins with {"v":1,"kind":…: b\'\[1\]\''),
            (b'{"v":2,"kind":"Custom","data":{}}', r"an event of version 2; this rxflow reads version 1"),
            (b'{"v":1,"kind":"Nothing","data":{}}', r"unknown kind 'Nothing': it was written by a newer rxflow, or"),
            (b'{"v":1,"kind":"Custom","data":5}', r"the data of 'Custom' are not a JSON object: 5"),
            (b'{"v":1,"kind":"Custom","data":{}}', r"not a Custom: TypeError: .*missing 3 required"),
            (b'{"v":1,"kind":"StreamChunk","data":{}}\n', r"not a StreamChunk: ValidationError: 1 validation error"),
            (b'{"v":1,"kind":"MethodStarted","data":{"x":1}}', r"not a MethodStarted: ValueError: it has no field 'x'"),
        ],
    )
    def test_it_says_what_is_wrong(self, line: bytes, said: str) -> None:
        with pytest.raises(CodecError, match=said):
            decode(line)

    @pytest.mark.parametrize("value", BROKEN_TAGS)
    def test_a_tag_holds_what_belongs_there(self, value: Any) -> None:
        line = encode(FlowStarted(origin=Origin(), inputs={"a": 12345})).replace(b"12345", json.dumps(value).encode())
        with pytest.raises(CodecError, match=r"not a FlowStarted: ValueError: .*\$"):
            decode(line)

    @given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: f'{{"v":1,"kind":{text!r}}}'.encode()))
    def test_nothing_else_is_raised(self, line: bytes) -> None:
        with pytest.raises(CodecError):
            decode(line)


def test_a_request_that_holds_tuples_keeps_them() -> None:
    event = LLMStarted(origin=Origin(), model="m", messages=[{"role": "user", "content": ("a", "b")}], tools=({},))
    assert decode(encode(event)) == event


def test_the_schema_in_the_docs_is_current() -> None:
    published = (ROOT / "docs" / "events.schema.json").read_text(encoding="utf-8")
    assert published == event_schema.format_schema(), "run: make schema"


def test_it_is_printed_as_it_is_published() -> None:
    command = [sys.executable, "-m", "rxflow.types.event_schema"]
    printed = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True, cwd=ROOT).stdout
    assert printed == event_schema.format_schema()


def test_the_schema_refuses_what_is_not_an_event() -> None:
    line = json.loads(encode(InputRequested(origin=Origin(), request_id="1")))
    del line["data"]["message"]
    assert not SCHEMA.is_valid(line)
    assert not SCHEMA.is_valid({"v": 1, "kind": "Nothing", "data": {}})


def test_all_fields_of_all_events_are_written() -> None:
    for kind in codec.KINDS.values():
        names = list(kind.model_fields) if issubclass(kind, BaseModel) else [each.name for each in fields(kind)]
        assert list(codec.get_hints(kind)) == names
