"""A branch that stands still on a worker, and what its reader sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.gate import Gate
from tests.signals import Signals

if TYPE_CHECKING:
    from rxflow.cluster import Ray

HERE = "tests.runs.flows"
STANDING = "tests.cluster.flows:Standing"


class Watched(Signals):
    """Says when the first item is there."""

    def __init__(self) -> None:
        super().__init__()
        self.began = Gate()

    def on_next(self, item: Any) -> None:
        super().on_next(item)
        self.began.open()


def stand(cluster: Ray) -> tuple[Watched, int]:
    """A branch that stands still, and the process of its worker."""
    seen = Watched()
    seen.subscribe_to(cluster.on(STANDING).observe())
    seen.began.wait()
    return seen, int(str(seen.items[0]))
