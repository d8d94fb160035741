"""``RunReader``: a reader that announces itself, so that a run knows whether anybody reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import uuid4

from rxflow._loops import on_this_loop
from rxflow.operators._core.run_log import LIVE, Note, PageReader
from rxflow.runs.store import Store
from rxflow.types import Event

READER_S = 10.0
"""Seconds after which a silent reader counts as gone: its process may have died."""


class RunReader(PageReader):
    """Reads a run at its own pace; see :meth:`Run.read`. Iterate it once, on one event loop, and close it."""

    def __init__(self, store: Store, run_id: str, after: int) -> None:
        super().__init__(store, run_id, after)
        self._store = store
        self._name = uuid4().hex
        self._has_begun = False
        self._timer: asyncio.TimerHandle | None = None

    async def __anext__(self) -> Sequence[Event]:
        if not self._has_begun:
            self._has_begun = True
            head = await on_this_loop(self._store.look_up(self._run_id))
            if head.spec.when_unread is not None and head.status in LIVE and not self._is_closed:
                self._show_presence()
        return await super().__anext__()

    def close(self) -> None:
        """Stop reading. The iteration ends, and the run no longer counts this reader.

        A run may be cancelled when its last reader leaves; see ``when_unread`` of :meth:`Runs.start`.
        """
        super().close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._store.note(self._run_id, Note("reader", 0, self._name))

    def _show_presence(self) -> None:
        self._store.note(self._run_id, Note("reader", READER_S, self._name))
        self._timer = asyncio.get_running_loop().call_later(READER_S / 3, self._show_presence)
