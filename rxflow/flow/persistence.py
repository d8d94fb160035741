"""Saves and restores the states of flows. ``@persist`` saves the state of a flow after its methods.

A later run continues with a saved state if it gets ``inputs={"id": …}``. With ``restore_from_state_id=…``, it begins
with a copy of a saved state. The copy gets the id in ``inputs``, or else a new id. Only the state is saved, not the
position in the graph, so all methods run again. :mod:`rxflow.runs` also keeps the position.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticSerializationError, to_json

from rxflow._streaming import Emitter
from rxflow.flow._graph import add_note
from rxflow.flow._state import State, read_id

if TYPE_CHECKING:
    import sqlite3

__all__ = ["FlowPersistence", "PersistenceError", "SQLiteFlowPersistence", "persist"]

# Makes this module count as a package, so that programs can import rxflow.flow.persistence.sqlite, as in CrewAI. See
# rxflow._aliases for that name.
__path__: list[str] = []

logger = logging.getLogger("rxflow")

T = TypeVar("T", bound=Callable[..., Any])

BUSY_TIMEOUT_S = 30.0
"""How many seconds a connection waits for other connections to finish writing."""

_MAX_COPIES = 10


class PersistenceError(RuntimeError):
    """A state could not be saved or restored. ``__cause__`` is the original error."""


class FlowPersistence(BaseModel, ABC):
    """The base class of stores for the states of flows.

    ``save_state`` and ``load_state`` are called in worker threads, or on the event loop if they are coroutine
    functions. The saves of one run never overlap. If a method of the store raises an error, the run ends with
    a :class:`PersistenceError`. But if the save before a question fails, ``ask()`` raises the PersistenceError.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @abstractmethod
    def init_db(self) -> None:
        """Prepare the store, for example by creating tables. rxflow does not call this method; a store may call it."""

    @abstractmethod
    def save_state(self, flow_uuid: str, method_name: str, state_data: dict[str, Any] | BaseModel) -> None:
        """Save ``state_data`` under the id ``flow_uuid``. The data is a copy of the state after ``method_name``.

        Save all of it, or raise an error and change nothing. When the state is saved before a question to a person,
        ``method_name`` is "_ask_checkpoint".
        """

    @abstractmethod
    def load_state(self, flow_uuid: str) -> dict[str, Any] | None:
        """Return the state that was saved last for ``flow_uuid``; None if there is none."""


class SQLiteFlowPersistence(FlowPersistence):
    """Keeps states in an SQLite file, as JSON, with one row per save.

    The default for ``db_path`` is the file ``flow_states.db`` in the folder that the environment variable
    RXFLOW_STORAGE_DIR names, or else in ``~/.rxflow``. The file and its folders are created at the first use.
    """

    db_path: str = Field(default_factory=lambda: str(_storage_folder() / "flow_states.db"))

    def __init__(self, db_path: str | os.PathLike[str] | None = None, /, **options: Any) -> None:
        super().__init__(**(options if db_path is None else {"db_path": os.fspath(db_path), **options}))

    @field_validator("db_path")
    @classmethod
    def _require_file(cls, path: str) -> str:
        if path == ":memory:" or not path:
            raise ValueError(f"db_path must be a file: {path!r}; a database in memory ends with each connection")
        return path

    def init_db(self) -> None:
        """Create the file and its table if they do not exist."""
        with self._connect():
            pass

    def save_state(self, flow_uuid: str, method_name: str, state_data: dict[str, Any] | BaseModel) -> None:
        """Add a row, in one transaction.

        Raises:
            ValueError: JSON cannot represent the state. The error message names the fields that do not fit.
            sqlite3.Error: the file cannot be written.
            OSError: the folder of the file cannot be created.
        """
        text = _to_json(state_data)
        now = datetime.now(UTC).isoformat()
        with self._connect() as database:
            database.execute(
                "INSERT INTO flow_states (flow_uuid, method_name, timestamp, state_json) VALUES (?, ?, ?, ?)",
                (flow_uuid, method_name, now, text),
            )

    def load_state(self, flow_uuid: str) -> dict[str, Any] | None:
        """Return the state in the last row of ``flow_uuid``; None if there is no row.

        Raises:
            sqlite3.Error: the file cannot be read.
            OSError: the folder of the file cannot be created.
        """
        with self._connect() as database:
            row = database.execute(
                "SELECT state_json FROM flow_states WHERE flow_uuid = ? ORDER BY id DESC LIMIT 1", (flow_uuid,)
            ).fetchone()
        return None if row is None else json.loads(row[0])

    @contextmanager
    def _connect(self) -> Generator[sqlite3.Connection]:
        """Open a connection for the ``with`` block, and create the table if it does not exist.

        When the block ends, commit, or roll back after an error. Then close the connection. So threads do not share a
        connection, and no file stays open.
        """
        import sqlite3  # imported here, because most flows save nothing

        Path(self.db_path).parent.mkdir(parents=True, exist_ok=True)
        # Do not use WAL mode: if another connection is writing, switching to WAL mode fails at once, without waiting.
        connection = sqlite3.connect(self.db_path, timeout=BUSY_TIMEOUT_S, isolation_level="IMMEDIATE")
        with closing(connection) as database, database:
            # The table has the same columns as CrewAI's table, so that a file written by CrewAI can still be used.
            database.execute(
                "CREATE TABLE IF NOT EXISTS flow_states (id INTEGER PRIMARY KEY AUTOINCREMENT, flow_uuid TEXT NOT NULL,"
                " method_name TEXT NOT NULL, timestamp DATETIME NOT NULL, state_json TEXT NOT NULL)"
            )
            database.execute("CREATE INDEX IF NOT EXISTS idx_flow_states_uuid ON flow_states(flow_uuid)")
            yield database


