"""The helpers for Python's own ``tarfile``: what they refuse, and what they unpack and where."""

from __future__ import annotations

import gzip
import io
import random
import stat
import tarfile
from pathlib import Path

import pytest

from sandyard.util import (
    UnsafeTarMemberError,
    safe_extract_tarfile,
    safe_tar_member_rel_path,
    should_skip_tar_member,
    validate_tar_bytes,
    validate_tarfile,
)

DIRECTORY, FILE, LINK, HARD = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
Told = tuple[str, bytes, str]


def pack(*members: Told | tuple[str, bytes, str, int]) -> bytes:
    """An archive of names, kinds, and contents or targets; and permissions."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, text, *mode in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, mode[0] if mode else 0o644
            content = text.encode() if kind == FILE else b""
            info.linkname, info.size = "" if kind == FILE else text, len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def unpack(raw: bytes, root: Path, *, out: bool = True) -> None:
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        safe_extract_tarfile(tar, root=root, allow_external_symlink_targets=out)


@pytest.mark.parametrize(
    ("members", "member", "reason"),
    [
        ([("/a", FILE, "")], "/a", "absolute path"),
        ([("a/../b", FILE, "")], "a/../b", "parent traversal"),
        ([("a\\b", FILE, "")], "a\\b", "windows path separator"),
        ([("C:a", FILE, "")], "C:a", "windows drive path"),
        ([("a", HARD, "b")], "a", "hardlink member not allowed"),
        ([("a", tarfile.FIFOTYPE, "")], "a", "unsupported member type"),
        ([("./", LINK, "/etc")], "./", "archive root symlink"),
        ([("././.", LINK, "/etc")], "././.", "archive root symlink"),
        ([(".", HARD, "b")], ".", "archive root hardlink"),
        ([(".", FILE, "")], ".", "archive root member must be directory"),
        ([("a", FILE, ""), ("./a", FILE, "")], "./a", "duplicate archive path: a"),
        (
            [("a/b", FILE, ""), ("a", LINK, "/etc")],
            "a/b",
            "archive path descends through symlink: a",
        ),
        (
            [("a", FILE, ""), ("a/b/c", FILE, "")],
            "a/b/c",
            "archive path descends through non-directory: a",
        ),
    ],
)
def test_refused_wherever_it_goes(
    members: list[Told], member: str, reason: str, tmp_path: Path
) -> None:
    raw = pack(("first", FILE, "x"), *members)
    with pytest.raises(UnsafeTarMemberError) as caught:
        validate_tar_bytes(raw)
    assert (caught.value.member, caught.value.reason) == (member, reason)
    with pytest.raises(ValueError, match="is refused"):
        unpack(raw, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("target", "before", "reason"),
    [
        ("/etc", (), "absolute symlink target not allowed: /etc"),
        ("../../x", (), "symlink target escapes archive root: ../../x"),
        # Each stays inside where it is read by itself.
        ("here/../..", ("a/here", LINK, ".."), "symlink target escapes archive root: here/../.."),
    ],
)
def test_links_that_lead_out(target: str, before: Told | tuple[()], reason: str) -> None:
    raw = pack(*((before,) if before else ()), ("a/b", LINK, target))
    validate_tar_bytes(raw)
    with pytest.raises(UnsafeTarMemberError) as caught:
        validate_tar_bytes(raw, allow_external_symlink_targets=False)
    assert (caught.value.member, caught.value.reason) == ("a/b", reason)


def test_paths_of_the_caller() -> None:
    raw = pack(("top", DIRECTORY, ""), ("top/keep/a", FILE, ""), ("top/link", LINK, "keep"))
    closed = "archive member overlaps protected path: keep/a"
    with pytest.raises(UnsafeTarMemberError, match=closed):
        validate_tar_bytes(raw, reject_rel_paths=["keep/a"], root_name="top")
    validate_tar_bytes(raw, reject_rel_paths=["keep/a"])
    skipped = {"skip_rel_paths": [Path("keep")], "root_name": "top"}
    validate_tar_bytes(raw, reject_rel_paths=["keep/a"], **skipped)  # type: ignore[arg-type]
    with pytest.raises(UnsafeTarMemberError, match="symlink member not allowed: top/link"):
        validate_tar_bytes(raw, reject_symlink_rel_paths=["top/link"])
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        with pytest.raises(UnsafeTarMemberError, match="symlink member not allowed"):
            validate_tarfile(tar, allow_symlinks=False)
        assert safe_tar_member_rel_path(tar.getmember("top/keep/a")) == Path("top/keep/a")
    assert safe_tar_member_rel_path(tarfile.TarInfo("x//./y")) == Path("x/y")
    assert should_skip_tar_member("./top/a/b", skip_rel_paths=["a"], root_name="top")
    assert not should_skip_tar_member("./top/ab", skip_rel_paths=["a"], root_name="top")


def test_bytes_that_are_no_archive() -> None:
    content = random.Random(1).randbytes(2000).hex()  # noqa: S311  # does not compress
    whole = gzip.compress(pack(("a", FILE, content)))
    for raw in (b"hello", whole[: len(whole) // 2]):
        with pytest.raises(UnsafeTarMemberError) as caught:
            validate_tar_bytes(raw)
        assert (caught.value.member, caught.value.reason) == ("<tar>", "invalid tar stream")


def test_unpacked(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret"
    secret.write_text("kept")
    root.mkdir()
    (root / "file").symlink_to(secret)
    (root / "bin").write_text("a file where a directory belongs")
    members: list[Told | tuple[str, bytes, str, int]] = [
        (".", DIRECTORY, ""),
        ("link", LINK, "bin/run"),
        ("bin", DIRECTORY, "", 0o755),
        ("bin/run", FILE, "x", 0o6777),
        ("deep/er/data", FILE, "y", 0o011),
        ("file", FILE, "new", 0o444),
    ]
    unpack(pack(*members), root, out=False)
    unpack(pack(*members), root, out=False)
    modes = {"bin/run": 0o755, "deep/er/data": 0o600, "file": 0o644}
    assert {name: stat.S_IMODE((root / name).lstat().st_mode) for name in modes} == modes
    assert (root / "link").read_text() == "x"
    assert (root / "file").read_text() == "new"
    assert secret.read_text() == "kept"


@pytest.mark.parametrize("what", ["symlink", "non-directory"])
def test_nothing_is_written_through_what_is_there(tmp_path: Path, what: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    root.mkdir()
    if what == "symlink":
        (root / "a").symlink_to(outside)
    else:
        (root / "a").write_text("x")
    with pytest.raises(UnsafeTarMemberError, match=f"{what} in parent path"):
        unpack(pack(("a/b", FILE, "x")), root)
    assert not list(outside.iterdir())


def test_directory_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(UnsafeTarMemberError, match="destination directory already exists: a"):
        unpack(pack(("a", FILE, "x")), tmp_path)
