"""Properties of paths and patches, tried with whatever hypothesis thinks of."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandyard.errors import (
    ApplyPatchDiffError,
    InvalidManifestPathError,
    PolicyDeniedError,
    SandboxError,
)
from sandyard.patching import apply_diff, apply_hunks, parse_envelope, parse_unified
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.files import append, read_range, remove, write
from sandyard.workspace.kernel import Kernel
from sandyard.workspace.listing import normalize
from sandyard.workspace.reach import govern

NAMES = ["a", "b", "..", ".", "up", "down", "out", "away", "closed", "f"]
SECRET = b"what is denied"


@contextmanager
def place() -> Iterator[tuple[WorkspaceRoot, Path]]:
    """A workspace full of links, a denied directory in it, and a file beside it."""
    with TemporaryDirectory() as made:
        top = Path(os.path.realpath(made))
        base = top / "ws"
        (base / "a/b").mkdir(parents=True)
        (base / "closed/b").mkdir(parents=True)
        (top / "f").write_bytes(SECRET)
        for directory in (base / "closed", base / "closed/b"):
            (directory / "f").write_bytes(SECRET)
        for directory in (base, base / "a", base / "a/b"):
            (directory / "f").write_bytes(b"open")
            (directory / "up").symlink_to("..")
            (directory / "down").symlink_to("a/b")
            (directory / "out").symlink_to("../../f")
            (directory / "away").symlink_to(base / "closed")
        with WorkspaceRoot.open(base) as root:
            govern(root, (), (str(base / "closed"),), ())
            yield root, base


paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=7).map("/".join)


@pytest.fixture(params=[True, False], ids=["kernel", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(Kernel, "resolves", False)


@pytest.mark.timeout(180)  # each example makes a tree
@pytest.mark.usefixtures("way")
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(tried=st.lists(paths, min_size=1, max_size=20))
def test_no_path_leads_where_it_may_not(tried: list[str]) -> None:
    with place() as (root, base):
        for path in tried:
            real = Path(os.path.realpath(base / path))
            with suppress(SandboxError):
                assert read_range(root, path, 0, 100) == b"open"
                assert real.read_bytes() == b"open"
            try:
                led = normalize(root, path)
            except (InvalidManifestPathError, PolicyDeniedError):
                continue
            else:
                assert led.is_relative_to(base)
                assert not led.is_relative_to(base / "closed/b")
        for path in tried:
            with suppress(SandboxError):
                append(root, path, b"x")
            with suppress(SandboxError):
                write(root, path, b"open")
            with suppress(SandboxError):
                remove(root, path, recursive=True)
        assert (base.parent / "f").read_bytes() == SECRET
        assert (base / "closed/f").read_bytes() == SECRET
        assert (base / "closed/b/f").read_bytes() == SECRET


# --- patches ----------------------------------------------------------------------------------

lines = st.lists(st.sampled_from(["x", "y", "  x", "", "z", "@@ x", "--- a", "+x"]), max_size=12)
ends = st.sampled_from(["\n", "\r\n"])


@settings(max_examples=400, deadline=None)
@given(before=lines, after=lines, end=ends, context=st.integers(0, 3))
def test_unified_diffs_are_applied(
    before: list[str], after: list[str], end: str, context: int
) -> None:
    old, new = ([line + end for line in each] for each in (before, after))
    diff = "".join(difflib.unified_diff(old, new, "a/n", "b/n", n=context))
    if not diff or not old:
        return
    (operation,) = parse_unified(diff)
    assert apply_hunks("".join(old), operation.diff) == "".join(new)


@settings(max_examples=400, deadline=None)
@given(before=lines, after=lines, end=ends)
def test_v4a_diffs_are_applied(before: list[str], after: list[str], end: str) -> None:
    old, new = ("".join(line + end for line in each) for each in (before, after))
    signed = [
        line if line[0] != "?" else ""
        for line in (step[0] + step[2:] for step in difflib.ndiff(before, after))
        if line[0] != "?"
    ]
    if before == after or not before or not after:
        return
    assert apply_diff(old, "\n".join(signed)) == new


@settings(max_examples=300, deadline=None)
@given(text=st.text("x\n\r", max_size=30), diff=st.text("x+- @*\n\r", max_size=40))
def test_any_diff_is_applied_or_refused(text: str, diff: str) -> None:
    for work in (
        lambda: apply_diff(text, diff),
        lambda: apply_diff("", diff, "create"),
        lambda: apply_hunks(text, diff),
        lambda: parse_unified(diff),
        lambda: parse_envelope(f"*** Begin Patch\n{diff}\n*** End Patch"),
    ):
        with suppress(ApplyPatchDiffError):
            work()


def test_lines_keep_their_ends() -> None:
    mixed = "one\r\ntwo\nthree\r\nlast"
    assert apply_diff(mixed, " one\n-two\n+2") == "one\r\n2\nthree\r\nlast"
    assert apply_diff(mixed, " last\n+more") == "one\r\ntwo\nthree\r\nlast\r\nmore"
    assert apply_diff("a\n", "+x") == "x\na\n"
    assert apply_diff("", "+x") == "x\n"
    assert apply_diff("  indented  \n", "-indented\n+x") == "x\n"
    assert apply_diff("x\ny\nx\n", "@@ y\n-x\n+z") == "x\ny\nz\n"
    assert apply_diff("x\ny\nx\n", "-x\n+z\n*** End of File") == "x\ny\nz\n"
