"""The client of Agent2Agent gives tasks to a flow, over real sockets."""

import asyncio
import threading
from collections.abc import Generator
from typing import Any

import httpx
import pytest
import reactivex
from a2a.client import create_client
from a2a.helpers import get_artifact_text, get_message_text, new_text_message
from a2a.server.agent_execution import RequestContext
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    Role,
    SendMessageRequest,
    StreamResponse,
    Task,
    TaskState,
)
from starlette.types import Receive, Scope, Send

from rxflow import Flow, operators as ops
from rxflow.adapters import a2a
from rxflow.flow import start
from rxflow.types import Event
from tests.adapters import flows
from tests.adapters.serving import serve
from tests.gate import PATIENCE_S, Gate
from tests.scripted import Scripted
from tests.team import solo

is_stopped = threading.Event()


class Waiting(Flow[dict[str, Any]]):
    """Says one word, and then nothing."""

    @start()
    async def wait(self) -> str:
        try:
            return str(await solo(Scripted(["first ", Gate(), "last"])).kickoff_async())
        finally:
            is_stopped.set()


class Structured(Flow[dict[str, Any]]):
    """Gives an object."""

    @start()
    def tell(self) -> dict[str, Any]:
        return {"asked": self.state["asked"], "metres": 3}


class Silent(Flow[dict[str, Any]]):
    """Gives nothing."""

    @start()
    def tell(self) -> None:
        return None


class Wordless(Flow[dict[str, Any]]):
    """Asks without a word."""

    @start()
    def wonder(self) -> str:
        return str(self.ask(""))


FLOWS: dict[str, type[Flow[Any]]] = {
    flow.__name__: flow for flow in (*flows.ALL, flows.Unencodable, Waiting, Structured, Silent, Wordless)
}


RECORDED: dict[str, list[Event]] = {}
"""Events of runs that are over, by the names under which clients ask for them."""


def answer(asked: RequestContext) -> Any:
    name, _, rest = asked.get_user_input().partition(" ")
    if name == "observed":
        return FLOWS[rest]().observe()
    if name == "recorded":
        return reactivex.from_iterable(RECORDED[rest])
    if name == "filtered":
        return FLOWS[rest]().events().pipe(ops.only_agent("Writer"))
    if name == "limited":
        source: Any = FLOWS["Plain"]() if rest == "flow" else solo(Scripted("low tide at noon"))
        return source.events().pipe(ops.limit_tokens(1))
    if name not in FLOWS:
        raise ValueError(f"no such flow: {name!r}")
    return FLOWS[name]().events({"asked": rest, "what": rest})


class Late:
    """An app that is made when its address is known: the card names it."""

    app: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    late = Late()
    with serve(late) as url:
        late.app = a2a.serve_agent(answer, name="Flows", url=url, description="Runs flows")
        yield url


def ask(text: str) -> SendMessageRequest:
    return SendMessageRequest(message=new_text_message(text, role=Role.ROLE_USER))


async def send(url: str, text: str) -> tuple[list[StreamResponse], Task]:
    """What the client hears of a task, and the task in the end."""
    async with await create_client(url) as client:
        heard = [response async for response in client.send_message(ask(text))]
        task_id = next(each.task.id for each in heard if each.HasField("task"))
        return heard, await client.get_task(GetTaskRequest(id=task_id))


def test_the_card_names_the_agent(url: str) -> None:
    card = httpx.get(f"{url}/.well-known/agent-card.json", timeout=PATIENCE_S).json()
    assert (card["name"], card["description"]) == ("Flows", "Runs flows")
    assert card["supportedInterfaces"][0]["url"] == url
    assert card["capabilities"]["streaming"] is True


def test_a_task_streams_what_models_say(url: str) -> None:
    heard, task = asyncio.run(send(url, "Plain"))
    deltas = [get_artifact_text(each.artifact_update.artifact) for each in heard if each.HasField("artifact_update")]
    assert deltas == ["low", " tide", " at", " noon", ""]
    assert task.status.state == TaskState.TASK_STATE_COMPLETED
    assert get_message_text(task.status.message) == "low tide at noon"
    (artifact,) = task.artifacts
    assert artifact.name == "Writer"
    assert "".join(part.text for part in artifact.parts) == "low tide at noon"


def test_speakers_at_the_same_time_have_an_artifact_each(url: str) -> None:
    _, task = asyncio.run(send(url, "Parallel"))
    said = sorted("".join(part.text for part in artifact.parts) for artifact in task.artifacts)
    assert said == ["calm in the north", "storm in the south"]


