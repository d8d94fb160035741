"""``Crew(output_log_file=…)``: a file with a line for each task that starts and for each that is completed."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self, cast

_DEFAULT_NAME = "logs.txt"

_writing = threading.Lock()  # tasks that run at the same time share a file


@dataclass(frozen=True, slots=True)
class LogFile:
    """Where a crew's tasks are logged: lines are added to a ``.txt``, objects to the list in a ``.json``."""

    path: Path

    @classmethod
    def of(cls, option: bool | str | None) -> Self | None:
        """The file for ``output_log_file``: True is ``logs.txt``; other endings get ``.txt``."""
        if not option:
            return None
        name = _DEFAULT_NAME if option is True else option
        return cls(Path(name if name.endswith((".json", ".txt")) else f"{name}.txt"))

    def write(
        self, status: Literal["started", "completed"], *, name: str | None, task: str, agent: str, **more: str
    ) -> None:
        """Add an entry, and make the file and its folders if they are not there.

        Raises:
            OSError: it cannot be written.
            ValueError: a ``.json`` that is there does not hold a list.
        """
        now = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}"
        entry = {"task_name": name, "task": task, "agent": agent, "status": status, **more}
        with _writing:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.suffix == ".json":
                entries = [*self._read(), {"timestamp": now, **entry}]
                self.path.write_text(json.dumps(entries, indent=4) + "\n", encoding="utf-8")
                return
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{now}: " + ", ".join(f'{key}="{value}"' for key, value in entry.items()) + "\n")

    def _read(self) -> list[Any]:
        """The entries so far. CrewAI would put a new file in the place of one that it cannot read."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        try:
            entries: object = json.loads(text or "[]")
        except ValueError as error:
            raise ValueError(f"output_log_file {str(self.path)!r} is not JSON ({error}); name another file") from error
        if not isinstance(entries, list):
            raise ValueError(f"output_log_file {str(self.path)!r} does not hold a list of entries; name another file")
        return cast("list[Any]", entries)
