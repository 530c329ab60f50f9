"""Patterns in the language of .gitignore: compared with what Git itself says."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from sandyard.errors import ManifestError
from sandyard.manifest import LocalDir
from sandyard.manifest.selecting import compile_rules, rules_of_text

PATHS = (
    "a.log", "b/a.log", "b/c/a.log", "build/x", "b/build/x", "b/build/c/x", "keep.log", "b/keep.log",
    "foo/bar", "x/foo/bar", "foo/x/bar", "foo/x/y/bar", "#hash", "!bang", "star*name", "starryname",
    "a b", "trail ", "trail", ".hidden", "b/.hidden", "[x]", "x", "éé/üü", "abc", "a-c", "sub/deep/x.o",
)  # fmt: skip
PATTERNS = (
    "*.log\n!keep.log", "build/", "/build", "build/x", "foo/bar", "**/bar", "foo/**", "foo/**/bar",
    "foo/*/bar", "**/foo/bar", "\\#hash", "\\!bang", "# comment\n\n*.o", "star\\*name", "a b",
    "trail\\ ", "trail ", "[ax]*", "[!a]bc", "[^a]*", "a[a-c-]c", "[x]", "\\[x\\]", "?",
    "*\n!*/\n!a.log", "éé/*", "*.log\n!b/*.log\nb/c", "/*\n!/foo", ".*", "b/**/x", "[x", "**", "/",
    "x/**/bar", "foo/", "a.log\r",
)  # fmt: skip


@pytest.mark.parametrize("text", PATTERNS)
def test_as_git_says(tmp_path: Path, text: str) -> None:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "init", "-q", tmp_path], check=True, env=environment)
    (tmp_path / ".gitignore").write_text(text + "\n", encoding="utf-8", newline="")
    for path in PATHS:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if not (tmp_path / path).exists():
            (tmp_path / path).touch()
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--others", "--exclude-standard"],
        cwd=tmp_path, capture_output=True, check=True, env=environment,
    )  # fmt: skip
    kept = set(os.fsdecode(listed.stdout).split("\0")) - {"", ".gitignore"}
    rules = rules_of_text(text + "\n")

    def ignored(path: str) -> bool:
        names = tuple(path.split("/"))
        ways = range(1, len(names) + 1)
        return any(rules.verdict(names[:end], is_dir=end < len(names)) for end in ways)

    files = {path for path in PATHS if (tmp_path / path).is_file()}
    assert {path for path in files if not ignored(path)} == kept


def test_no_pattern_takes_for_ever() -> None:
    rules = compile_rules(["a*" * 60 + "b", "/".join(["**"] * 40) + "/nope", "/**/x" * 60])
    before = time.process_time()
    for length in (10, 255):
        assert rules.verdict(("a" * length,), is_dir=False) is None
        assert rules.verdict(("x",) * 50, is_dir=False) is None
    assert time.process_time() - before < 5  # exponential work would not end at all


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        ("*.log", "a list"),
        ([3], "is a str"),
        (["a/../b"], "'..'"),
        (["/"], "names nothing"),
        (["x" * 5_000], "characters"),
        (["a\0"], "NUL"),
    ],
)
def test_what_is_no_pattern(patterns: object, said: str) -> None:
    with pytest.raises(ManifestError, match=said):
        LocalDir(src="x", exclude=patterns)  # type: ignore[arg-type]
