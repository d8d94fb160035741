"""``partial_json``: an answer in JSON, read while it is being written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from reactivex import Observable

from rxflow.json_text import read_json
from rxflow.operators._core.arguments import a_model
from rxflow.operators._core.calls import call_by_call
from rxflow.operators._core.growing_json import GrowingJson
from rxflow.types.chunks import StreamChunk, StreamChunkType

M = TypeVar("M", bound=BaseModel)


def partial_json(model: type[M]) -> Callable[[Observable[Any]], Observable[M]]:
    """Read an answer in JSON as ever more complete values of ``model``, a pydantic model.

    Each value is a valid one, and another than the one before; the last is what the whole answer says. A value comes
    as soon as there is enough for one: all fields without a default have begun. So give fields defaults
    (``title: str = ""``), and lists and texts are seen to grow from their beginning. What is being written is shown
    when it is a text, and left out until it is whole when it is a number, or fits nothing yet. JSON is found wherever
    it stands: in a fence, with words around it, behind a draft. If an answer holds several objects, the values of each
    are shown in turn, and the last value is that of the last object that fits.

    Each LLM call is an answer of its own, unless it calls tools. An answer that does not fit the model makes the stream
    end with pydantic's ValidationError; only at its end, for it is forgiven if the agent is asked again and answers
    better. Of a call that fails, nothing more comes. Where several tasks speak, choose one with ``from_task`` first. ::

        source               --{"a": "he--llo", "b": 1--2}--|
        partial_json(M)      --M(a="he")--M(a="hello")--M(a="hello", b=12)|

    Reading takes time for all of the text so far. A long one is therefore read again only when it has grown by 1/128:
    towards the end of 20 KB a value comes every 150 characters. A chunk then costs some 20 µs on average (0.6 µs in
    answers that are not JSON), which is more than the 5 µs of the other operators.

    Raises:
        TypeError: ``model`` is no pydantic model.

    Example::

        class Report(BaseModel):
            title: str = ""
            points: list[str] = []

        flow.observe().pipe(ops.from_task("report"), ops.partial_json(Report)).subscribe(redraw)
    """
    a_model(model, "partial_json()")
    return call_by_call(lambda: _Answer(model))


class _Answer(Generic[M]):
    """The answer of one call."""

    def __init__(self, model: type[M]) -> None:
        self._model = model
        self._json: GrowingJson[M] = GrowingJson(model.model_validate_json)
        self._calls_tools = False

    def feed(self, item: object) -> Sequence[M]:
        if isinstance(item, StreamChunk):
            if item.chunk_type is StreamChunkType.TEXT:
                return self._json.feed(item.content)
            self._calls_tools = True
        elif isinstance(item, str):
            return self._json.feed(item)
        return ()

    def finish(self) -> Sequence[M]:
        text = self._json.text
        if self._calls_tools or not text:
            return ()
        return self._json.if_new(read_json(self._model, text))
