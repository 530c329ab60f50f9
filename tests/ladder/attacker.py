"""A host program: makes attacks in sessions on whatever rung its machine allows; a child of a test.

It reads an order as JSON, lays bait, makes each attack without a wall and then in a session, does
honest work, and prints what came of it as JSON. It is started on a host that was made worse.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from sandyard import Manifest, Policy, UnixLocalSandboxClient, UnixLocalSandboxSession
from tests.escape.attacks import Attack
from tests.escape.bait import HOST_SECRETS, SECRET, Bait, lay_bait
from tests.escape.runner import exec_attack, make_outcome, run_control
from tests.escape.work import WORK, run_work
from tests.ladder.claims import ATTACKS

PUBLIC_PYTHON = "/usr/bin/python3"


async def confined(client: UnixLocalSandboxClient, bait: Bait, attack: Attack) -> dict[str, Any]:
    """One attack in a session of its own."""
    session = await open_session(client, bait, attack)
    try:
        async with session:
            result = await exec_attack(session, bait, attack)
            outcome = make_outcome(bait, result.exit_code, result.stdout, result.stderr)
            alive = await session.exec("echo still here")
            return {"escapes": outcome.escapes, "said": outcome.said, "alive": alive.exit_code == 0}
    finally:
        await client.delete(session)


async def open_session(
    client: UnixLocalSandboxClient, bait: Bait, attack: Attack | None
) -> UnixLocalSandboxSession:
    bait.reset()
    names = () if attack is None else attack.reads
    policy = Policy(accept=("write",), reads=tuple(str(bait.base / name) for name in names))
    # Root's commands can be given only a workspace that the library made.
    mine = os.geteuid() != 0
    manifest = Manifest(root=str(bait.workspace)) if mine else None
    return await client.create(manifest=manifest, policy=policy)


async def describe(client: UnixLocalSandboxClient, bait: Bait, works: list[str]) -> dict[str, Any]:
    """The rung, what it claims, and whether honest work is done on it."""
    session = await open_session(client, bait, None)
    done = {}
    try:
        async with session:
            report = session.confinement
            assert report is not None
            for work in WORK:
                if work.name in works:
                    try:
                        await run_work(session, work)
                        done[work.name] = ""
                    except AssertionError as error:
                        done[work.name] = str(error)
            return {"report": report.document(), "work": done}
    finally:
        await client.delete(session)


def main() -> None:
    order = json.loads(sys.stdin.read())
    for name in HOST_SECRETS:
        os.environ[name] = SECRET
    if os.geteuid() == 0 and order["rung"] == "landlock_seccomp":
        # Root's commands run as somebody else, who may not walk into root's home.
        sys.executable = PUBLIC_PYTHON
    client = UnixLocalSandboxClient()
    told: dict[str, Any] = {"uid": os.geteuid(), "attacks": {}}
    with lay_bait() as bait:
        told |= asyncio.run(describe(client, bait, order["work"]))
        for name in order["attacks"]:
            control = run_control(bait, ATTACKS[name])
            told["attacks"][name] = {"control": control.escapes} | asyncio.run(
                confined(client, bait, ATTACKS[name])
            )
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
