"""What the model reads of a tool's result, and the two other ways to make and to call a tool."""

import asyncio
import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, RootModel

from rxflow.tools import BaseTool, FunctionTool, tool
from rxflow.types.results import CrewOutput
from tests.scripted import Scripted, calls
from tests.team import solo


class Depth(BaseModel):
    lake: str
    metres: float


class Depths(RootModel[list[Depth]]):
    pass


def depth(lake: str, unit: str = "m") -> Any:
    """Look up how deep a lake is."""
    return f"{lake} {unit}"


class Sounding(BaseTool):
    name: str = "depth"
    description: str = "Look up how deep a lake is."
    result_schema: type[BaseModel] | None = Depth

    def _run(self, lake: str) -> dict[str, Any]:
        return {"lake": lake, "metres": 288, "secret": "buoy 7"}


@pytest.fixture(autouse=True)
def no_annotation_of_the_function_is_left() -> Iterator[None]:
    yield
    depth.__annotations__["return"] = Any


class TestResultSchema:
    def test_the_model_reads_the_result_by_its_schema(self) -> None:
        result = Sounding().run("Ohrid")
        assert result == {"lake": "Ohrid", "metres": 288, "secret": "buoy 7"}  # the program gets all of it
        assert json.loads(Sounding().format_output_for_agent(result)) == {"lake": "Ohrid", "metres": 288.0}

    @pytest.mark.parametrize("returned", [Depth, Depths])
    def test_it_is_the_return_annotation_if_that_is_a_model(self, returned: Any) -> None:
        async def later(lake: str) -> Any:
            """Look up how deep a lake is."""

        class Plain(BaseTool):
            name: str = "depth"
            description: str = "Look up how deep a lake is."

            def _run(self, lake: str) -> Any: ...

        for function in (depth, later, Plain._run):  # pyright: ignore[reportPrivateUsage]
            function.__annotations__["return"] = returned
        for made in (tool(depth), tool(later), Plain()):
            assert made.result_schema is returned

    @pytest.mark.parametrize("returned", [str, dict[str, int], Depth | None, CrewOutput, "Unknown", None])
    def test_nothing_else_is(self, returned: Any) -> None:
        class Arguments(BaseModel):
            lake: str

        depth.__annotations__["return"] = returned
        assert FunctionTool.from_function(depth, args_schema=Arguments).result_schema is None

    def test_the_one_that_is_given_goes_before_the_annotation(self) -> None:
        @tool("depth", result_schema=Depths)
        def sound(lake: str) -> Depth:
            """Look up how deep a lake is."""
            return Depth(lake=lake, metres=1)

        assert sound.result_schema is Depths

    @pytest.mark.parametrize("result", [{"lake": "Ohrid", "metres": "deep"}, None, object()])
    def test_what_does_not_fit_is_shown_as_it_is_with_a_warning_that_does_not_quote_it(self, result: object) -> None:
        with pytest.warns(RuntimeWarning, match=r"result of the tool 'depth' as Depth \(ValidationError\)") as warned:
            assert Sounding().format_output_for_agent(result) == str(result)
        assert "deep" not in str(warned[0].message)

    def test_so_is_what_json_cannot_hold(self) -> None:
        class Handle(BaseModel):
            value: object

        handle = Handle(value=object())
        with pytest.warns(RuntimeWarning, match="as Handle"):
            assert Sounding(result_schema=Handle).format_output_for_agent(handle) == str(handle)

    def test_without_one_structures_are_json_and_text_is_text(self) -> None:
        @tool
        def plain() -> Any:
            """Give it back."""

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert plain.format_output_for_agent({"a": [1]}) == '{"a":[1]}'
            assert plain.format_output_for_agent("a") == "a"

    @pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
    def test_numbers_that_json_does_not_have_are_null_in_each_structure(self, number: float) -> None:
        @tool
        def plain() -> Any:
            """Give it back."""

        assert plain.format_output_for_agent({"a": [number, 1.5]}) == '{"a":[null,1.5]}'
        assert plain.format_output_for_agent((number,)) == "[null]"

    def test_a_tool_may_have_words_of_its_own(self) -> None:
        class Spoken(Sounding):
            def format_output_for_agent(self, raw_result: Any) -> str:
                return f"{raw_result['lake']} is {raw_result['metres']} metres deep"

        model = Scripted(calls(("depth", {"lake": "Ohrid"})), "288")
        solo(model, tools=[Spoken()]).kickoff()
        assert model.requests[-1].messages[-1]["content"] == "Ohrid is 288 metres deep"


class TestFromFunction:
    def test_name_and_description_are_those_of_the_function_or_the_given_ones(self) -> None:
        own, given = FunctionTool.from_function(depth), FunctionTool.from_function(depth, "sounder", "Sounds lakes.")
        assert (own.name, own.description) == ("depth", "Look up how deep a lake is.")
        assert (given.name, given.description, given.func) == ("sounder", "Sounds lakes.", depth)
        assert FunctionTool.from_function(depth, result_as_answer=True).result_as_answer

    def test_one_that_the_model_could_not_be_told_of_is_refused(self) -> None:
        def sound(lake: str) -> str:
            return lake

        with pytest.raises(ValueError, match="the tool 'sound' has no docstring"):
            FunctionTool.from_function(sound)
        assert FunctionTool.from_function(sound, description="Sounds lakes.").run("Ohrid") == "Ohrid"

    @pytest.mark.parametrize("given", [{"lake": "Ohrid", "more": 1}, '{"lake": "Ohrid"}'])
    def test_it_is_called_with_its_arguments_in_a_mapping_or_as_json(self, given: Any) -> None:
        async def later(lake: str, unit: str = "m") -> str:
            """Look up how deep a lake is."""
            return f"{lake} {unit}"

        for function in (depth, later):
            made = FunctionTool.from_function(function)
            assert made.invoke(given) == asyncio.run(made.ainvoke(given)) == "Ohrid m"
            assert made.current_usage_count == 2

    @pytest.mark.parametrize("given", ["[1]", "lake", "", 3, None])
    def test_other_arguments_are_an_error(self, given: Any) -> None:
        with pytest.raises(ValueError, match=r"arguments of a tool are a mapping|expected|EOF"):
            Sounding().invoke(given)


def test_a_tool_is_its_own_second_form() -> None:
    sounding = Sounding(result_as_answer=True)
    assert sounding.to_structured_tool() is sounding


def test_a_cache_function_can_be_asked_whether_there_is_one_or_not() -> None:
    def never(arguments: Any, result: Any) -> bool:
        return False

    ask: Callable[..., Any] | None = Sounding().cache_function
    assert ask is not None
    assert ask() is ask({}, "result") is True
    assert Sounding(cache_function=never).cache_function is never
    assert Sounding(cache_function=None).cache_function is None
