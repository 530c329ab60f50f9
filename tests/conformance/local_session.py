"""Sessions of this machine for the suite; as a program, the suite on the rung its host allows, or on none."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sandyard import BaseSandboxSession, Policy, UnixLocalSandboxClient, presets
from sandyard.policy import DIMENSIONS
from sandyard.testing import BEHAVIOURS, Conformance, Outcome, SessionFactory, run_conformance

__all__ = ["OPENED", "local_sessions", "read_back"]

OPENED = Policy(
    network="host", protect=(), home="workspace", syscalls=("ptrace",), accept=DIMENSIONS
)
"""All that a policy can open without naming a path or a device of this machine."""


def local_sessions(policy: Policy | None = None) -> SessionFactory:
    """What makes sessions with a policy."""

    @asynccontextmanager
    async def make() -> AsyncIterator[BaseSandboxSession]:
        client = UnixLocalSandboxClient(policy=policy)
        session = await client.create()
        try:
            yield session
        finally:
            await client.delete(session)

    return make


async def attempt_all(policy: Policy) -> dict[str, tuple[str, str]]:
    """What came of each behaviour here."""
    result = await run_conformance(local_sessions(policy))
    return {one.behaviour.name: (one.verdict, one.why) for one in result}


def read_back(told: dict[str, tuple[str, str]]) -> Conformance:
    """What this program told, as outcomes."""
    return Conformance(
        Outcome(each, told[each.name][0], told[each.name][1])  # type: ignore[arg-type]  # one of three words
        for each in BEHAVIOURS
    )


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    chosen = presets.UNCONFINED if asked == "unconfined" else Policy(accept=DIMENSIONS)
    json.dump(asyncio.run(attempt_all(chosen)), sys.stdout)
