"""The state: a dict or a model, its id, and what inputs do to it."""

import re
from typing import Any, Generic, TypeVar
from uuid import UUID

import pytest
from hypothesis import given, settings, strategies as st
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PrivateAttr, computed_field

from rxflow.flow import Flow, listen, start
from rxflow.types.events import FlowFinished, StateChanged
from tests.signals import outcome


class Report(BaseModel):
    topic: str = "nothing"
    pages: int = 1
    notes: list[str] = []


class ReportFlow(Flow[Report]):
    @start()
    def write(self) -> str:
        self.state.notes.append(self.state.topic)
        return f"{self.state.pages} pages on {self.state.topic}"


class DictFlow(Flow):
    @start()
    def write(self) -> None:
        self.state["written"] = self.state.get("topic", "nothing")

    @listen(write)
    def read(self) -> Any:
        return self.state["written"]


def is_uuid4(text: object) -> bool:
    return isinstance(text, str) and UUID(text).version == 4


def test_unstructured_state_is_a_dict_with_an_id() -> None:
    flow = DictFlow()
    assert list(flow.state) == ["id"]
    assert is_uuid4(flow.state["id"])
    assert flow.flow_id == flow.state["id"]


def test_what_a_method_writes_the_next_one_reads() -> None:
    flow = DictFlow()
    assert flow.kickoff({"topic": "rain"}) == "rain"
    assert flow.state["written"] == "rain"


def test_inputs_are_merged_into_a_dict_and_its_id_is_kept() -> None:
    flow = DictFlow(initial_state={"topic": "rain", "place": "here"})
    before = flow.flow_id
    flow.kickoff({"topic": "snow"})
    assert flow.state == {"id": before, "topic": "snow", "place": "here", "written": "snow"}


def test_a_model_without_an_id_is_given_one() -> None:
    flow = ReportFlow()
    assert isinstance(flow.state, Report)
    assert is_uuid4(flow.flow_id)
    assert flow.state.model_dump()["id"] == flow.flow_id


def test_a_model_with_an_id_of_its_own_keeps_it() -> None:
    class Numbered(BaseModel):
        id: str = "number-1"

    class NumberedFlow(Flow[Numbered]):
        @start()
        def begin(self) -> str:
            return self.state.id

    assert NumberedFlow().kickoff() == "number-1"


def test_an_id_without_a_default_is_filled_in() -> None:
    class Numbered(BaseModel):
        id: str
        topic: str = "nothing"

    class NumberedFlow(Flow[Numbered]):
        @start()
        def begin(self) -> str:
            return self.state.id

    assert is_uuid4(NumberedFlow().kickoff())


def test_two_instances_have_two_ids() -> None:
    assert ReportFlow().flow_id != ReportFlow().flow_id
    assert DictFlow().flow_id != DictFlow().flow_id


@pytest.mark.parametrize("flow_type", [ReportFlow, DictFlow])
def test_inputs_can_set_the_id(flow_type: type[Flow[Any]]) -> None:
    flow = flow_type()
    flow.kickoff({"id": "mine"})
    assert flow.flow_id == "mine"


@pytest.mark.parametrize("flow_type", [ReportFlow, DictFlow])
def test_an_id_of_none_in_the_inputs_stands_for_none(flow_type: type[Flow[Any]]) -> None:
    flow = flow_type()
    own = flow.flow_id
    flow.kickoff({"id": None, "topic": "rain"})
    assert flow.flow_id == own
    assert is_uuid4(own)


class Optional(BaseModel):
    id: str | None = None


@pytest.mark.parametrize("first", [Optional, Optional(), {"id": None}])
def test_an_id_of_none_in_the_first_state_is_filled_in(first: Any) -> None:
    flow, other = DictFlow(initial_state=first), DictFlow(initial_state=first)
    assert is_uuid4(flow.flow_id)
    assert flow.flow_id != other.flow_id


def test_a_model_that_takes_no_text_as_its_id_has_none_until_it_is_given() -> None:
    class Numbered(BaseModel):
        id: int | None = None

    flow = DictFlow(initial_state=Numbered)
    assert flow.flow_id == ""


StateT = TypeVar("StateT", bound=BaseModel)
Other = TypeVar("Other")


class Family(Flow[StateT], Generic[Other, StateT]):
    @start()
    def begin(self) -> str:
        return type(self.state).__name__


