"""An attack as data: what it is called, the code that tries it, and what its control needs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

__all__ = ["ESCAPED", "STARTED", "Attack", "python", "shell", "source_of"]

ESCAPED: Final = "ESCAPE"
"""What a line of output holds that tells of an attack's success."""

STARTED: Final = "STARTED"
"""The first line of output: without it the attack never ran, and its silence means nothing."""

Language = Literal["sh", "py"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One way to try to get out.

    The same code runs unconfined as a control, so it must be harmless to the machine and undo what
    it does outside the bait.

    Attributes:
        name: what is tried, unique within its class.
        language: ``"sh"`` for ``sh -c``, ``"py"`` for Python with the prelude before it.
        code: prints a line with ``ESCAPED`` or a secret for each thing that it got, or damages the
            bait.
        needs: what the control needs that not every user and machine has; empty if it always
            succeeds.
        reads: directories of the bait that the policy grants for reading.
    """

    name: str
    language: Language
    code: str
    needs: str = ""
    reads: tuple[str, ...] = ()


def shell(name: str, code: str, *, needs: str = "", reads: tuple[str, ...] = ()) -> Attack:
    """An attack for ``sh -c``."""
    return Attack(name=name, language="sh", code=code, needs=needs, reads=reads)


def python(name: str, code: str, *, needs: str = "", reads: tuple[str, ...] = ()) -> Attack:
    """An attack for ``python3 -c``, after the prelude."""
    return Attack(name=name, language="py", code=code, needs=needs, reads=reads)


@cache
def read_prelude() -> str:
    """The Python text that stands before every attack in Python."""
    return (Path(__file__).parent / "prelude.py").read_text(encoding="utf-8")


def source_of(attack: Attack) -> str:
    """The whole text that is run."""
    if attack.language == "sh":
        return f"echo {STARTED}\n{attack.code}"
    return f"{read_prelude()}\ntell('{STARTED}')\n{attack.code}"
