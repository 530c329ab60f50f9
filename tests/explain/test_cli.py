"""`sandyard why`, and the denials that `sandyard run` tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandyard.cli.report import option_for
from tests.cli.calling import call


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["/etc/shadow"], 1, "/etc/shadow: no\n"),
        (["/etc/passwd"], 0, "/etc/passwd: read only\n"),
        (["/dev/null"], 0, "/dev/null: yes\n"),
        (["new"], 0, "/new: yes\n"),
        (["./ptrace"], 0, "/ptrace: yes\n"),
        (["ptrace"], 1, "ptrace: no\n  rule: refused with EPERM\n"),
        (["openat"], 0, "openat: in part\n"),
        (["example.org:443"], 1, "to allow more: --net host\n"),
        (["https://example.org"], 1, "example.org:443: no\n"),
        (["--net", "host", "example.org:443"], 0, "example.org:443: yes\n"),
        (["localhost:80"], 0, "localhost:80: in part\n"),
        (["--read", "/srv", "/srv"], 0, "/srv: read only\n  rule: read-only: Policy.reads names"),
        (["/srv/\x1b[31m"], 1, "/srv/\\x1b[31m: no\n"),
    ],
)
def test_answers(words: list[str], code: int, said: str) -> None:
    done = call("why", *words)
    assert (done.returncode, done.stderr) == (code, b"")
    assert said in done.stdout.decode()


@pytest.mark.parametrize(
    "words",
    [
        [],
        [""],
        ["http://"],
        ["--read", "/no/such", "x"],
        ["--write", "/usr", "x"],
        ["--workspace", "/no/such", "x"],
        ["--workspace", ".", "--copy", ".", "x"],
        ["--no-such-option", "x"],
    ],
)
def test_bad_use_is_125(words: list[str]) -> None:
    done = call("why", *words)
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.startswith(b"sandyard: ")
    assert b"Traceback" not in done.stderr


def test_json_is_explanation() -> None:
    done = call("why", "--json", "mount")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "subject": "mount",
        "access": "none",
        "rule": "refused with EPERM",
        "grant": None,
        "fixed": False,
    }


def test_workspace_is_asked_about(top: Path) -> None:
    done = call("why", "--workspace", str(top / "ws"), ".git/config")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Policy.protect keeps" in done.stdout
    done = call("why", "--workspace", "ws", "--write", "data", "to-data/new", cwd=top)
    assert f"leads to {top}/data/new: Policy.writes names" in done.stdout.decode()
    done = call("why", "--copy", str(top / "ws"), "a/file")
    assert b"in the workspace" in done.stdout


def test_run_tells_denials(top: Path) -> None:
    command = ["--", "sh", "-c", f"cat {top}/data/file; touch '{top}/a b/x'; touch /usr/x"]
    done = call("run", "--read", str(top / "ws"), *command)
    assert done.returncode == 1
    told = [line for line in done.stderr.decode().splitlines() if line.startswith("sandyard: ")]
    assert told[-1] == "sandyard: /usr/x: read-only: /usr belongs to the system"
    told = json.loads(call("run", "--json", *command).stdout)["denials"]
    assert {"kind": "path", "subject": "/usr/x", "error": "EROFS"}.items() <= told[-1].items()


def test_run_gives_options() -> None:
    done = call("run", "--", "cat", "/srv/a b")
    line = done.stderr.decode().splitlines()[-1]
    assert line.endswith("; to allow it: --read '/srv/a b'")
    done = call(
        "run", "--", "sh", "-c", "echo 'ssh: connect to host 1.1.1.1 port 22: no' >&2; false"
    )
    assert done.stderr.decode().endswith("; to allow it: --net host\n")


def test_run_that_succeeds_is_quiet() -> None:
    done = call("run", "--", "sh", "-c", "cat /srv/x; true")
    assert (done.returncode, b"sandyard" in done.stderr) == (0, False)
    assert json.loads(call("run", "--json", "--", "true").stdout)["denials"] == []


@pytest.mark.parametrize(
    ("grant", "option"),
    [
        (None, None),
        ("Policy(protect=())", "--no-protect"),
        ("Policy(devices=('kvm',))", "--device kvm"),
        ("Policy(limits=ResourceLimits(processes=16))", "--limit processes=16"),
        ("Policy(network='host')", "--net host"),
        ("Policy(reads=('/a', '/b c'))", "--read /a --read '/b c'"),
        (f"Policy(writes=({chr(27) + '/x'!r},))", None),
    ],
)
def test_grants_become_options(grant: str | None, option: str | None) -> None:
    assert option_for(grant) == option
