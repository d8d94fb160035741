"""A flow inside a reactive program: ``observe()`` is a cold Observable, composed with RxPY's operators.

Two runs at once; their words are joined to sentences as they come, and a score is kept beside them.

python examples/embed_as_observable.py
"""

import asyncio
from dataclasses import dataclass, replace

import reactivex as rx
from _model import chosen_model
from reactivex import Observable
from reactivex import operators as ops
from reactivex.scheduler.eventloop import AsyncIOScheduler

from rxflow import Flow
from rxflow.flow import start
from rxflow.types.streaming import StreamChunk

MODEL = chosen_model()


class Postcard(Flow):
    @start()
    def write(self) -> str:
        return str(MODEL.call(f"Write a postcard about {self.state['place']}"))


@dataclass(frozen=True)
class Sentence:
    """A sentence that grows; ``is_done`` with its last word."""

    text: str = ""
    is_done: bool = True

    def plus(self, chunk: StreamChunk) -> "Sentence":
        text = chunk.content.lstrip() if self.is_done else self.text + chunk.content
        return replace(self, text=text, is_done=text.endswith((".", "!", "?")))


def sentences(place: str) -> Observable[str]:
    """The sentences of one postcard, each as soon as it is complete."""
    return (
        Postcard()
        .observe({"place": place})
        .pipe(ops.scan(Sentence.plus, Sentence()))
        .filter(lambda sentence: sentence.is_done)
        .map(lambda sentence: f"{place}: {sentence.text}")
    )


async def main() -> None:
    clock = AsyncIOScheduler(asyncio.get_running_loop())
    cards = rx.merge(sentences("Lisbon"), sentences("Tromsø")).pipe(ops.share())
    said = cards.pipe(ops.map(str))
    score = cards.pipe(ops.scan(lambda count, _: count + 1, 0), ops.map("({} so far)".format))
    evening = rx.timer(20.0, scheduler=clock)
    await rx.merge(said, score).pipe(ops.take_until(evening), ops.do_action(print))


asyncio.run(main())
