"""Patches on real files: what they do, what refuses them, and that nothing is ever done by half."""

from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from sandyard.errors import (
    ApplyPatchDecodeError,
    ApplyPatchDiffError,
    ApplyPatchError,
    ApplyPatchFileNotFoundError,
    ApplyPatchPathError,
    SandboxError,
    WorkspaceArchiveWriteError,
)
from sandyard.patching import (
    Effort,
    apply_diff,
    apply_hunks,
    parse_envelope,
    parse_unified,
    read_operations,
)
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.patches import carry_out


def patch(root: WorkspaceRoot, *operations: object) -> None:
    carry_out(root, read_operations(list(operations)), apply_diff)


def create(path: str, diff: str = "+new") -> dict[str, str]:
    return {"type": "create_file", "path": path, "diff": diff}


def update(path: str, diff: str = "-old\n+new", **more: str) -> dict[str, str]:
    return {"type": "update_file", "path": path, "diff": diff, **more}


def delete(path: str) -> dict[str, str]:
    return {"type": "delete_file", "path": path}


def tree(base: Path) -> dict[str, tuple[str, int, bytes]]:
    """All that is in a directory: links by their text, files by mode and content."""
    found = {}
    for path in sorted(base.rglob("*")):
        mode = path.lstat().st_mode
        content = b""
        if stat.S_ISLNK(mode):
            content = os.fsencode(os.readlink(path))
        elif stat.S_ISREG(mode):
            content = path.read_bytes()
        found[str(path.relative_to(base))] = (stat.filemode(mode), 0, content)
    return found


@pytest.fixture(autouse=True)
def files(base: Path) -> None:
    (base / "d").mkdir()
    for name in ("a", "b", "d/c"):
        (base / name).write_bytes(b"first\nold\nlast\n")
    (base / "a").chmod(0o750)
    (base / "binary").write_bytes(b"\xff\xfe")
    (base / "link").symlink_to("d/c")
    (base / "twin").symlink_to("a")
    (base / "out").symlink_to("/etc/hosts")
    os.mkfifo(base / "pipe")


def test_every_operation(root: WorkspaceRoot, base: Path) -> None:
    patch(
        root,
        update("a"),
        update("b", move_to="moved/deep/b"),
        update("link"),
        create("new/deep/file", "+one\n+two"),
        update("new/deep/file", " one\n-two\n+three"),
        create("gone"),
        delete("gone"),
        SimpleNamespace(
            type="create_file", path=f"{root.inside}/absolute", diff="+x", move_to=None
        ),
    )
    assert (base / "a").read_text() == "first\nnew\nlast\n"
    assert stat.S_IMODE((base / "a").stat().st_mode) == 0o750
    assert (base / "moved/deep/b").read_text() == "first\nnew\nlast\n"
    assert (base / "d/c").read_text() == "first\nnew\nlast\n"
    assert (base / "new/deep/file").read_text() == "one\nthree"
    assert (base / "absolute").read_text() == "x"
    assert not (base / "b").exists()
    assert not (base / "gone").exists()
    patch(root, delete("link"))
    assert (base / "d/c").exists()
    assert not (base / "link").is_symlink()
    assert not [name for name in tree(base) if ".tmp" in name]


WRONG: dict[str, tuple[type[SandboxError], object]] = {
    "context": (ApplyPatchDiffError, update("b", "-missing\n+x")),
    "anchor": (ApplyPatchDiffError, update("b", "@@ no\n@@ first\n-old\n+x")),
    "end": (ApplyPatchDiffError, update("b", "-gone\n+x\n*** End of File")),
    "sign": (ApplyPatchDiffError, update("b", "old\n+x")),
    "nothing": (ApplyPatchDiffError, update("b", " old")),
    "exists": (ApplyPatchDiffError, create("b")),
    "exists by a link": (ApplyPatchDiffError, create("twin")),
    "new without signs": (ApplyPatchDiffError, create("n", "text")),
    "missing": (ApplyPatchFileNotFoundError, update("none")),
    "missing below a file": (ApplyPatchFileNotFoundError, delete("a/none")),
    "not text": (ApplyPatchDecodeError, update("binary")),
    "empty path": (ApplyPatchPathError, create(" ")),
    "the root": (ApplyPatchPathError, create(".")),
    "dots": (ApplyPatchPathError, create("../x")),
    "absolute": (ApplyPatchPathError, create("/etc/new")),
    "link out": (ApplyPatchPathError, update("out")),
    "directory": (WorkspaceArchiveWriteError, update("d")),
    "fifo": (WorkspaceArchiveWriteError, update("pipe")),
    "below a file": (WorkspaceArchiveWriteError, create("binary/new")),
    "kind": (ApplyPatchDiffError, {"type": "touch", "path": "x"}),
    "path": (ApplyPatchDiffError, {"type": "delete_file", "path": 3}),
    "no diff": (ApplyPatchDiffError, {"type": "update_file", "path": "b"}),
    "move of a new file": (ApplyPatchDiffError, {**create("n"), "move_to": "m"}),
}


