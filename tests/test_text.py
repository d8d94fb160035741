"""JSON is found in an answer wherever it stands, and of several values the last that fits is the answer."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel, Field, RootModel, ValidationError, field_serializer
from pydantic.dataclasses import dataclass

from rxflow import LLM, operators as ops
from rxflow._text import JsonSpan, find_json, read_json, to_plain_json, write_json
from rxflow.crew._guardrails import GuardrailError
from tests.scripted import Scripted
from tests.signals import signals_of
from tests.team import solo


class Person(BaseModel):
    name: str


class People(RootModel[list[Person]]):
    pass


class Code(BaseModel):
    code: str


class Notes(BaseModel):
    """Any object fits, as all fields have defaults."""

    title: str = ""
    lines: list[str] = []


class Login(BaseModel):
    """What an application does not show of it must not show because of one bad character either."""

    note: Any = Field(serialization_alias="text")
    key: str = Field(default="hidden", exclude=True)
    pin: int = 1234

    @field_serializer("pin")
    def mask(self, pin: int) -> str:
        return "*" * len(str(pin))


@dataclass
class Session:
    note: Any
    key: str = Field(default="hidden", exclude=True)


class Unserializable(BaseModel):
    note: str

    @field_serializer("note")
    def refuse(self, note: str) -> str:
        raise OSError("no")


class Unshowable:
    def __str__(self) -> str:
        raise OSError("no")


def contain_itself() -> dict[str, Any]:
    endless: dict[str, Any] = {}
    endless["self"] = endless
    return endless


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ({"a": (1, {2})}, {"a": [1, [2]]}),
        (float("inf"), None),
        ({"a": b"\xff", "b": [1]}, {"a": "\ufffd", "b": [1]}),
        ({"\ud800": ["calm \ud800"]}, {"\ufffd": ["calm \ufffd"]}),
        (Code.model_construct(code="\ud800"), {"code": "\ufffd"}),
        (contain_itself(), "{'self': {...}}"),
        ({b"\xff": 1}, "{b'\\xff': 1}"),
        (OSError("no"), "no"),
        ([Unserializable(note="calm")], ["note='calm'"]),
        ([Unshowable()], ["<Unshowable that cannot be shown: its __str__ raised OSError>"]),
    ],
)
def test_any_value_has_a_plain_form_and_can_be_written(value: Any, plain: Any) -> None:
    assert to_plain_json(value) == plain
    assert json.loads(write_json(value)) == plain


@pytest.mark.parametrize(
    ("note", "plain"),
    [
        ("calm", "calm"),
        ("\ud800", "\ufffd"),
        ([b"\xff", {"\ud800": 1}], ["\ufffd", {"\ufffd": 1}]),
    ],
)
def test_what_an_object_of_pydantic_does_not_show_stays_hidden(note: Any, plain: Any) -> None:
    value = {"login": Login(note=note), "session": Session(note)}
    assert to_plain_json(value) == {"login": {"text": plain, "pin": "****"}, "session": {"note": plain}}


ADA = '{"name": "Ada"}'
CODE = json.dumps({"code": "```py\nprint({'a': [1]})\n```"})

ANSWERS: list[tuple[str, type[BaseModel], Any]] = [
    ('[{"name": "a"}, {"name": "b"}]', People, ["a", "b"]),
    ('Here they are:\n```json\n[{"name": "a"}]\n```\nAll of them.', People, ["a"]),
    (f"{ADA}\n\nNote: as asked, in the form {{name: string}}.", Person, "Ada"),
    (f"In the form {{name: string}}, as asked: {ADA}", Person, "Ada"),
    (f'In the form {{"name": string}}: {ADA}', Person, "Ada"),
    (f"See [1] and [2]: {ADA} [3]", Person, "Ada"),
    (f"{{{ADA}}}", Person, "Ada"),
    (f'The set {{"a", "b"}}. {ADA}', Person, "Ada"),
    (f"```json\n{CODE}\n```", Code, json.loads(CODE)["code"]),
    (f"````md\n```json\n{CODE}\n```\n````", Code, json.loads(CODE)["code"]),
    (f'<think>{{"name": "Old"}} or [{{"name": "x"}}]?</think>{ADA}', Person, "Ada"),
    (f'```json\n{{"name": "Old"}}\n```\nBetter:\n```json\n{ADA}\n```', Person, "Ada"),
    (f'{ADA}\n{{"age": 36}}', Person, "Ada"),
    (f'{{"name": "Old"}}{ADA}', Person, "Ada"),
    ('{"name": "a } \\" {"}', Person, 'a } " {'),
    (f"{'9' * 5000} {ADA}", Person, "Ada"),
]


def essence(value: Any) -> Any:
    """The part of a value that a test names."""
    match value:
        case People(root=people):
            return [person.name for person in people]
        case Code(code=text) | Person(name=text):
            return text
        case _:
            return value


@pytest.mark.parametrize(("answer", "model", "expected"), ANSWERS)
class TestEveryReader:
    """Output types, response models and ``partial_json`` agree on what an answer says."""

    def test_output_pydantic(self, answer: str, model: type[BaseModel], expected: Any) -> None:
        result = solo(Scripted([answer]), output_pydantic=model, guardrail_max_retries=0).kickoff()
        assert essence(result.pydantic) == expected

    def test_output_json(self, answer: str, model: type[BaseModel], expected: Any) -> None:
        if issubclass(model, RootModel):
            with pytest.raises(ValueError, match="People is not read from a JSON object"):
                solo(Scripted([answer]), output_json=model)
            return
        result = solo(Scripted([answer]), output_json=model, guardrail_max_retries=0).kickoff()
        assert essence(model.model_validate(result.json_dict)) == expected

    def test_response_model(self, answer: str, model: type[BaseModel], expected: Any) -> None:
        assert essence(Scripted([answer]).llm.call("Who?", response_model=model)) == expected

    def test_response_format_of_the_model(self, answer: str, model: type[BaseModel], expected: Any) -> None:
        llm = LLM("scripted", source=Scripted([answer]), response_format=model)
        assert essence(llm.call("Who?")) == expected

    @pytest.mark.parametrize("size", [1, 7, 10_000])
    def test_partial_json(self, answer: str, model: type[BaseModel], expected: Any, size: int) -> None:
        pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
        shown = signals_of(Scripted(pieces).llm.observe("Who?").pipe(ops.partial_json(model)))
        assert (essence(shown.items[-1]), shown.errors) == (expected, [])


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ('{"accepted": true} in the form {accepted: …}', True),
        ('<think>{"accepted": true}</think>{"accepted": false, "reason": "{}"}', False),
        ('Verdict [1]:\n```json\n{"accepted": true}\n```\nwith {braces}', True),
    ],
)
def test_the_verdict_of_a_judge_is_found_in_the_same_way(answer: str, accepted: bool) -> None:
    crew = solo(Scripted("Good", [answer]), guardrail="It is good", guardrail_max_retries=0)
    if accepted:
        assert crew.kickoff().raw == "Good"
    else:
        with pytest.raises(GuardrailError, match=r"the last reason: \{\}"):
            crew.kickoff()


class TestWhatIsNotAnAnswer:
    @pytest.mark.parametrize(
        "broken",
        [
            '{"title": "A", "person": {"name": "Ada"}',  # cut short
            '{"title": "A", "people": [{"name": "Ada"}, ',
            '{"title": "A", "people": [{"name": "Ada"},]}',  # a comma too many
            '{"text": "she wrote {"name": "Ada"}',  # a string without an end
            '{"person": {"name": "Ada"}}',  # another structure
            '[{"name": "Ada"}]',
        ],
    )
    def test_a_part_of_other_json_is_not(self, broken: str) -> None:
        with pytest.raises(ValidationError):
            read_json(Person, broken)

    @pytest.mark.parametrize("behind", ["[1]", "{}", '{"source": 3}', "{string}", '{"title'])
    def test_what_follows_is_not_even_if_any_object_would_fit(self, behind: str) -> None:
        answer = '{"title": "On Rx", "lines": ["a"]} '
        expected = Notes(title="On Rx", lines=["a"])
        assert read_json(Notes, answer + behind) == expected
        shown = signals_of(Scripted(list(answer + behind)).llm.observe("?").pipe(ops.partial_json(Notes)))
        assert (shown.items[-1], shown.errors) == (expected, [])

    def test_the_error_speaks_of_the_answer_and_not_of_a_footnote(self) -> None:
        with pytest.raises(ValidationError, match="name\n  Input should be a valid string"):
            read_json(Person, 'It is {"name": 5} [1].')

    @pytest.mark.parametrize("text", ["", "I cannot say.", "{", "]", "[[[" * 100_000, '{"a":' * 100_000])
    def test_no_json_at_all_is_an_error(self, text: str) -> None:
        with pytest.raises(ValidationError, match="Invalid JSON"):
            read_json(Person, text)


@pytest.mark.parametrize("text", ["42", " 42\n", "```\n42\n```", "```json\n42```"])
def test_a_bare_value_is_read_if_it_is_the_whole_answer(text: str) -> None:
    assert read_json(RootModel[int], text).root == 42


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
CONTAINERS = st.lists(JSON, max_size=3) | st.dictionaries(st.text(), JSON, max_size=3)
WORDS = st.text(st.characters(exclude_characters="{["))


@pytest.mark.parametrize("text", ['"see [1] and {x}"', ' "see [1] and {x}"\n', '```json\n"see [1] and {x}"\n```'])
def test_brackets_in_a_bare_string_are_its_own(text: str) -> None:
    assert read_json(RootModel[str], text).root == "see [1] and {x}"
    assert solo(Scripted([text]), output_pydantic=RootModel[str]).kickoff().pydantic == RootModel[str](
        "see [1] and {x}"
    )


def test_a_string_before_the_answer_is_not_the_answer() -> None:
    assert read_json(Person, f'"Ada" is {ADA}') == Person(name="Ada")


class TestFindJson:
    @given(WORDS, CONTAINERS, WORDS, CONTAINERS, WORDS, st.booleans())
    def test_finds_each_value_among_words(
        self, before: str, one: Any, between: str, two: Any, after: str, is_ascii: bool
    ) -> None:
        written = [json.dumps(value, ensure_ascii=is_ascii) for value in (one, two)]
        text = f"{before}{written[0]}{between}{written[1]}{after}"
        assert [text[span.start : span.end] for span in find_json(text)] == written

    @given(CONTAINERS, st.booleans(), st.sampled_from([None, 2]), st.data())
    def test_a_beginning_is_open_until_the_end_comes(
        self, value: Any, is_ascii: bool, indent: int | None, data: st.DataObject
    ) -> None:
        written = json.dumps(value, ensure_ascii=is_ascii, indent=indent)
        cut = data.draw(st.integers(1, len(written) - 1))
        assert list(find_json("Well: " + written[:cut])) == [JsonSpan(6, None)]

    @given(st.text('{}[]":,0.e-\\u tn'))
    def test_any_text_has_an_end(self, text: str) -> None:
        spans = list(find_json(text))
        assert all(one.end is not None and one.end <= two.start for one, two in pairwise(spans))
