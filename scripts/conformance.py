#!/usr/bin/env python3
"""Writes docs/conformance.md: what held sessions, and the OpenAI Agents SDK's own sandbox, show of the suite.

scripts/conformance.py           tries both, which takes minutes, and writes the file
scripts/conformance.py --check   tries both, and exits with 1 if the file says something else

They are tried as the user who calls this, with a supervisor of this script's own. Whatever commands
leave running is ended.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sandyard.testing import BEHAVIOURS, Conformance, Outcome, Promise, run_conformance  # noqa: E402  # after the path to them
from tests.conformance.held_session import held_sessions  # noqa: E402  # after the path to them
from tests.conformance.sdk_session import make_sdk_session  # noqa: E402  # after the path to them
from tests.supervisor.living import end_supervisor, remote  # noqa: E402  # after the path to them

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

"Held" is what sessions of another process passed, tried likewise: those that the supervisor holds, as
`sandyard create` makes them. {held}

"Not offered" is what it has no method or argument for. This page is made by `scripts/conformance.py`.

| Promise | Behaviours | Held | Passed there | Failed there | Not offered there |
|---|---|---|---|---|---|
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


def of_promise(outcomes: Iterable[Outcome], promise: Promise) -> list[Outcome]:
    """Those outcomes whose behaviours keep one promise."""
    return [one for one in outcomes if one.behaviour.promise is promise]


def sentence(held: Conformance) -> str:
    """What held sessions do not show."""
    left = [(one, "not offered") for one in held.not_offered]
    left += [(one, "failed") for one in held.failed]
    if not left:
        return "They show all."
    said = ", ".join(f"`{one.behaviour.name}` ({verdict})" for one, verdict in left)
    return f"All but these:\n{said}."


def write_page(result: Conformance, held: Conformance) -> str:
    """The whole page."""
    user = "root" if os.geteuid() == 0 else "an ordinary user"
    head = HEAD.format(
        count=len(BEHAVIOURS), version=version("openai-agents"), user=user, held=sentence(held)
    )
    rows, parts = [], []
    for promise in Promise:
        verdicts = (result.passed, result.failed, result.not_offered)
        counts = [len(of_promise(found, promise)) for found in verdicts]
        shown = (sum(counts), len(of_promise(held.passed, promise)), *counts)
        said = promise.value[0].upper() + promise.value[1:]
        rows.append(f"| {said} | {' | '.join(map(str, shown))} |\n")
        if failed := of_promise(result.failed, promise):
            parts.append(f"\n### {said}\n\n" + "".join(f"{line(one)}\n" for one in failed))
    return head + "".join(rows) + "\n## What fails there\n" + "".join(parts)


def try_held() -> Conformance:
    """Try the sessions of a supervisor, which is started for this and ended."""
    with tempfile.TemporaryDirectory() as place:
        for variable, name in (("XDG_RUNTIME_DIR", "run"), ("XDG_STATE_HOME", "state")):
            os.mkdir(os.path.join(place, name), 0o700)
            os.environ[variable] = os.path.join(place, name)
        try:
            return asyncio.run(run_conformance(held_sessions(remote())))
        finally:
            end_supervisor()


def main() -> int:
    """Write the page, or compare."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    try:
        held = try_held()
        result = asyncio.run(run_conformance(make_sdk_session, patience=PATIENCE_S))
    finally:
        end_leftovers()
    page = write_page(result, held)
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page else 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