@dataclass(frozen=True, slots=True)
class SaveRule:
    """The arguments of a ``@persist`` decorator."""

    store: FlowPersistence
    verbose: bool = False


@overload
def persist(target: T, /) -> T: ...


@overload
def persist(persistence: FlowPersistence | None = None, verbose: bool = False) -> Callable[[T], T]: ...


def persist(persistence: Any = None, verbose: bool = False) -> Any:
    """Save the state of a flow after each method of the decorated class, or after the decorated method.

    Write ``@persist``, ``@persist()`` or ``@persist(MyStore())``. The default store is a
    :class:`SQLiteFlowPersistence`. ``Flow(persistence=…)`` replaces the stores of all decorators. If ``verbose`` is
    True, each save is logged.

    Raises:
        TypeError: the argument of ``@persist(…)`` is not a store.
    """
    if isinstance(persistence, FlowPersistence | None):
        return partial(_mark, rule=SaveRule(SQLiteFlowPersistence() if persistence is None else persistence, verbose))
    if isinstance(persistence, type) and issubclass(persistence, FlowPersistence):
        raise TypeError(f"@persist takes a store; got its class, so write @persist({persistence.__name__}(…))")
    target = cast(Callable[..., Any], persistence)
    if not callable(target):
        raise TypeError(f"@persist takes a store, a FlowPersistence; got {persistence!r}")
    return _mark(target, rule=SaveRule(SQLiteFlowPersistence()))


def _mark(target: T, rule: SaveRule) -> T:
    if not isinstance(target, type):
        return add_note(target, "persist", None, persist=rule)
    setattr(target, RULE_ATTRIBUTE, rule)
    return cast(T, target)


RULE_ATTRIBUTE = "_save_rule"
"""The name of the class attribute in which ``@persist`` stores its rule. Subclasses inherit the rule."""


