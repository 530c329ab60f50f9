"""Worse hosts, and programs that are started on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from tests.house.sources import ROOT

__all__ = ["HOSTS", "Host", "ask", "run_host"]

DEGRADE: Final = str(ROOT / "tests" / "doctor" / "degrade.py")
PATIENCE_S: Final = 900


@dataclass(frozen=True)
class Host:
    """A worse host.

    Attributes:
        how: what is done to it.
        rung: what it still allows.
        says: words of the cause.
    """

    how: str
    rung: str
    says: str

    @property
    def ordinary(self) -> bool:
        """Whether its programs run as an ordinary user."""
        return os.geteuid() != 0 or self.how.startswith("nested")


HOSTS: Final = (
    Host("nested,covered_proc", "full_without_proc", "mounting (/proc)"),
    Host("no_user", "landlock_seccomp", "errno 1]"),
    Host("nested,no_user", "landlock_seccomp", "namespaces, errno 1]"),
    Host("nested,no_room", "landlock_seccomp", "namespaces, errno 28]"),
    Host("no_mounts", "landlock_seccomp", "private_mounts, errno 13]"),
    Host("container", "landlock_seccomp", "errno 1]"),
)


def command(how: str, module: str, *words: str) -> tuple[str, ...]:
    """The words that start a program of ours on a worse host."""
    return (sys.executable, DEGRADE, how, sys.executable, "-P", "-m", module, *words)


def environment() -> dict[str, str]:
    path = [part for part in (os.environ.get("PYTHONPATH"), str(ROOT)) if part]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def ask(how: str, module: str, order: object = None) -> dict[str, Any]:
    """Run a program to its end; it is told JSON and tells JSON."""
    done = subprocess.run(
        command(how, module),
        input=json.dumps(order).encode(),
        capture_output=True,
        cwd=ROOT,
        env=environment(),
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@contextmanager
def run_host(
    how: str, module: str, *words: str, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """A program for the length of a block; it is killed at its end."""
    with subprocess.Popen(
        command(how, module, *words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment() | variables,
        text=True,
    ) as program:
        try:
            yield program
        finally:
            program.kill()
