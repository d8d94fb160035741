"""Where an answer is written: the program names the folder, inputs only what lies in it.

Inputs often come from strangers, and the file is written with this program's rights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Self

from rxflow.crew.placeholders import PLACEHOLDER, fill

# A home folder at the beginning, a variable at the beginning of any part: "~/a", "~me/a", "$HOME/a", "out/${DAY}/a".
_EXPANDED_BY_SHELLS = re.compile(r"\A~[^/\\]*|(?:\A|(?<=[/\\]))\$(?:[A-Za-z_]\w*|\{[^}]*\})")


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A path, and the folder that it must not leave: what the template names before its first placeholder.

    ``folder`` is None where nothing was filled in: a path that the program gives as a whole may be anywhere.
    """

    path: Path
    folder: Path | None
    where: str

    @staticmethod
    def check_template(template: str) -> None:
        """Raise ValueError for a path that a shell would expand: as it stands it would make a folder named ``~``."""
        match = _EXPANDED_BY_SHELLS.search(template)
        if match is not None:
            raise ValueError(
                f"output_file {template!r}: {match.group()!r} is not expanded here, as only a shell does that; write "
                "the path out, with os.path.expanduser(…) or os.path.expandvars(…) for instance"
            )

    @classmethod
    def of(cls, template: str, inputs: Mapping[str, Any] | None, where: str) -> Self:
        """``template`` with its placeholders filled. Raises ValueError where that leads out of the folder."""
        filled = fill(template, inputs, where)
        names = [match.group(1) for match in PLACEHOLDER.finditer(template)] if inputs is not None else []
        for name in names:
            value = str(inputs[name]) if inputs is not None else ""
            if PurePath(value).is_absolute() or ".." in PurePath(value).parts or "\0" in value:
                raise ValueError(f"{where}: the input {name!r} would lead out of its folder: {value!r}")
        if filled.startswith(("~", "$")):
            cls.check_template(filled)
        # Harmless values may add up to harm: two dots, or an empty first folder.
        if (PurePath(filled).is_absolute() and not PurePath(template).is_absolute()) or _climbs(filled) > _climbs(
            template
        ):
            raise ValueError(f"{where}: the inputs would lead out of its folder: {filled!r}")
        before = template[: next(PLACEHOLDER.finditer(template)).start()] if names else ""
        file = cls(Path(filled), Path(before + "x").parent if names else None, where)
        file.check()
        return file

    def check(self) -> None:
        """Raise ValueError where a symbolic link leads out of the folder: an input may have chosen it."""
        if self.folder is None:
            return
        target, folder = self.path.resolve(), self.folder.resolve()
        if not target.is_relative_to(folder):
            raise ValueError(
                f"{self.where}: a symbolic link would lead out of its folder: {str(self.path)!r} is {str(target)!r}, "
                f"and not in {str(folder)!r}"
            )

    def write(self, text: str) -> None:
        """Write it, with the folders that it needs. The links may have changed since the run began."""
        self.check()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(text, encoding="utf-8")


def _climbs(path: str) -> int:
    return PurePath(path).parts.count("..")
