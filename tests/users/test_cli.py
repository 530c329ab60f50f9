"""`--user` of the command line: whom a command of `run`, `exec` and `shell` is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.calling import call
from tests.supervisor.conftest import home
from tests.supervisor.test_terminal import OuterTerminal

__all__ = ["home"]

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

WHO = ("sh", "-c", "id -un; echo $HOME")
REVIEWER = b"reviewer\n/home/reviewer\n"


def test_commands_name_their_user(home: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"users": [{"name": "reviewer"}]}))
    done = call("run", "--manifest", str(manifest), "--user", "reviewer", *WHO)
    assert (done.returncode, done.stdout) == (0, REVIEWER), done.stderr
    done = call("run", "--user", "reviewer", *WHO)
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"reviewer" in done.stderr
    assert call("create", "--name", "web", "--manifest", str(manifest)).returncode == 0
    assert call("exec", "-u", "reviewer", "web", *WHO).stdout == REVIEWER
    assert call("exec", "web", *WHO).stdout == b"agent\n/home/agent\n"
    assert call("exec", "--user", "nobody", "web", *WHO).returncode == 125
    name = call("exec", "-d", "--user", "reviewer", "web", *WHO).stdout.decode().strip()
    assert call("logs", "-f", "web", name).stdout == REVIEWER
    with OuterTerminal("shell", "--user", "reviewer", "web", "sh", "-c", "id -un; exit 7") as outer:
        outer.wait_for(b"reviewer")
        assert outer.wait() == 7