class StateKeeper:
    """Saves and restores the state of one flow's run.

    Only one save runs at a time. The state is copied when the save begins. If several saves ran at the same time, an
    older state could be written last.
    """

    def __init__(
        self, flow: str, own: FlowPersistence | None, rule: SaveRule | None, methods: Mapping[str, SaveRule | None]
    ) -> None:
        """Choose a store for each method.

        ``methods`` has the rules of methods. ``rule`` is the rule of the class, and applies to methods without a rule
        of their own. ``own`` is the store of the flow instance. If ``own`` is given, it replaces the stores of all
        rules.
        """
        self._flow = flow
        self._own = own
        rules = {name: each or rule for name, each in methods.items()}
        self._rules = {name: each for name, each in rules.items() if each is not None}
        self._lock = asyncio.Lock()
        stores = [own] if own else [each.store for each in self._rules.values()]
        self.has_stores = bool(stores)
        # With several stores, none is used to restore: it would be unclear which one has the last state.
        is_one = self.has_stores and all(_is_same(stores[0], each) for each in stores)
        self.store: FlowPersistence | None = stores[0] if is_one else None

    async def save(self, emitter: Emitter, method: str, read_state: Callable[[], State]) -> None:
        """Save the state after ``method``, if the method has a rule. Raises PersistenceError if the save fails."""
        rule = self._rules.get(method)
        if rule is not None:
            await self._save(emitter, self._own or rule.store, method, read_state, verbose=rule.verbose)

    async def save_before_a_wait(self, emitter: Emitter, read_state: Callable[[], State]) -> None:
        """Save the state before a question to a person, because the process may end before the answer comes.

        Without a store, or with several stores, nothing is saved.
        """
        if self.store is not None:
            await self._save(emitter, self.store, "_ask_checkpoint", read_state, verbose=False)

    async def load(self, emitter: Emitter, flow_uuid: str, read: Callable[[Mapping[str, Any]], State]) -> State | None:
        """Return the state that was saved last for ``flow_uuid``, converted by ``read``; None if nothing was saved.

        If there are several stores, log a warning and return None. Raises PersistenceError if the store fails, or if
        the saved state does not fit.
        """
        if self.store is None:
            logger.warning(
                "%s: the state of %r is not restored: its decorators name several stores, and any of them may have the "
                "last state; give the flow persistence=…",
                self._flow,
                flow_uuid,
            )
            return None
        with _naming(f"{self._flow}: {_name(self.store)} cannot load the state of {flow_uuid!r}"):
            saved: object = await emitter.invoke(self.store.load_state, flow_uuid)
            if saved is None:
                return None
            if not isinstance(saved, Mapping):
                raise TypeError(f"load_state must return a dict, or None if nothing was saved; it returned {saved!r}")
            return read(cast(Mapping[str, Any], saved))

    async def _save(
        self, emitter: Emitter, store: FlowPersistence, method: str, read_state: Callable[[], State], *, verbose: bool
    ) -> None:
        async with self._lock:
            with _naming(f"State persistence failed: {_name(store)} cannot save {self._flow} after {method}"):
                state = _copy(read_state())
                flow_uuid = read_id(state)
                if not flow_uuid:
                    raise ValueError("Flow state must have an 'id' field for persistence, and its id is empty")
                if verbose:
                    logger.info("Saving the state of %s to %s, with the ID %s", self._flow, _name(store), flow_uuid)
                await emitter.invoke(store.save_state, flow_uuid=flow_uuid, method_name=method, state_data=state)


def _copy(state: State) -> State:
    """Return a copy of ``state`` for the store. Nothing changes the copy while it is being saved.

    A method in another thread may change ``state`` at any time. If deepcopy() fails because of a change, it is called
    again.
    """
    for _ in range(_MAX_COPIES):
        try:
            return copy.deepcopy(state)
        except RuntimeError:  # "dictionary changed size during iteration"
            continue
    return copy.deepcopy(state)


def _to_json(state: dict[str, Any] | BaseModel) -> str:
    if not isinstance(state, dict | BaseModel):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"state_data must be a dict or a pydantic model; got {state!r}")
    try:
        return to_json(state).decode()
    except PydanticSerializationError as error:
        values = state if isinstance(state, dict) else dict(state)
        misfits = ", ".join(repr(name) for name, value in values.items() if not _is_json(value))
        raise ValueError(f"JSON cannot carry the state's {misfits}: {error}") from error


def _is_json(value: object) -> bool:
    try:
        to_json(value)
    except PydanticSerializationError:
        return False
    return True


@contextmanager
def _naming(what: str) -> Generator[None]:
    try:
        yield
    except Exception as error:
        raise PersistenceError(f"{what}: {type(error).__name__}: {error}") from error


def _is_same(one: FlowPersistence, other: FlowPersistence) -> bool:
    """Return whether two stores are the same object, or SQLite stores with equal options."""
    return one is other or (isinstance(one, SQLiteFlowPersistence) and one == other)


def _name(store: FlowPersistence) -> str:
    return f"SQLite ({store.db_path})" if isinstance(store, SQLiteFlowPersistence) else type(store).__name__


def _storage_folder() -> Path:
    return Path(os.environ.get("RXFLOW_STORAGE_DIR") or Path.home() / ".rxflow")
