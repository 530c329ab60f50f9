"""A program that is killed while it forks loses no file, and leaves what the next one clears away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

from sandyard.workspace.layered_place import LayeredPlace, changes_path
from sandyard.workspace.lease import Lease
from sandyard.workspace.sweep import sweep
from tests.house.sources import ROOT
from tests.layered.conftest import assert_nothing_left, state_place

PROGRAM = """
import json, os, signal, sys, threading
from sandyard.workspace.layered_fork import make_point
from sandyard.workspace.root import WorkspaceRoot
from tests.layered.test_crashes import taken


def dies(name, left):
    whole = getattr(os, name)

    def counted(*args, **kwargs):
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*args, **kwargs)

    setattr(os, name, counted)


def run(session, fork, how, where, left):
    (_, place), (_, target) = taken(session, kept=True), taken(fork, kept=False)
    root = WorkspaceRoot(os.open(place.upper, os.O_RDONLY), place.upper, owned=False)
    dies(where, left)
    if how == "freeze":
        names = place.freeze()
    else:
        asked = {"before": None, "excluded": frozenset(), "stopped": threading.Event()}
        names = make_point(root, place=place, **asked).names
    target.begin(names)
    os._exit(0)


for case in json.loads(sys.argv[1]):
    pid = os.fork()
    if pid == 0:
        run(*case)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""

CASES = [
    (how, name, left)
    for how in ("freeze", "copy")
    for name, most in (("mkdir", 7), ("rename", 3), ("open", 10), ("chmod", 1), ("utime", 1))
    for left in range(most)
]
"""Calls to the kernel on the way of a fork in which it is killed, and how many of them come before."""


def taken(session: str, *, kept: bool) -> tuple[Lease, LayeredPlace]:
    """The lease of a session, and its place."""
    state = str(state_place())
    path = changes_path(state, session)
    lease = Lease.take(state, session, root=path, owned=False, kept=kept)
    return lease, LayeredPlace(lease)


def contents(place: LayeredPlace) -> dict[str, str]:
    """What a session sees of files, found out without a mount: nothing was deleted in these."""
    seen: dict[str, str] = {}
    names = place.prepare()
    for top in (*(place.store.tree(name) for name in reversed(names)), place.upper):
        for path in sorted(Path(top).rglob("*")):
            if path.is_file():
                seen[str(path.relative_to(top))] = path.read_text()
    return seen


def test_killed_fork_loses_nothing() -> None:
    """The forked session is a kept one, of which no file may go; the fork was nobody's yet."""
    orders = []
    for case in CASES:
        session, fork = f"a{str(uuid4())[1:]}", f"b{str(uuid4())[1:]}"
        lease, place = taken(session, kept=True)
        place.prepare()
        (Path(place.upper) / "dir").mkdir()
        (Path(place.upper) / "dir/file").write_text(session)
        lease.keep()
        orders.append((session, fork, *case))
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(orders)],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    codes = told.stdout.decode().split()
    assert {*codes} <= {str(-signal.SIGKILL), "0"}, told.stderr.decode()
    assert codes.count(str(-signal.SIGKILL)) >= len(CASES) // 2
    sweep(str(state_place()))
    assert {name[0] for name in os.listdir(state_place() / "sessions")} == {"a"}
    for session, _, *how in orders:
        lease, place = taken(session, kept=True)
        assert contents(place) == {"dir/file": session}, how
        place.remove()
        lease.remove()
    assert_nothing_left()
