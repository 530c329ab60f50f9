"""Names and targets of links: what is refused, and two harmless links that lead out together."""

from __future__ import annotations

import os
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard.archive import ArchiveError, SandboxArchiveLimits
from sandyard.archive.naming import NameRules, Path, check_links, leaves

STRICT = NameRules(SandboxArchiveLimits(), portable=True)
EXACT = NameRules(SandboxArchiveLimits(), portable=False)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"/etc/passwd", "absolute path"),
        (b"//etc", "absolute path"),
        (b"../x", "parent traversal"),
        (b"a/../../x", "parent traversal"),
        (b"a/..", "parent traversal"),
        (b"..", "parent traversal"),
        (b"C:/x", "windows drive path"),
        (b"c:x", "windows drive path"),
        (b"a\\..\\b", "windows path separator"),
        (b"a\0b", "name has a NUL"),
        (b"a/" + b"n" * 256, "name is too long"),
        (b"a/" * 3000, "path is too long"),
        (b"a/" * 129, "path depth exceeds limit"),
    ],
)
def test_refused(name: bytes, reason: str) -> None:
    with pytest.raises(ArchiveError) as caught:
        STRICT.path_of(name)
    assert caught.value.reason == reason


def test_accepted() -> None:
    assert STRICT.path_of(b"./a//b/./c/") == (b"a", b"b", b"c")
    assert STRICT.path_of(b"a/B::C") == (b"a", b"B::C")
    assert STRICT.path_of(b"...") == (b"...",)
    assert [STRICT.path_of(name) for name in (b"", b".", b"./")] == [(), (), ()]
    assert EXACT.path_of(b"c:\\x\n\xff") == (b"c:\\x\n\xff",)


LINKS: list[tuple[dict[Path, bytes], bool]] = [
    ({(b"a",): b"b"}, False),
    ({(b"a",): b".."}, True),
    ({(b"d", b"a"): b".."}, False),
    ({(b"d", b"a"): b"../.."}, True),
    ({(b"a",): b"."}, False),
    ({(b"a",): b"missing/../.."}, True),
    # Each stays inside alone; one of them is no deeper than it looks.
    ({(b"x",): b".", (b"y",): b"x/.."}, True),
    ({(b"d", b"up"): b"..", (b"out",): b"d/up/.."}, True),
    ({(b"d", b"e", b"up"): b"../..", (b"d", b"f"): b"e/up/../.."}, True),
    ({(b"a",): b"b", (b"b",): b"a"}, False),
    ({(b"a",): b"/etc"}, True),
]


@pytest.mark.parametrize(("links", "out"), LINKS)
def test_links(links: dict[Path, bytes], out: bool) -> None:
    if out:
        with pytest.raises(ArchiveError, match="escapes archive root"):
            check_links(links)
    else:
        check_links(links)


def kernel_answer(path: bytes) -> bytes:
    """Where a path leads; the path itself if nowhere."""
    try:
        opened = os.open(path, os.O_PATH)
    except OSError:
        return path
    try:
        return os.readlink(b"/proc/self/fd/%d" % opened)
    finally:
        os.close(opened)


PARTS = st.sampled_from(["a", "b", "c", "..", "."])


@given(
    st.dictionaries(
        st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map(tuple),
        st.lists(PARTS, min_size=1, max_size=4).map("/".join),
        max_size=4,
    )
)
def test_judged_as_the_kernel_resolves(links: dict[tuple[str, ...], str]) -> None:
    """Made on a disk, no link leads out unseen."""
    with tempfile.TemporaryDirectory() as base:
        top = os.path.realpath(os.path.join(base, "outer", "top"))
        os.makedirs(top)
        made: dict[Path, bytes] = {}
        for path, target in links.items():
            full = os.path.join(top, *path)
            above = os.path.dirname(full)
            if os.path.realpath(above) != above:
                continue  # it would stand elsewhere
            try:
                os.makedirs(above, exist_ok=True)
                os.symlink(target, full)
            except OSError:
                continue
            made[tuple(name.encode() for name in path)] = target.encode()
        for link in made:
            real = kernel_answer(os.path.join(top.encode(), *link))
            if not (real + b"/").startswith(top.encode() + b"/"):
                assert leaves(link, made)
