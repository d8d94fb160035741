"""What ``LLM`` and its calls take, and what they refuse at once."""

from typing import Any

import pytest

from rxflow import LLM
from tests.loopback import Loopback
from tests.scripted import Scripted


@pytest.mark.parametrize("name", ["base_url", "api_base"])
def test_a_server_of_ones_own_has_two_names_and_needs_no_key(
    provider: Loopback, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    where: dict[str, Any] = {name: provider.url}
    assert LLM("openai/my-own", **where).call("Hi") == "Answer to: Hi"


def test_two_addresses_of_one_server_are_refused() -> None:
    with pytest.raises(TypeError, match="base_url and api_base are two names of one thing; got 'a' and 'b'"):
        LLM("rxflow/demo", base_url="a", api_base="b")


@pytest.mark.parametrize("model", [None, 7, LLM("rxflow/demo")])
def test_a_model_that_is_no_name_is_refused(model: Any) -> None:
    with pytest.raises(TypeError, match='model is a name, "provider/model"; got '):
        LLM(model)


def test_the_embedded_model_names_the_parameters_that_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="the embedded model does not have the parameters paec, tone"):
        LLM("rxflow/demo", tone="friendly", paec=1, tool_choice="none")


def test_other_models_hand_on_parameters_that_rxflow_does_not_know() -> None:
    source = Scripted("Hello")
    LLM("scripted", source=source, tone="friendly").call("Hi")
    assert source.requests[0].parameters == {"tone": "friendly"}


class TestMessages:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"role": "user", "content": "Hi"},
            None,
            7,
            b"Hi",
            ["Hi"],
            [None],
            [{"role": "user", "content": "Hi"}, "there"],
        ],
    )
    @pytest.mark.parametrize("ask", ["call", "observe", "events", "stream_events"])
    def test_another_shape_is_refused_before_the_model_is_asked(self, ask: str, wrong: Any) -> None:
        source = Scripted("Hello")
        with pytest.raises(TypeError, match=r"messages is a string, or a list of \{'role': …, 'content': …\}; got "):
            getattr(source.llm, ask)(wrong)
        assert source.requests == []

    @pytest.mark.parametrize("gather", [list, tuple, iter])
    def test_any_iterable_of_messages_is_taken(self, gather: Any) -> None:
        source = Scripted("Hello")
        source.llm.call(gather([{"role": "user", "content": "Hi"}]))
        assert source.conversations == [[{"role": "user", "content": "Hi"}]]