@pytest.mark.parametrize("where", ["first", "last"])
@pytest.mark.parametrize("name", WRONG)
def test_nothing_is_done_by_half(root: WorkspaceRoot, base: Path, name: str, where: str) -> None:
    kind, wrong = WRONG[name]
    before = tree(base)
    good = [update("a"), create("new/deep/file"), delete("link"), update("d/c", move_to="e/f")]
    with pytest.raises(kind) as caught:
        patch(root, *([wrong, *good] if where == "first" else [*good, wrong]))
    assert tree(base) == before
    assert caught.value.op in {"apply_patch", "write"}
    if kind is ApplyPatchDiffError and isinstance(wrong, dict) and wrong["path"] == "b":
        assert caught.value.context["path"] == "b"
        assert isinstance(caught.value, ApplyPatchError)


@pytest.mark.parametrize("at", range(5))
def test_failing_exchange_is_undone(
    root: WorkspaceRoot, base: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """The kernel refuses any one of the renames; those before it are taken back."""
    before, real, count = tree(base), os.rename, 0

    def refused(*given: object, **named: object) -> None:
        nonlocal count
        count += 1
        if count == at + 1:
            raise OSError(28, "No space left on device")
        real(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(WorkspaceArchiveWriteError):
        patch(root, update("a"), create("new/x"), delete("b"), update("d/c", move_to="e/f"))
    assert tree(base) == before


def test_change_meanwhile_is_told(root: WorkspaceRoot, base: Path) -> None:
    def slow(text: str, diff: str, mode: str) -> str:
        (base / "a").write_text("somebody else's\n")
        return text + diff

    with pytest.raises(WorkspaceArchiveWriteError) as caught:
        carry_out(root, read_operations([update("b"), update("a")]), slow)
    assert caught.value.context["reason"] == "changing"
    assert caught.value.retryable is not False
    assert (base / "a").read_text() == "somebody else's\n"
    assert (base / "b").read_text() == "first\nold\nlast\n"


def test_whole_texts(root: WorkspaceRoot, base: Path) -> None:
    text = """*** Begin Patch
*** Update File: a
*** Move to: renamed
@@ first
-old
+new
*** Add File: added
+line
*** Delete File: b
*** End Patch
"""
    carry_out(root, parse_envelope(text), apply_diff)
    assert (base / "renamed").read_text() == "first\nnew\nlast\n"
    assert (base / "added").read_text() == "line"
    assert not (base / "a").exists()
    assert not (base / "b").exists()
    diff = """diff --git a/renamed b/moved
similarity index 60%
rename from renamed
rename to moved
--- a/renamed
+++ b/moved
@@ -1,3 +1,3 @@
 first
-new
+newer
 last
--- /dev/null
+++ b/made
@@ -0,0 +1,2 @@
+x
+y
\\ No newline at end of file
--- a/added
+++ /dev/null
@@ -1 +0,0 @@
-line
\\ No newline at end of file
"""
    carry_out(root, parse_unified(diff), apply_hunks)
    assert (base / "moved").read_text() == "first\nnewer\nlast\n"
    assert (base / "made").read_text() == "x\ny"
    assert not (base / "added").exists()


class TestBounds:
    """What a patch may cost is bounded, whatever it and the file are."""

    def test_head_far_away(self) -> None:
        head = "@@ -9999999999,1 +9999999999,1 @@\n"
        assert apply_hunks("a\nb\n", head + "-b\n+c") == "a\nc\n"
        with pytest.raises(ApplyPatchDiffError, match="nowhere"):
            apply_hunks("a\nb\n", head + "-c\n+d")

    @pytest.fixture
    def few_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What takes seconds at the real limit is the same at a smaller one."""
        monkeypatch.setattr("sandyard.patching.finding.PATCH_STEPS", 1_000_000)

    @pytest.mark.usefixtures("few_steps")
    def test_lines_that_stand_everywhere(self) -> None:
        # Each line of the hunk stands at half of all places, and all but its last at each of them.
        text, lines = "x\ny\n" * 5_000, [" x", " y"] * 1_000 + [" x", "-x"]
        with pytest.raises(ApplyPatchDiffError, match="comparisons"):
            apply_diff(text, "\n".join(lines))
        head = f"@@ -1,{len(lines)} +1,{len(lines) - 1} @@"
        with pytest.raises(ApplyPatchDiffError, match="comparisons"):
            apply_hunks(text, "\n".join([head, *lines]))

    @pytest.mark.usefixtures("few_steps")
    def test_one_effort_for_all_files(self, root: WorkspaceRoot, base: Path) -> None:
        (base / "f").write_text("x\n" * 10_000)
        changes = [update("f", f"-x\n+x{number}") for number in range(20)]
        with pytest.raises(ApplyPatchDiffError, match="comparisons"):
            carry_out(root, read_operations(changes), partial(apply_diff, effort=Effort()))
        assert (base / "f").stat().st_size == 20_000

    def test_hunks_and_lines(self) -> None:
        with pytest.raises(ApplyPatchDiffError, match="operations and hunks"):
            apply_diff("x\n", "@@\n" * 70_000 + "-x")
        with pytest.raises(ApplyPatchDiffError, match="operations and hunks"):
            apply_hunks("x\n", "@@ -1,1 +1,1 @@\n-x\n+x\n" * 70_000)
        for apply in (apply_diff, apply_hunks):
            with pytest.raises(ApplyPatchDiffError, match="1048576 lines"):
                apply("\n" * 1_100_000, "-x")