class Branch(Family[Other, StateT]): ...


class Leaf(Branch[int, Report]): ...


class Untyped(Flow): ...


class Mixed(Untyped, Leaf): ...  # pyright: ignore[reportGeneralTypeIssues]


class Swapped(Generic[StateT, Other], Family[Other, StateT]): ...


class SwappedLeaf(Swapped[Report, int]): ...


class Open(Branch[int, StateT]): ...


@pytest.mark.parametrize(
    ("flow_type", "state"), [(Leaf, "Report"), (Mixed, "Report"), (SwappedLeaf, "Report"), (Open, "dict")]
)
def test_a_family_of_flows_may_have_other_type_variables(flow_type: type[Flow[Any]], state: str) -> None:
    assert flow_type().kickoff() == state


def test_inputs_fill_a_model() -> None:
    flow = ReportFlow()
    assert flow.kickoff({"topic": "rain", "pages": 3}) == "3 pages on rain"
    assert flow.state.topic == "rain"


def test_inputs_are_validated_and_coerced_as_the_model_says() -> None:
    assert ReportFlow().kickoff({"pages": "4"}) == "4 pages on nothing"


def test_keys_that_the_model_does_not_have_are_ignored() -> None:
    flow = ReportFlow()
    assert flow.kickoff({"topic": "rain", "weather": "wet"}) == "1 pages on rain"
    assert not hasattr(flow.state, "weather")


def test_keys_that_an_open_model_does_not_have_are_kept() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        topic: str = "nothing"

    class OpenFlow(Flow[Open]):
        @start()
        def begin(self) -> object:
            return self.state.model_extra

    flow = OpenFlow()
    assert flow.kickoff({"topic": "rain", "weather": "wet"}) == {"weather": "wet"}
    assert flow.kickoff({"topic": "snow"}) == {"weather": "wet"}, "the state survives"


def test_keys_that_a_strict_model_does_not_have_are_ignored_too() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")
        topic: str = "nothing"

    class StrictFlow(Flow[Strict]):
        @start()
        def begin(self) -> str:
            return self.state.topic

    assert StrictFlow().kickoff({"topic": "rain", "weather": "wet"}) == "rain"


def test_a_model_is_validated_as_a_whole() -> None:
    from pydantic import model_validator

    class Span(BaseModel):
        low: int = 0
        high: int = 10

        @model_validator(mode="after")
        def _ordered(self) -> "Span":
            if self.low > self.high:
                raise ValueError("low is above high")
            return self

    class SpanFlow(Flow[Span]):
        @start()
        def begin(self) -> int:
            return self.state.high - self.state.low

    assert SpanFlow().kickoff({"low": 20, "high": 25}) == 5
    with pytest.raises(ValueError, match=r"Invalid inputs for structured state: (.|\n)*low is above high"):
        SpanFlow().kickoff({"low": 20})


def test_a_field_with_an_alias_keeps_its_value_and_is_set_by_either_name() -> None:
    class Aliased(BaseModel):
        topic: str = Field(default="nothing", alias="Topic")
        place: str = Field(default="nowhere", alias="Place")

    class AliasedFlow(Flow[Aliased]):
        @start()
        def begin(self) -> str:
            return f"{self.state.topic} {self.state.place}"

    flow = AliasedFlow(initial_state=Aliased(Topic="rain", Place="here"))
    assert flow.kickoff() == "rain here"
    assert flow.kickoff({"place": "there"}) == "rain there"
    assert flow.kickoff({"Topic": "snow"}) == "snow there"


def test_a_field_is_set_by_each_of_its_validation_aliases() -> None:
    class Aliased(BaseModel):
        topic: str = Field(default="nothing", validation_alias="Topic")
        place: str = Field(default="nowhere", validation_alias=AliasChoices("Place", "Where"))

    class AliasedFlow(Flow[Aliased]):
        @start()
        def begin(self) -> str:
            return f"{self.state.topic} {self.state.place}"

    flow = AliasedFlow()
    assert flow.kickoff({"Topic": "rain", "Where": "here"}) == "rain here"
    assert flow.kickoff({"Place": "there", "topic": "snow"}) == "snow there"


