"""Numbers, names and patterns that nobody sends by mistake end in a typed error, and soon."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event

import pytest

from sandyard.errors import (
    ApplyPatchDiffError,
    ArgumentError,
    WorkspaceArchiveWriteError,
)
from sandyard.patching import apply_diff, parse_unified, read_operations
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.extract import hydrate_workspace
from sandyard.workspace.files import append, read_range, write
from sandyard.workspace.patches import carry_out
from sandyard.workspace.patterns import compile_glob
from tests.archive.making import END, header, pax


def test_sparse_files_fit_a_file_system(root: WorkspaceRoot) -> None:
    told = (b"GNU.sparse.map", b""), (b"GNU.sparse.size", b"9" * 20)
    with pytest.raises(WorkspaceArchiveWriteError) as caught:
        hydrate_workspace(root, pax(*told) + header(b"file") + END, None, Event())
    assert caught.value.context["reason"] == "corrupt map of a sparse file"


def test_attributes_with_a_nul_are_dropped(root: WorkspaceRoot) -> None:
    told = (b"SCHILY.xattr.user.a\0b", b"value")
    report = hydrate_workspace(root, pax(told) + header(b"file") + END, None, Event())
    assert [note.path for note in report.dropped] == ["file"]


def test_lone_surrogates_are_no_text(root: WorkspaceRoot, base: Path) -> None:
    made = {"type": "create_file", "path": "file", "diff": "+\ud800"}
    with pytest.raises(ApplyPatchDiffError):
        carry_out(root, read_operations(made), apply_diff)
    assert not (base / "file").exists()


HEAD = "--- a/file\n+++ b/file\n"


@pytest.mark.parametrize(
    "hunk",
    [
        f"@@ -{'1' * 5000} +1 @@\n",
        "@@ -one +two @@\n-a\n+b\n",
        "@@ -1 +1 @@\n-a\n+b\n+lost\n",
        "@@ -1 +1 @@\n-a\n+b\n-lost\n",
    ],
)
def test_no_line_of_a_diff_is_lost(hunk: str) -> None:
    with pytest.raises(ApplyPatchDiffError, match=r"Invalid Line|more lines"):
        parse_unified(HEAD + hunk)


def test_a_signature_is_no_change() -> None:
    mail = "From: a\n\n- a list\n+ and more\n\n" + HEAD + "@@ -1 +1 @@\n-a\n+b\n-- \n2.39.0\n\n"
    operations = parse_unified(mail + mail.replace("file", "other"))
    assert [each.path for each in operations] == ["file", "other"]


def test_braces_need_no_stack() -> None:
    with pytest.raises(ArgumentError, match="alternatives"):
        compile_glob("{,}" * 1365)
    assert compile_glob("{a,b}{c,d}").alternatives == (("ac",), ("ad",), ("bc",), ("bd",))


def test_repeated_stars_cost_nothing() -> None:
    glob = compile_glob("**/" * 1300 + "x")
    begin = time.perf_counter()
    for _ in range(100):
        states = glob.step(glob.start(), "x")
    assert glob.is_match(states)
    assert time.perf_counter() - begin < 1


def test_offsets_have_no_end(root: WorkspaceRoot, base: Path) -> None:
    (base / "file").write_bytes(b"abc")
    assert read_range(root, "file", 2**64, 1) == b""
    assert read_range(root, "file", -(2**64), 2**64) == b"abc"


def test_views_may_leave_bytes_out(root: WorkspaceRoot, base: Path) -> None:
    write(root, "file", memoryview(b"abcdef")[::2])
    append(root, "file", memoryview(b"abcdef")[::-1])
    assert (base / "file").read_bytes() == b"acefedcba"
