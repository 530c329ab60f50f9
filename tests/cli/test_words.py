"""What the command line says of itself, of what is refused, and of what holds a limit."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sandyard.cli.report import JsonTeller, PlainTeller
from sandyard.platform import cgroup_facts
from sandyard.resources import EnforcedLimit
from tests.cli.calling import call


@pytest.mark.parametrize("group", [[], ["snapshot"], ["supervisor"]])
def test_list_of_verbs_has_whole_sentences(group: list[str]) -> None:
    verbs = call(*group, "--help").stdout.partition(b"Commands:")[2].splitlines()
    assert len(verbs) > 2
    assert [line for line in verbs if line and not line.endswith(b".")] == []
    assert [line for line in verbs if line.endswith(b"...")] == []


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (["run"], "COMMAND..."),
        (["shell"], "SESSION [COMMAND...]"),
        (["attach"], "SESSION [TERMINAL]"),
        (["ls"], "[SESSION:PATH]"),
        (["cp"], "SOURCE... DESTINATION"),
        (["rm"], "[SESSION...]"),
        (["snapshot", "prune"], "[HISTORY]"),
        (["supervisor", "stop"], ""),
    ],
    ids=" ".join,
)
def test_help_calls_arguments_by_their_names(words: list[str], usage: str) -> None:
    said = call(*words, "--help").stdout.decode()
    head = " ".join(["Usage: sandyard", *words, "[OPTIONS]", usage])
    assert said.partition("\n")[0] == head.rstrip()
    assert ("Arguments:" in said) is bool(usage)
    for name in usage.translate(str.maketrans("", "", "[].")).split():
        assert f"\n  {name}  " in said
    assert [line for line in said.splitlines() if "<str>" in line or "list[" in line] == []
    assert "[required]" not in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("option", ["--copy", "--workspace"])
def test_what_may_not_be_read_is_named_once(tmp_path: Path, option: str) -> None:
    tmp_path.chmod(0)
    done = call("run", option, str(tmp_path), "--", "true", env={"TMPDIR": "/var/tmp"})
    tmp_path.chmod(0o700)
    assert done.returncode == 125
    assert b": Permission denied [" in done.stderr
    assert done.stderr.count(os.fsencode(tmp_path)) == 1
    assert b"Errno" not in done.stderr


def test_what_holds_each_process_alone_is_told() -> None:
    has_group = cgroup_facts(tried=True).parent_of("memory") is not None
    words = ("--limit", "memory=64M", "--", "true")
    told = call("run", *words).stderr
    if has_group:
        assert told == b""
    else:
        start = (
            b"sandyard: limit memory (67108864 bytes), by rlimit per process: each process alone"
        )
        assert told.startswith(start)
        assert told.count(b"\n") == 1
    assert call("run", "-q", *words).stderr == b""
    assert call("run", "--json", *words).stderr == b""


def test_limit_of_each_process_is_told_unless_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    held = EnforcedLimit(
        limit="memory",
        value=2**26,
        by="rlimit per process",
        scope="process",
        strength="partial",
        why="each process alone is held to it",
    )
    whole = replace(held, strength="enforced")
    together = replace(held, scope="session")
    for teller in (PlainTeller(quiet=True), JsonTeller()):
        teller.limited((held,))
    PlainTeller().limited((whole, together))
    assert capfd.readouterr() == ("", "")
    PlainTeller().limited((held,))
    assert capfd.readouterr().err == (
        "sandyard: limit memory (67108864 bytes), by rlimit per process: "
        "each process alone is held to it\n"
    )
