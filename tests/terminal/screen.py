"""Owns a person at a terminal: types, looks, and waits until something is shown."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sandyard import Attachment, Terminal

__all__ = ["Screen", "shows", "watching"]

PATIENCE_S = 20.0
"""Seconds in which what is waited for is shown, on a machine that does much else."""


class Screen:
    """What a terminal has shown since somebody looks at it, and what of it was looked at.

    Attributes:
        seen: all that it has shown.
    """

    def __init__(self, terminal: Terminal, view: Attachment) -> None:
        self.terminal = terminal
        self._view = view
        self.seen = b""
        self._looked = 0

    async def type(self, text: str) -> None:
        """Types a text as it is."""
        await self.terminal.write(text.encode())

    async def until(self, pattern: str) -> re.Match[bytes]:
        """Reads on until something is shown that was not looked at before."""
        searched = re.compile(pattern.encode(), re.DOTALL)
        async with asyncio.timeout(PATIENCE_S):
            while (found := searched.search(self.seen, self._looked)) is None:
                self.seen += await anext(self._view)
        self._looked = found.end()
        return found

    async def rest(self) -> bytes:
        """Reads on to the end; returns all."""
        async with asyncio.timeout(PATIENCE_S):
            async for chunk in self._view:
                self.seen += chunk
        return self.seen


@asynccontextmanager
async def watching(terminal: Terminal) -> AsyncIterator[Screen]:
    """Somebody at a terminal, which is closed afterwards."""
    async with terminal, terminal.attach() as view:
        yield Screen(terminal, view)


async def shows(terminal: Terminal) -> bytes:
    """All that a terminal shows until its command exits."""
    async with watching(terminal) as screen:
        return await screen.rest()
