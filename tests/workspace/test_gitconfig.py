"""Git configuration read as data: as Git itself reads it, and never an exception."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard.workspace.gitconfig import executing_keys, parse_config

SAMPLE = """
; a comment
[core]
\trepositoryformatversion = 0
\tHooksPath = "../my hooks" ; where
\tbare
[Remote "origin"] url = https://example.org/x # trailing
\tfetch = +refs/heads/*:refs/remotes/origin/*
[filter "a.b \\"c\\""]
\tclean = sed \\"s/a/b/\\" \\\\ x
\tsmudge = one \\
two
[alias]
\tst = status
\tx = !sh -c 'evil'
[branch.main] remote = origin
[include]
\tpath = ../else.cfg
"""


def listed(text: str, path: Path) -> list[tuple[str, str]]:
    """What Git says of it."""
    path.write_text(text)
    done = subprocess.run(
        ["git", "config", "--file", str(path), "--list", "--null"],
        capture_output=True,
        check=True,
        text=True,
    )
    pairs = (item.partition("\n") for item in done.stdout.split("\0") if item)
    return [(key, value if mark else "true") for key, mark, value in pairs]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_agrees(tmp_path: Path) -> None:
    assert list(parse_config(SAMPLE)) == listed(SAMPLE, tmp_path / "config")


def test_what_runs() -> None:
    assert executing_keys(SAMPLE) == (
        ("core.hookspath", "../my hooks"),
        ('filter.a.b "c".clean', 'sed "s/a/b/" \\ x'),
        ('filter.a.b "c".smudge', "one two"),
        ("alias.x", "!sh -c 'evil'"),
        ("include.path", "../else.cfg"),
    )


@pytest.mark.parametrize(
    "text",
    ["[core] sshCommand=x", "[CORE]\nSSHCOMMAND = x", '[credential "https://h"] helper = !x',
     "[core]\r\n\tfsmonitor = x\r\n", '[gpg "ssh"] program = x', '[includeIf "gitdir:/"] path=x',
     "[core] [diff] external = x", "[core]\nfsmonitor=\\\nx"],
)  # fmt: skip
def test_spellings_are_seen(text: str) -> None:
    ((_, value),) = executing_keys(text)
    assert value.lstrip("!") == "x"


@given(st.text(alphabet='[]="\\#;.!a \n\r\t', max_size=60) | st.text(max_size=60))
def test_anything_is_read(text: str) -> None:
    for key, value in parse_config(text):
        assert key
        assert isinstance(value, str)