def test_methods_and_tools_are_status_messages(url: str) -> None:
    heard, _ = asyncio.run(send(url, "WithTools"))
    said = [
        get_message_text(each.status_update.status.message)
        for each in heard
        if each.HasField("status_update") and each.status_update.status.HasField("message")
    ]
    assert said[:3] == ["report begins", "look is called", "look is called"]


def test_a_result_that_is_an_object_is_data_too(url: str) -> None:
    _, task = asyncio.run(send(url, "Structured so"))
    _, data = task.status.message.parts
    assert dict(data.data.struct_value.items()) == {"asked": "so", "metres": 3.0}


def test_what_was_taken_back_is_gone(url: str) -> None:
    _, task = asyncio.run(send(url, "Retracting"))
    said = ["".join(part.text for part in artifact.parts) for artifact in task.artifacts]
    assert said == ["", "right"]


@pytest.mark.parametrize("what", ["bytes", "surrogate", "cycle"])
def test_a_result_that_json_cannot_hold_completes_the_task(url: str, what: str) -> None:
    _, task = asyncio.run(send(url, f"Unencodable {what}"))
    assert task.status.state == TaskState.TASK_STATE_COMPLETED


def test_a_run_of_which_only_the_chunks_were_asked_for_gives_its_result_too(url: str) -> None:
    _, task = asyncio.run(send(url, "observed Plain"))
    assert task.status.state == TaskState.TASK_STATE_COMPLETED
    assert get_message_text(task.status.message) == "low tide at noon"


def test_a_run_without_a_result_completes_without_a_message(url: str) -> None:
    for text in ("Silent", "filtered Plain"):
        _, task = asyncio.run(send(url, text))
        assert task.status.state == TaskState.TASK_STATE_COMPLETED
        assert not task.status.HasField("message")


@pytest.mark.parametrize("source", ["flow", "crew"])
def test_a_run_that_is_cut_short_is_a_cancelled_task(url: str, source: str) -> None:
    _, task = asyncio.run(send(url, f"limited {source}"))
    assert task.status.state == TaskState.TASK_STATE_CANCELED


def test_a_question_without_words_requires_input_too(url: str) -> None:
    _, task = asyncio.run(send(url, "Wordless"))
    assert task.status.state == TaskState.TASK_STATE_INPUT_REQUIRED


@pytest.mark.parametrize(
    ("text", "said"), [("Failing", "ConnectionError: line cut"), ("Nothing", "ValueError: no such flow: 'Nothing'")]
)
def test_a_run_that_fails_is_a_failed_task(url: str, text: str, said: str) -> None:
    _, task = asyncio.run(send(url, text))
    assert task.status.state == TaskState.TASK_STATE_FAILED
    assert get_message_text(task.status.message) == said


def test_cancelling_the_task_disposes_the_run(url: str) -> None:
    is_stopped.clear()

    async def cancel() -> Task:
        async with await create_client(url) as client:
            task_id = ""
            async for response in client.send_message(ask("Waiting")):
                if response.HasField("task"):
                    task_id = response.task.id
                if response.HasField("artifact_update"):
                    break
            assert not is_stopped.is_set()
            return await client.cancel_task(CancelTaskRequest(id=task_id))

    task = asyncio.run(cancel())
    assert task.status.state == TaskState.TASK_STATE_CANCELED
    assert is_stopped.wait(PATIENCE_S)


@pytest.mark.parametrize("flow", [flow.__name__ for flow in flows.ALL])
def test_every_run_ends_its_task(url: str, flow: str) -> None:
    _, task = asyncio.run(send(url, flow))
    ended = (TaskState.TASK_STATE_COMPLETED, TaskState.TASK_STATE_FAILED, TaskState.TASK_STATE_INPUT_REQUIRED)
    assert task.status.state in ended


def test_a_run_that_was_resumed_with_the_answer_completes_its_task(url: str) -> None:
    before, after = flows.pay_after_resuming(True)
    RECORDED["resumed"] = [*before, *after]
    _, task = asyncio.run(send(url, "recorded resumed"))
    assert task.status.state == TaskState.TASK_STATE_COMPLETED


def test_a_run_that_waits_for_a_person_requires_input(url: str) -> None:
    _, task = asyncio.run(send(url, "Paying"))
    assert task.status.state == TaskState.TASK_STATE_INPUT_REQUIRED
    assert get_message_text(task.status.message) == "May Writer call pay?"
