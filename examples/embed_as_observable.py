"""A flow inside a reactive program: ``observe()`` is a cold Observable, used with operators of RxPY and rxflow.

Two runs are merged. Their chunks are joined to sentences as they arrive, and the sentences are counted.

python examples/embed_as_observable.py
"""

import asyncio

import reactivex as rx
from _model import chosen_model
from reactivex import Observable, operators as rxops
from reactivex.scheduler.eventloop import AsyncIOScheduler

from rxflow import Flow, operators as ops
from rxflow.flow import start

MODEL = chosen_model()


class Postcard(Flow):
    @start()
    def write(self) -> str:
        return str(MODEL.call(f"Write a postcard about {self.state['place']}"))


def sentences(place: str) -> Observable[str]:
    """Return the sentences of one postcard, each emitted as soon as it is complete."""
    return (
        Postcard()
        .observe({"place": place})
        .pipe(ops.sentences())
        .map(lambda sentence: f"{place}: {sentence.content.strip()}")
    )


async def main() -> None:
    clock = AsyncIOScheduler(asyncio.get_running_loop())
    cards = rx.merge(sentences("Lisbon"), sentences("Tromsø")).pipe(rxops.share())
    said = cards.pipe(rxops.map(str))
    score = cards.pipe(rxops.scan(lambda count, _: count + 1, 0), rxops.map("({} so far)".format))
    evening = rx.timer(20.0, scheduler=clock)
    await rx.merge(said, score).pipe(rxops.take_until(evening), rxops.do_action(print))


asyncio.run(main())
