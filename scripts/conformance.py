#!/usr/bin/env python3
"""Writes docs/conformance.md: what the OpenAI Agents SDK's own Unix-local sandbox shows of the suite.

scripts/conformance.py           tries it, which takes a minute, and writes the file
scripts/conformance.py --check   tries it, and exits with 1 if the file says something else

It is tried as the user who calls this. Whatever its commands leave running is ended.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sandyard.testing import BEHAVIOURS, Conformance, Outcome, Promise, run_conformance  # noqa: E402  # after the path to them
from tests.conformance.sdk_session import make_sdk_session  # noqa: E402  # after the path to them

PAGE = ROOT / "docs" / "conformance.md"
SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER: processes whose parents have ended become children of this one."""
PATIENCE_S = 6

HEAD = """\
# Conformance

`sandyard.testing` holds {count} behaviours that any session must show; see [the guide](guides/testing.md).
All of them pass on `UnixLocalSandboxSession`, on every run of the tests. Beside it stands what the
Unix-local sandbox of openai-agents {version} does, tried as {user} on Linux, through its own public
methods. A value of the one library is changed into the same value of the other, an error
into the one of the same name.

Sessions that the supervisor holds, as `sandyard create` makes them, show all but one: they offer no
`watch`.

"Not offered" is what it has no method or argument for. This page is made by `scripts/conformance.py`.

| Promise | Behaviours | Passed there | Failed there | Not offered there |
|---|---|---|---|---|
"""


def end_leftovers() -> None:
    """End every process that is left beneath this one."""
    while True:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        if not children:
            return
        for child in map(int, children):
            # A thread of asyncio's may have waited for it meanwhile.
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def line(outcome: Outcome) -> str:
    """One behaviour."""
    says = outcome.behaviour.says.replace("``", "`")
    return f"- `{outcome.behaviour.name}`: {says}"


def write_page(result: Conformance) -> str:
    """The whole page."""
    user = "root" if os.geteuid() == 0 else "an ordinary user"
    head = HEAD.format(count=len(BEHAVIOURS), version=version("openai-agents"), user=user)
    rows, parts = [], []
    for promise in Promise:
        of = {
            verdict: [one for one in found if one.behaviour.promise is promise]
            for verdict, found in (
                ("passed", result.passed),
                ("failed", result.failed),
                ("not offered", result.not_offered),
            )
        }
        counts = [len(of[verdict]) for verdict in ("passed", "failed", "not offered")]
        said = promise.value[0].upper() + promise.value[1:]
        rows.append(f"| {said} | {sum(counts)} | {' | '.join(map(str, counts))} |\n")
        if of["failed"]:
            parts.append(f"\n### {said}\n\n" + "".join(f"{line(one)}\n" for one in of["failed"]))
    return head + "".join(rows) + "\n## What fails there\n" + "".join(parts)


def main() -> int:
    """Write the page, or compare."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    try:
        result = asyncio.run(run_conformance(make_sdk_session, patience=PATIENCE_S))
    finally:
        end_leftovers()
    page = write_page(result)
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page else 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