def test_objects_in_a_model_stay_what_they_are() -> None:
    class Source(BaseModel):
        name: str = "book"

    class Sourced(BaseModel):
        source: Source = Source()
        topic: str = ""

    class SourcedFlow(Flow[Sourced]):
        @start()
        def begin(self) -> Source:
            return self.state.source

    flow = SourcedFlow()
    mine = flow.state.source = Source(name="mine")
    assert flow.kickoff({"topic": "rain"}) is mine


class Drawn(BaseModel):
    """A state with private attributes: three that the program sets, and one that is derived from a field."""

    topic: str = "nothing"
    _client: object = PrivateAttr(default=None)
    _seen: list[str] = PrivateAttr(default_factory=list[str])
    _lock: object = PrivateAttr(default_factory=object)
    _title: str = PrivateAttr(default="")

    def model_post_init(self, context: object, /) -> None:
        self._title = self.topic.upper()

    def note(self, topic: str, client: object = None) -> object:
        self._seen.append(topic)
        self._client = client
        return self._lock

    def tell(self) -> tuple[object, list[str], object, str]:
        return self._client, self._seen, self._lock, self._title


class TestPrivateAttributes:
    class Drawing(Flow[Drawn]):
        @start()
        def begin(self) -> Any:
            return self.state.tell()

    def test_are_kept_when_inputs_are_given_unless_the_model_sets_them(self) -> None:
        flow = self.Drawing()
        client = object()
        lock = flow.state.note("rain", client)
        assert flow.kickoff({"topic": "snow"}) == (client, ["rain"], lock, "SNOW")

    @pytest.mark.parametrize("has_id", [False, True])
    def test_of_a_given_state_are_kept_when_its_id_is_filled_in(self, has_id: bool) -> None:
        class WithId(Drawn):
            id: str | None = None

        given = (WithId if has_id else Drawn)(topic="rain")
        given.note("rain")
        flow = self.Drawing(initial_state=given)
        _, seen, _, title = flow.state.tell()
        assert (seen, title) == (["rain"], "RAIN")
        assert seen is not given.tell()[1]

    def test_that_cannot_be_compared_are_what_the_model_makes_them(self) -> None:
        class Odd:
            __hash__ = None  # type: ignore[assignment]

            def __eq__(self, other: object) -> bool:
                raise TypeError("cannot be compared")

        class Oddly(Drawn):
            _odd: Odd = PrivateAttr(default_factory=Odd)

        class Flowing(Flow[Oddly]):
            @start()
            def begin(self) -> Any:
                return self.state.tell()

        flow = Flowing()
        flow.state.note("rain")
        told: Any = flow.kickoff({"topic": "snow"})
        assert told[1] == ["rain"]


class TestInitialState:
    def test_may_be_a_model(self) -> None:
        class Anything(Flow[Any]):
            @start()
            def begin(self) -> Any:
                return self.state.topic

        assert Anything(initial_state=Report).kickoff() == "nothing"

    def test_may_be_an_instance(self) -> None:
        flow = ReportFlow(initial_state=Report(topic="rain", pages=2))
        assert flow.kickoff() == "2 pages on rain"
        assert is_uuid4(flow.flow_id)

    def test_may_be_a_dict(self) -> None:
        flow = DictFlow(initial_state={"topic": "rain"})
        assert flow.kickoff() == "rain"
        assert is_uuid4(flow.flow_id)

    def test_may_be_the_type_dict(self) -> None:
        assert list(DictFlow(initial_state=dict).state) == ["id"]

    def test_may_bring_its_id(self) -> None:
        assert DictFlow(initial_state={"id": "mine"}).flow_id == "mine"

    def test_may_be_a_class_attribute(self) -> None:
        class Preset(ReportFlow):
            initial_state = Report(topic="rain")

        assert Preset().kickoff() == "1 pages on rain"

    def test_is_copied_so_instances_share_nothing(self) -> None:
        given = Report(notes=["given"])
        one, two = ReportFlow(initial_state=given), ReportFlow(initial_state=given)
        one.kickoff({"topic": "rain"})
        assert (one.state.notes, two.state.notes, given.notes) == (["given", "rain"], ["given"], ["given"])

    def test_that_is_a_dict_is_copied_too(self) -> None:
        given: dict[str, Any] = {"notes": []}
        one, two = DictFlow(initial_state=given), DictFlow(initial_state=given)
        one.state["notes"].append("mine")
        assert (two.state["notes"], given["notes"]) == ([], [])

    @pytest.mark.parametrize("wrong", [3, "state", [("topic", "rain")], int, ...], ids=repr)
    def test_that_is_anything_else_is_a_type_error_that_says_so(self, wrong: object) -> None:
        with pytest.raises(
            TypeError, match=re.escape(f"a pydantic model, a dict, or an instance of one; got {wrong!r}")
        ):
            DictFlow(initial_state=wrong)


