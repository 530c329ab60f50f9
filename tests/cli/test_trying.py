"""`sandyard create --try` and `--layered`: what a session that stays is laid over, and what it changed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.calling import call
from tests.overlays.conftest import base, contents
from tests.supervisor.conftest import home

__all__ = ["base", "home"]

# Each test starts several programs, one after the other.
pytestmark = pytest.mark.timeout(240)


def lines(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    return done.stdout.decode().splitlines()


def test_changes_land_when_asked(home: Path, base: Path) -> None:
    before = contents(base)
    work = "rm tool; echo four >> notes; echo x > .envrc; mkfifo pipe; printf 'e\\033[m' > $(printf 'e\\033')"
    assert call("create", "--try", "--name", "web", cwd=base).stdout == b"web\n"
    assert call("exec", "web", "--", "sh", "-c", work).returncode == 0
    told = call("diff", "web", "--text")
    assert told.returncode == 1
    assert lines(told)[:5] == ["D tool", "A .envrc", r"A e\x1b", "M notes", "A pipe"]
    assert "+four" in lines(told)
    assert b".envrc would be run or obeyed outside: direnv" in told.stderr

    refused = call("apply", "web")
    assert (refused.returncode, refused.stdout) == (125, b"")
    assert b"everything, with those: sandyard apply web . .envrc\n" in refused.stderr
    (base / "notes").write_text("mine\n")
    refused = call("apply", "--json", "web", "notes")
    (said,) = map(json.loads, lines(refused))
    assert (refused.returncode, said["applied"]) == (125, [])
    assert said["error"]["context"]["reason"] == "conflict"
    assert said["error"]["context"]["paths"] == ["notes"]
    assert contents(base).keys() == before.keys()

    assert lines(call("apply", "--overwrite", "web", "notes")) == ["notes"]
    assert (base / "notes").read_text() == "one\ntwo\nthree\nfour\n"
    partly = call("apply", "web", ".", ".envrc")
    assert (partly.returncode, lines(partly)) == (1, [".envrc", r"e\x1b", "tool"])
    assert b"pipe: left out" in partly.stderr
    assert not (base / "tool").exists()


def test_list_tells_what_sessions_run_on(home: Path, base: Path) -> None:
    made = {
        "plain": ["create", "--workspace", str(base)],
        "overlay": ["create", "--try", "--workspace", str(base)],
        "layers": ["create", "--layered"],
        "copy": ["fork", "plain"],
    }
    for name, words in made.items():
        done = call(*words, "--name", name)
        assert done.returncode == 0, done.stderr
    told = {line.split()[0]: line for line in lines(call("ls"))}
    assert told["plain"].endswith(f"  {base}")
    assert told["overlay"].endswith(f"  {base} (an overlay: changes are kept apart)")
    assert told["layers"].endswith(" (inside; private layers)")
    assert told["copy"].endswith(f"  {base} (inside; a private copy)")
    listed = map(json.loads, lines(call("ls", "--json")))
    assert {one["name"]: one["basis"] for one in listed} == {name: name for name in made}


def test_layered_fork_copies_changes(home: Path, base: Path) -> None:
    refused = call("create", "--layered", "--workspace", str(base))
    assert (refused.returncode, refused.stdout) == (125, b"")
    assert b"--workspace and --layered exclude each other" in refused.stderr
    assert call("create", "--layered", "--copy", str(base), "--name", "web").returncode == 0
    (made,) = map(json.loads, lines(call("fork", "web", "--json", "--name", "other")))
    assert made["forked"] in {"changes", "layers"}
    work = "cat notes; echo mine > notes; rm -r src"
    assert call("exec", "other", "--", "sh", "-c", work).stdout == b"one\ntwo\nthree\n"
    assert call("exec", "web", "--", "cat", "notes", "src/main.py").stdout == (
        b"one\ntwo\nthree\nprint('hello')\n"
    )
    assert call("rm", "web").returncode == 0  # the fork lies upon what stays
    assert call("cat", "other:notes", "other:tool").stdout == b"mine\n#!/bin/sh\n"


def test_discard_begins_anew(home: Path, base: Path) -> None:
    before = contents(base)
    words = ("create", "--try", "--workspace", str(base), "--name", "web")
    assert call(*words).returncode == 0
    assert call("exec", "-d", "--name", "runs", "web", "--", "sleep", "600").returncode == 0
    assert call("exec", "web", "--", "sh", "-c", "echo x > fresh; rm -r src").returncode == 0
    (said,) = map(json.loads, lines(call("diff", "web", "--json")))
    assert [(each["kind"], each["path"]) for each in said["entries"]] == [
        ("deleted", "src"),
        ("added", "fresh"),
    ]
    completing = {"_SANDYARD_COMPLETE": "complete_bash", "COMP_CWORD": "3"}
    asked = call(env={**completing, "COMP_WORDS": "sandyard apply web fr"})
    assert lines(asked) == ["fresh"]
    assert call("discard", "web").returncode == 0
    again = call("diff", "web")
    assert (again.returncode, again.stdout) == (0, b"")
    listed = call("exec", "web", "--", "sh", "-c", "ls; pgrep sleep")
    assert lines(listed) == sorted(before.keys() - {"src/main.py", "src/deep", "src/deep/old"})
    assert call("rm", "web").returncode == 0
    assert contents(base) == before
