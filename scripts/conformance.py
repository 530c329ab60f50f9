#!/usr/bin/env python3
"""Writes docs/conformance.md: what each kind of session, and the OpenAI Agents SDK's own, shows of the suite.

scripts/conformance.py           tries them all, which takes minutes, and writes the file
scripts/conformance.py --check   tries them all, and exits with 1 if the file says something else

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
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sandyard.testing import BEHAVIOURS, Conformance, Outcome, Promise, run_conformance  # noqa: E402  # after the path to them
from tests.conformance.held_session import held_sessions  # noqa: E402  # after the path to them
from tests.conformance.local_session import OPENED, local_sessions, read_back  # noqa: E402  # after the path to them
from tests.conformance.sdk_session import make_sdk_session  # noqa: E402  # after the path to them
from tests.ladder.hosts import ask  # noqa: E402  # after the path to them
from tests.supervisor.living import end_supervisor, remote  # noqa: E402  # after the path to them

PAGE = ROOT / "docs" / "conformance.md"
SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER: processes whose parents have ended become children of this one."""
PATIENCE_S = 6

HEAD = """\
# Conformance

`sandyard.testing` holds {count} behaviours that any session must show; see [the guide](guides/testing.md).
Here is how many of them each kind of session showed, by what they promise, when `scripts/conformance.py`
tried them all as {user} on Linux and wrote this page.

| Column | Sessions |
|---|---|
{kinds}

"agents" was tried through its own public methods: a value of the one library is changed into the same
value of the other, an error into the one of the same name. What "Unconfined" does not show is what the
wall is for.

"""

RUNGS = (("Without /proc", "nested,covered_proc"), ("Lowest", "nested,no_user"))
"""Rungs, and what is done to a host that has none better."""

KINDS = {
    "Full": "`UnixLocalSandboxSession` on the highest [rung](guides/confinement.md), which every run of the tests tries again",
    "Without /proc": "the same on the rung without a `/proc` of its own, of an ordinary user",
    "Lowest": "the same on the rung of Landlock and seccomp alone, of an ordinary user",
    "Unconfined": "the same with `presets.UNCONFINED`: no wall, and commands are the user who owns the system's files",
    "Opened": "the same with all that a policy can open without naming a path: `{opened}`",
    "Held": "of another process: those that the supervisor holds, as `sandyard create` makes them",
    "agents": "the Unix-local sandbox of openai-agents {version}, which confines nothing",
}
OPENED_WORDS = (
    'Policy(network="host", protect=(), home="workspace", syscalls=("ptrace",), accept=DIMENSIONS)'
)


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
    return f"- `{outcome.behaviour.name}`: {says}\n"


def of_promise(outcomes: Iterable[Outcome], promise: Promise) -> list[Outcome]:
    """Those outcomes whose behaviours keep one promise."""
    return [one for one in outcomes if one.behaviour.promise is promise]


def said(promise: Promise) -> str:
    """A promise at the beginning of a line."""
    return promise.value[0].upper() + promise.value[1:]


def table(results: Mapping[str, Conformance]) -> str:
    """How many behaviours each kind showed, by promise."""
    rows = [
        f"| Promise | Behaviours | {' | '.join(results)} |\n",
        f"|---|---|{'---|' * len(results)}\n",
    ]
    for promise in Promise:
        counts = [sum(one.promise is promise for one in BEHAVIOURS)]
        counts += [len(of_promise(result.passed, promise)) for result in results.values()]
        rows.append(f"| {said(promise)} | {' | '.join(map(str, counts))} |\n")
    counts = [len(BEHAVIOURS), *(len(result.passed) for result in results.values())]
    return "".join(rows) + f"| All | {' | '.join(map(str, counts))} |\n"


def lacking(kind: str, result: Conformance) -> str:
    """What one kind did not show."""
    if len(result.passed) == len(result):
        return ""
    found = {promise: of_promise(result.failed, promise) for promise in Promise}
    parts = [f"\n## Not shown: {kind}\n"]
    for promise, failed in found.items():
        parts += [f"\n{said(promise)}:\n\n", *map(line, failed)] if failed else []
    wanted: dict[str, list[str]] = {}
    for one in result.not_offered:
        wanted.setdefault(one.why, []).append(f"`{one.behaviour.name}`")
    if wanted:
        parts.append(
            "\nWhat wants something that these sessions have no method or argument for:\n\n"
        )
        parts += [f"- `{what}`: {', '.join(names)}\n" for what, names in wanted.items()]
    return "".join(parts)


def write_page(results: Mapping[str, Conformance]) -> str:
    """The whole page."""
    words = {"version": version("openai-agents"), "opened": OPENED_WORDS}
    kinds = "\n".join(f"| {kind} | {text.format(**words)} |" for kind, text in KINDS.items())
    user = "root" if os.geteuid() == 0 else "an ordinary user"
    head = HEAD.format(count=len(BEHAVIOURS), user=user, kinds=kinds)
    return head + table(results) + "".join(lacking(*each) for each in results.items())


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


def try_all() -> dict[str, Conformance]:
    """Try all kinds, in the order of the columns."""
    results = {"Full": asyncio.run(run_conformance(local_sessions()))}
    results |= {rung: read_back(ask(how, "tests.conformance.local_session")) for rung, how in RUNGS}
    told = ask("nested", "tests.conformance.local_session", "unconfined")
    results["Unconfined"] = read_back(told)
    results["Opened"] = asyncio.run(run_conformance(local_sessions(OPENED)))
    results["Held"] = try_held()
    results["agents"] = asyncio.run(run_conformance(make_sdk_session, patience=PATIENCE_S))
    return results


def main() -> int:
    """Write the page, or compare."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    try:
        page = write_page(try_all())
    finally:
        end_leftovers()
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page else 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