def test_a_field_without_a_default_is_refused_by_name() -> None:
    class Needy(BaseModel):
        topic: str
        pages: int = 1

    class NeedyFlow(Flow[Needy]):
        @start()
        def begin(self) -> None: ...

    with pytest.raises(ValueError, match="NeedyFlow: each field of the state Needy needs a default; missing: topic"):
        NeedyFlow()


def test_a_subclass_has_the_state_of_its_base() -> None:
    class Longer(ReportFlow):
        @listen(ReportFlow.write)
        def publish(self, written: str) -> str:
            return f"published {written}"

    assert Longer().kickoff({"topic": "rain"}) == "published 1 pages on rain"


def test_state_survives_repeated_kickoffs_and_outputs_do_not() -> None:
    flow = ReportFlow()
    before = flow.flow_id
    flow.kickoff({"topic": "rain"})
    flow.kickoff({"topic": "snow"})
    flow.kickoff()
    assert flow.state.notes == ["rain", "snow", "snow"]
    assert flow.method_outputs == ["1 pages on snow"]
    assert flow.flow_id == before


def test_without_inputs_a_model_is_taken_as_it_stands() -> None:
    flow = ReportFlow()
    held = flow.state
    held.pages = "many"  # type: ignore[assignment]
    assert flow.kickoff() == "many pages on nothing"
    assert flow.state is held


def test_what_was_set_before_the_kickoff_is_there_in_it() -> None:
    flow = ReportFlow()
    flow.state.topic = "rain"
    assert flow.kickoff({"pages": 2}) == "2 pages on rain"


def test_inputs_that_do_not_fit_leave_the_state_as_it_was() -> None:
    flow = ReportFlow()
    flow.kickoff({"topic": "rain"})
    with pytest.raises(ValueError, match=r"Invalid inputs for structured state: (.|\n)*pages"):
        flow.kickoff({"topic": "snow", "pages": "many"})
    assert (flow.state.topic, flow.state.notes) == ("rain", ["rain"])


keys = st.text(min_size=1, max_size=5).filter(lambda key: key not in {"id", "written"})
dicts = st.dictionaries(keys, st.none() | st.integers() | st.text(max_size=5), max_size=5)


@settings(max_examples=40, deadline=None)
@given(dicts, dicts)
def test_a_dict_state_is_always_what_it_was_with_the_inputs_over_it(
    first: dict[str, Any], then: dict[str, Any]
) -> None:
    flow = DictFlow(initial_state=first)
    expected = {"id": flow.flow_id} | first | then
    flow.kickoff(then)
    assert {key: value for key, value in flow.state.items() if key != "written"} == expected


class Unprintable:
    def __str__(self) -> str:
        raise LookupError("no name")


class Average(BaseModel):
    total: int = 6
    count: int = 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def mean(self) -> float:
        return self.total / self.count


class TestAStateThatCannotBeShown:
    def test_does_not_fail_the_run_if_an_object_has_no_text(self) -> None:
        class Keeps(Flow):
            @start()
            def keep(self) -> str:
                self.state["client"] = Unprintable()
                self.state["pages"] = 3
                return "kept"

        seen = outcome(Keeps().events())
        assert seen.one(FlowFinished).result == "kept"
        shown = seen.one(StateChanged).state
        assert shown["pages"] == 3
        assert shown["client"].startswith("<Unprintable that cannot be shown")

    def test_does_not_fail_the_run_if_a_computed_field_raises(self) -> None:
        class Counts(Flow[Average]):
            @start()
            def begin(self) -> None:
                self.state.total += 2

            @listen(begin)
            def count(self) -> float:
                self.state.count = 4
                return self.state.mean

        seen = outcome(Counts().events())
        assert seen.one(FlowFinished).result == 2
        without_mean, with_mean = [event.state for event in seen.of(StateChanged)]
        assert (without_mean["total"], "mean" in without_mean, with_mean["mean"]) == (8, False, 2)
