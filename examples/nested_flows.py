"""A flow inside a flow, and a method that is an async generator: the outer stream has the text of both.

python examples/nested_flows.py
"""

from collections.abc import AsyncIterator
from typing import Any

from _model import chosen_model
from reactivex import Observable

from rxflow import Flow
from rxflow.flow import listen, start
from rxflow.types.streaming import StreamChunk

MODEL = chosen_model()


class Verse(Flow):
    @start()
    def rhyme(self) -> str:
        return str(MODEL.call(f"Write a verse about {self.state['on']}"))


class Songbook(Flow):
    stream = True

    @start()
    async def title(self) -> AsyncIterator[str]:
        for word in ("Songs", " of", " the", " sea"):
            yield word

    @listen(title)
    async def first_verse(self, title: str) -> Any:
        return await Verse().kickoff_async({"on": title})

    @listen(first_verse)
    def second_verse(self) -> Observable[StreamChunk]:
        return MODEL.observe("Write a verse about the rain")


streaming = Songbook().kickoff()
method = ""
for chunk in streaming:
    if chunk.flow_method != method:
        method = chunk.flow_method
        print(f"\n{chunk.flow_name}.{method}: ", end="")
    print(chunk, end="", flush=True)
print(f"\n\nThe last verse was the result: {streaming.result in streaming.get_full_text()}")
