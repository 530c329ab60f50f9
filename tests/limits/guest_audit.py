#!/usr/bin/python3.11
"""The first process of an emulated machine with its audit on or off: what sessions are told of Landlock's denials.

It runs in the guest (see emulator.py), prints one line of JSON and powers the machine off.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from guest import Answers, build_root, power_off  # type: ignore[import-not-found]  # beside it there

if TYPE_CHECKING:
    from sandyard import Denial, Narrowing

QUIET = """
import os, sys
try:
    os.open(sys.argv[1], int(sys.argv[2]), 0o600)
except OSError as error:
    sys.exit(error.errno)
"""
"""Opens a file, and says nothing of what became of it."""

ODD = 'odd "name" path="x"\n'


def told(denials: Iterable[Denial]) -> list[list[object]]:
    return [[each.subject, each.operation, each.error, each.rule, each.grant] for each in denials]


async def use_session() -> Answers:
    """A session in which Landlock is what refuses: a narrowed command's own layer, or the whole wall."""
    from sandyard import Narrowing, Policy, UnixLocalSandboxClient  # noqa: PLC0415
    from sandyard.policy import DIMENSIONS  # noqa: PLC0415

    client = UnixLocalSandboxClient(policy=Policy(accept=DIMENSIONS))
    session = await client.create()
    answers: Answers = {}
    async with session:
        top = session.state.manifest.root
        report = session.confinement
        answers["rung"] = None if report is None else report.rung
        answers["root"] = top
        for name in ("kept", ODD):
            await session.write(name, b"content")

        async def quiet(path: str, flags: int, narrow: Narrowing | None = None) -> list[object]:
            words = ("python3", "-c", QUIET, path, str(flags))
            began = time.monotonic()
            result = await session.exec(*words, shell=False, narrow=narrow)
            took = time.monotonic() - began - result.duration_s
            return [result.exit_code, told(result.denials), result.stderr.decode(), took]

        less = Narrowing(writes=())
        answers["made"] = await quiet("new", os.O_CREAT | os.O_WRONLY, less)
        answers["written"] = await quiet("kept", os.O_WRONLY, less)
        answers["odd"] = await quiet(ODD, os.O_WRONLY, less)
        answers["outside"] = await quiet("/root/secret", os.O_RDONLY)
        answers["allowed"] = await quiet("kept", os.O_WRONLY)
        answers["missing"] = await quiet("missing", os.O_RDONLY)
        result = await session.exec("echo x > kept", narrow=less)
        answers["worded"] = told(result.denials)
        flood = "while :; do : < /root/secret; done 2>/dev/null"
        if answers["rung"] != "full":
            noise = asyncio.create_task(session.exec(f"timeout 3 sh -c '{flood}' || true"))
            await asyncio.sleep(1)
            late = time.monotonic()
            await asyncio.sleep(0.1)
            answers["late"] = time.monotonic() - late
            await noise
    await client.delete(session)
    return answers


def main() -> None:
    answers: Answers = {}
    with power_off(answers):
        build_root()
        os.environ.update(HOME="/root", PATH="/usr/bin", TMPDIR="/tmp")
        Path("/root/secret").write_text("secret")
        from sandyard.platform.auditing import audit_standing  # noqa: PLC0415
        from sandyard.platform.host import host_facts  # noqa: PLC0415

        answers["standing"] = audit_standing()
        answers["abi"] = host_facts(os.environ).landlock_abi
        answers["full"] = asyncio.run(use_session())
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
        answers["bare"] = asyncio.run(use_session())
        answers["open"] = sorted(
            os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")[:-1]
        )


if __name__ == "__main__":
    main()
