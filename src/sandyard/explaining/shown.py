"""What was denied, as the end of what a terminal showed says it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sandyard.explaining.complaints import TAIL_BYTES

if TYPE_CHECKING:
    from sandyard.explaining.explainer import Explainer
    from sandyard.narrowing import Narrowing
    from sandyard.plan import Spawn
    from sandyard.process.terminal_result import Teller
    from sandyard.types import ExecResult

__all__ = ["screen_teller"]


def screen_teller(explainer: Explainer, spawn: Spawn, narrow: Narrowing | None) -> Teller:
    """What explains a terminal's result.

    Args:
        explainer: the session's.
        spawn: the command.
        narrow: what it has less than its session; None for nothing.
    """
    began = time.time()

    async def tell(result: ExecResult, shown: bytes) -> None:
        # A terminal shows both streams as one, and ends lines as printers did.
        said = shown[-TAIL_BYTES:].replace(b"\r\n", b"\n")
        await explainer.explain(result, spawn, narrow, said, b"", began=began)

    return tell
