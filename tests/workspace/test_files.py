"""The file verbs: what they do, what they refuse, and that a refusal changes nothing."""

from __future__ import annotations

import io
import os
import socket
import stat
import subprocess
import tracemalloc
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from sandyard.errors import (
    ArgumentError,
    ExecNonZeroError,
    InvalidManifestPathError,
    SandboxError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
    WorkspaceRootNotFoundError,
    WorkspaceWriteTypeError,
)
from sandyard.types import EntryKind
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.changing import change_mode, copy, move
from sandyard.workspace.files import append, make_directory, read, read_range, remove, write
from sandyard.workspace.listing import (
    describe,
    exists,
    find_matches,
    is_same,
    list_directory,
    normalize,
)
from sandyard.workspace.watching import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def _content(root: WorkspaceRoot, path: str | PurePosixPath) -> bytes:
    with read(root, path) as reader:
        return reader.read()


# --- all verbs --------------------------------------------------------------------------------

_VERBS: list[Callable[[WorkspaceRoot, str], object]] = [
    read,
    list_directory,
    normalize,
    lambda root, path: write(root, path, b"evil"),
    make_directory,
    lambda root, path: make_directory(root, path, parents=True),
    remove,
    lambda root, path: remove(root, path, recursive=True),
    lambda root, path: read_range(root, path, 0, 10),
    lambda root, path: append(root, path, b"evil"),
    lambda root, path: list_directory(root, path, recursive=True),
    lambda root, path: find_matches(root, "*", path),
    lambda root, path: is_same(root, path, path),
    lambda root, path: change_mode(root, path, 0o777),
    lambda root, path: copy(root, path, "taken", recursive=True),
    lambda root, path: copy(root, ".", path, recursive=True),
    lambda root, path: move(root, path, "taken"),
    lambda root, path: Watcher.open(root, path, recursive=True),
    describe,
    exists,
]


@pytest.mark.parametrize("verb", _VERBS)
@pytest.mark.parametrize(
    "path",
    [
        "../bait/secret",
        "../bait",
        "missing/../../bait/secret",
        "out/secret",
        "out/new/deep",
        "out/../bait",
        "d/../../bait/secret",
        "deep-out/secret",
        "/etc/passwd",
        "/",
        "{base}-evil/x",
        "{base}/../bait/secret",
    ],
)
def test_no_verb_leaves_the_workspace(
    root: WorkspaceRoot,
    base: Path,
    bait: Path,
    verb: Callable[[WorkspaceRoot, str], object],
    path: str,
) -> None:
    (base / "d").mkdir()
    (base / "out").symlink_to(bait)
    (base / "deep-out").symlink_to("d/../../bait")
    given = path.format(base=base)
    with pytest.raises(InvalidManifestPathError) as caught:
        verb(root, given)
    assert caught.value.context["reason"] == (
        "absolute" if given.startswith("/") else "escape_root"
    )
    assert sorted(child.name for child in base.iterdir()) == ["d", "deep-out", "out"]


@pytest.mark.parametrize("verb", _VERBS)
@pytest.mark.parametrize("path", ["", "a\0b", "\ud800", "y/" + "x" * 256, None, 3, b"a"])
def test_no_verb_takes_what_is_no_path(
    root: WorkspaceRoot, base: Path, verb: Callable[[WorkspaceRoot, str], object], path: str
) -> None:
    with pytest.raises(ArgumentError):
        verb(root, path)
    assert list(base.iterdir()) == []


@pytest.mark.parametrize("verb", _VERBS)
def test_a_removed_root_is_named(
    root: WorkspaceRoot, base: Path, verb: Callable[[WorkspaceRoot, str], object]
) -> None:
    base.rmdir()
    with pytest.raises(WorkspaceRootNotFoundError):
        verb(root, "a")
    with pytest.raises(WorkspaceRootNotFoundError):
        list_directory(root, ".")


@pytest.mark.parametrize("path", ["d/f", "./d//f", "{base}/d/f", "link", "absolute", "d/../d/f"])
def test_one_file_by_many_paths(root: WorkspaceRoot, base: Path, path: str) -> None:
    (base / "link").symlink_to("d/f")
    (base / "absolute").symlink_to(base / "d/f")
    write(root, path.format(base=base), b"x") if ".." not in path else write(root, "d/f", b"x")
    assert (base / "d/f").read_bytes() == b"x"
    assert _content(root, path.format(base=base)) == b"x"
    assert _content(root, PurePosixPath(path.format(base=base))) == b"x"
    assert normalize(root, path.format(base=base)) == base / "d/f"
    assert (base / "link").is_symlink()
    assert (base / "absolute").is_symlink()


# --- read -------------------------------------------------------------------------------------


def test_read_gives_a_reader(root: WorkspaceRoot, base: Path) -> None:
    (base / "f").write_bytes(b"abc\n" * 3)
    with read(root, "f") as reader:
        assert isinstance(reader, io.BufferedReader)
        assert not os.get_inheritable(reader.fileno())
        assert os.get_blocking(reader.fileno())
        assert reader.readline() == b"abc\n"
        reader.seek(0)
        assert len(reader.read()) == 12


@pytest.mark.parametrize("path", ["nope", "nope/x", "f/x", "dangling"])
def test_read_of_nothing(root: WorkspaceRoot, base: Path, path: str) -> None:
    (base / "f").touch()
    (base / "dangling").symlink_to("nope")
    with pytest.raises(WorkspaceReadNotFoundError) as caught:
        read(root, path)
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.context["path"] == path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("directory", "is_a_directory"),
        (".", "is_a_directory"),
        ("fifo", "not_a_regular_file"),
        ("socket", "not_a_regular_file"),
        ("to-fifo", "not_a_regular_file"),
    ],
)
def test_read_of_what_is_no_file(
    root: WorkspaceRoot, base: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    (base / "directory").mkdir()
    os.mkfifo(base / "fifo")
    (base / "to-fifo").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        monkeypatch.chdir(base)
        sock.bind("socket")  # a socket's path has at most 107 bytes
        with pytest.raises(WorkspaceArchiveReadError) as caught:
            read(root, name)
    assert caught.value.context["reason"] == reason
    assert isinstance(caught.value.cause, OSError)


@pytest.mark.root
def test_read_of_a_device(root: WorkspaceRoot, base: Path) -> None:
    try:
        os.mknod(base / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("device nodes can't be made here")
    with pytest.raises(WorkspaceArchiveReadError, match="not a regular file"):
        read(root, "null")
    with pytest.raises(WorkspaceArchiveWriteError, match="not a regular file"):
        write(root, "null", b"")


@pytest.mark.user
def test_read_without_permission(root: WorkspaceRoot, base: Path) -> None:
    (base / "f").touch(0o000)
    with pytest.raises(WorkspaceArchiveReadError) as caught:
        read(root, "f")
    assert caught.value.context["reason"] == "permission_denied"


# --- write ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"data", bytearray(b"data"), memoryview(b"xdatax")[1:5], io.BytesIO(b"data")],
    ids=lambda data: type(data).__name__,
)
def test_write_takes_bytes_and_streams(root: WorkspaceRoot, base: Path, data: bytes) -> None:
    write(root, "a/b/c", data)
    assert (base / "a/b/c").read_bytes() == b"data"
    assert os.listdir(base / "a/b") == ["c"]


def test_write_keeps_modes_and_asks_the_umask(root: WorkspaceRoot, base: Path) -> None:
    (base / "script").touch()
    (base / "script").chmod(0o751)
    old = os.umask(0o027)
    try:
        write(root, "script", b"new")
        write(root, "fresh/file", b"new")
    finally:
        os.umask(old)
    assert _mode(base / "script") == 0o751
    assert _mode(base / "fresh/file") == 0o640
    assert _mode(base / "fresh") == 0o750


def test_write_drops_set_id_bits(root: WorkspaceRoot, base: Path) -> None:
    (base / "f").touch()
    (base / "f").chmod(0o6755)
    write(root, "f", b"")
    assert _mode(base / "f") == 0o755


def test_write_leaves_other_names_of_a_file_alone(
    root: WorkspaceRoot, base: Path, bait: Path
) -> None:
    (base / "hard").hardlink_to(bait / "secret")
    write(root, "hard", b"evil")
    assert (base / "hard").read_bytes() == b"evil"


def test_write_through_symlinks(root: WorkspaceRoot, base: Path) -> None:
    (base / "d").mkdir()
    (base / "dangling").symlink_to("d/new")
    (base / "deep").symlink_to("gone/further/new")
    (base / "to-dir").symlink_to("d")
    write(root, "dangling", b"1")
    write(root, "deep", b"2")
    write(root, "to-dir/x", b"3")
    assert (base / "d/new").read_bytes() == b"1"
    assert (base / "gone/further/new").read_bytes() == b"2"
    assert (base / "d/x").read_bytes() == b"3"
    assert (base / "dangling").is_symlink()


@pytest.mark.parametrize("target", ["../bait/new", "{bait}/new", "{bait}/secret", "/etc/new"])
def test_write_through_a_link_out(root: WorkspaceRoot, base: Path, bait: Path, target: str) -> None:
    (base / "out").symlink_to(target.format(bait=bait))
    with pytest.raises(InvalidManifestPathError):
        write(root, "out", b"evil")
    assert os.listdir(base) == ["out"]


class _Failing(io.RawIOBase):
    """A stream that gives some bytes, then fails or turns to text."""

    def __init__(self, then: object) -> None:
        self._answers = [b"some", then]

    def read(self, size: int = -1) -> bytes:
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        assert size > 0
        return answer  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (io.StringIO("text"), WorkspaceWriteTypeError),
        ("text", WorkspaceWriteTypeError),
        (None, WorkspaceWriteTypeError),
        (3, WorkspaceWriteTypeError),
        (_Failing("text"), WorkspaceWriteTypeError),
        (_Failing(None), WorkspaceWriteTypeError),
        (_Failing(OSError(5, "io")), WorkspaceArchiveWriteError),
        (_Failing(KeyError("odd")), KeyError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_a_bad_source_changes_nothing(
    root: WorkspaceRoot, base: Path, data: bytes, kind: type[Exception]
) -> None:
    (base / "old").write_bytes(b"old")
    with pytest.raises(kind):
        write(root, "old", data)
    assert (base / "old").read_bytes() == b"old"
    assert os.listdir(base) == ["old"]


def test_text_is_refused_before_parents_are_made(root: WorkspaceRoot, base: Path) -> None:
    with pytest.raises(WorkspaceWriteTypeError, match="StringIO"):
        write(root, "a/b", io.StringIO("text"))  # type: ignore[arg-type]
    assert list(base.iterdir()) == []


@pytest.mark.parametrize("path", [".", "d", "d/", "to-dir", "d/..", "fifo"])
def test_write_over_what_is_no_file(root: WorkspaceRoot, base: Path, path: str) -> None:
    (base / "d").mkdir()
    (base / "to-dir").symlink_to("d")
    os.mkfifo(base / "fifo")
    with pytest.raises(WorkspaceArchiveWriteError) as caught:
        write(root, path, b"")
    assert caught.value.context["reason"] in {"is_a_directory", "not_a_regular_file"}
    assert sorted(os.listdir(base)) == ["d", "fifo", "to-dir"]


def test_write_beneath_a_file(root: WorkspaceRoot, base: Path) -> None:
    (base / "f").touch()
    with pytest.raises(WorkspaceArchiveWriteError) as caught:
        write(root, "f/x", b"")
    assert caught.value.context["reason"] == "not_a_directory"


@pytest.mark.user
def test_write_respects_a_read_only_file(root: WorkspaceRoot, base: Path) -> None:
    (base / "f").touch(0o444)
    with pytest.raises(WorkspaceArchiveWriteError, match="permission"):
        write(root, "f", b"")


def test_write_of_a_file_onto_itself(root: WorkspaceRoot, base: Path) -> None:
    (base / "f").write_bytes(b"x" * 10**6)
    with read(root, "f") as source:
        write(root, "f", source)
    assert (base / "f").stat().st_size == 10**6


class _Zeros(io.RawIOBase):
    """A gigantic stream that costs nothing."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int = -1) -> bytes:
        size = min(size, self._left)
        self._left -= size
        return bytes(size)


def test_streams_take_little_memory(root: WorkspaceRoot, base: Path) -> None:
    tracemalloc.start()
    try:
        write(root, "big", _Zeros(50 * 10**6))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (base / "big").stat().st_size == 50 * 10**6
    assert peak < 2**20


def test_readers_see_old_or_new_never_half(root: WorkspaceRoot, base: Path) -> None:
    (base / "f").write_bytes(b"a" * 10**6)
    with read(root, "f") as reader:
        write(root, "f", b"b" * 10**6)
        assert set(reader.read()) == {ord("a")}
    assert set(_content(root, "f")) == {ord("b")}


# --- mkdir ------------------------------------------------------------------------------------


def test_mkdir(root: WorkspaceRoot, base: Path) -> None:
    make_directory(root, "a")
    make_directory(root, "a")
    make_directory(root, ".")
    make_directory(root, "b/c/d", parents=True)
    make_directory(root, "b/c/d", parents=True)
    (base / "link").symlink_to("b")
    make_directory(root, "link")
    make_directory(root, "link/e")
    assert (base / "b/c/d").is_dir()
    assert (base / "b/e").is_dir()


@pytest.mark.parametrize(
    ("path", "parents", "reason"),
    [
        ("x/y", False, "parent_missing"),
        ("f", False, "not_a_directory"),
        ("f", True, "not_a_directory"),
        ("f/x", False, "parent_missing"),
        ("f/x", True, "not_a_directory"),
    ],
)
def test_mkdir_refuses(
    root: WorkspaceRoot, base: Path, path: str, parents: bool, reason: str
) -> None:
    (base / "f").touch()
    with pytest.raises(WorkspaceArchiveWriteError) as caught:
        make_directory(root, path, parents=parents)
    assert caught.value.context["reason"] == reason
    assert os.listdir(base) == ["f"]


# --- ls ---------------------------------------------------------------------------------------


def test_ls(root: WorkspaceRoot, base: Path) -> None:
    (base / "b").write_bytes(b"xyz")
    (base / "b").chmod(0o640)
    (base / ".hidden").touch()
    (base / "a").mkdir()
    (base / "link").symlink_to("nowhere")
    os.mkfifo(base / "pipe")
    entries = list_directory(root, ".")
    assert [(entry.path, entry.kind, entry.is_dir()) for entry in entries] == [
        (f"{base}/.hidden", EntryKind.FILE, False),
        (f"{base}/a", EntryKind.DIRECTORY, True),
        (f"{base}/b", EntryKind.FILE, False),
        (f"{base}/link", EntryKind.SYMLINK, False),
        (f"{base}/pipe", EntryKind.OTHER, False),
    ]
    assert {(entry.owner, entry.group) for entry in entries} == {("agent", "agent")}
    assert (entries[2].size, str(entries[2].permissions)) == (3, "-rw-r-----")
    assert entries[3].size == len("nowhere")
    assert list_directory(root, "a") == []
    assert list_directory(root, str(base / "a/..")) == entries


def test_ls_shows_inside_paths(base: Path) -> None:
    (base / "d").mkdir()
    (base / "d/f").touch()
    with WorkspaceRoot.open(base, inside="/parent/ws") as root:
        assert [entry.path for entry in list_directory(root, "/parent/ws/d")] == ["/parent/ws/d/f"]
        assert normalize(root, "d/f") == Path("/parent/ws/d/f")


def test_ls_of_odd_names(root: WorkspaceRoot, base: Path) -> None:
    names = ["a b ", "new\nline", "a -> b", "\udcff", "-la"]
    for name in names:
        (base / name).touch()
    found = list_directory(root, ".")
    assert [entry.path for entry in found] == sorted(f"{base}/{name}" for name in names)
    for entry in found:
        assert _content(root, PurePosixPath(entry.path)) == b""


@pytest.mark.root
def test_ls_of_other_owners(root: WorkspaceRoot, base: Path) -> None:
    (base / "f").touch()
    os.chown(base / "f", 12345, 23456)
    (entry,) = list_directory(root, ".")
    assert (entry.owner, entry.group) == ("12345", "23456")


@pytest.mark.parametrize("path", ["f", "nope", "nope/x", "dangling"])
def test_ls_of_what_is_no_directory(root: WorkspaceRoot, base: Path, path: str) -> None:
    (base / "f").touch()
    (base / "dangling").symlink_to("nope")
    with pytest.raises(ExecNonZeroError) as caught:
        list_directory(root, path)
    assert caught.value.exit_code == 1
    assert caught.value.context["command_str"] == f"ls -la -- {path}"


# --- rm ---------------------------------------------------------------------------------------


def test_rm(root: WorkspaceRoot, base: Path) -> None:
    (base / "f").touch()
    (base / "empty").mkdir()
    (base / "full/deep/er").mkdir(parents=True)
    (base / "full/deep/f").touch()
    remove(root, "f")
    remove(root, "empty")
    remove(root, "full", recursive=True)
    remove(root, "full", recursive=True)
    remove(root, "nothing/at/all", recursive=True)
    assert list(base.iterdir()) == []


@pytest.mark.parametrize("recursive", [False, True])
def test_rm_removes_links_not_targets(
    root: WorkspaceRoot, base: Path, bait: Path, recursive: bool
) -> None:
    (base / "d").mkdir()
    (base / "d/f").touch()
    links = {
        "to-file": "d/f",
        "to-dir": "d",
        "dangling": "nope",
        "out": str(bait),
        "out-file": f"{bait}/secret",
        "self": ".",
        "loop": "loop",
    }
    for name, target in links.items():
        (base / name).symlink_to(target)
        remove(root, name, recursive=recursive)
    assert os.listdir(base) == ["d"]
    assert (base / "d/f").exists()


@pytest.mark.parametrize("path", [".", "./", "{base}", "{base}/", "d/..", "d/../d/.."])
@pytest.mark.parametrize("recursive", [False, True])
def test_rm_never_removes_the_root(
    root: WorkspaceRoot, base: Path, path: str, recursive: bool
) -> None:
    (base / "d").mkdir()
    with pytest.raises(WorkspaceArchiveWriteError) as caught:
        remove(root, path.format(base=base), recursive=recursive)
    assert caught.value.context["reason"] == "workspace_root"
    assert (base / "d").is_dir()


def test_rm_refuses(root: WorkspaceRoot, base: Path) -> None:
    (base / "full").mkdir()
    (base / "full/f").touch()
    with pytest.raises(WorkspaceArchiveWriteError) as caught:
        remove(root, "full")
    assert caught.value.context["reason"] == "not_empty"
    for path in ("nope", "nope/x", "full/f/x"):
        with pytest.raises(ExecNonZeroError) as missing:
            remove(root, path)
        assert missing.value.context["command_str"] == f"rm -- {path}"


@pytest.mark.root
def test_rm_says_what_could_not_be_removed(root: WorkspaceRoot, base: Path, bait: Path) -> None:
    (base / "d/mnt").mkdir(parents=True)
    (base / "d/f").touch()
    if subprocess.run(["mount", "--bind", str(bait), str(base / "d/mnt")], check=False).returncode:
        pytest.skip("bind mounts are not allowed here")
    try:
        with pytest.raises(SandboxError) as caught:
            remove(root, "d", recursive=True)
    finally:
        subprocess.run(["umount", str(base / "d/mnt")], check=True)
    assert isinstance(caught.value, WorkspaceArchiveWriteError)
    assert caught.value.context["reason"] == "busy"


# --- normalize --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "real"),
    [
        (".", ""),
        ("nope/x", "nope/x"),
        ("nope/../d", "d"),
        ("link/x", "d/x"),
        ("link/..", ""),
        ("loop-free/e", "d/e"),
    ],
)
def test_normalize(root: WorkspaceRoot, base: Path, path: str, real: str) -> None:
    (base / "d").mkdir()
    (base / "link").symlink_to("d")
    (base / "loop-free").symlink_to(base / "link")
    assert normalize(root, path) == base / real


# --- owners -----------------------------------------------------------------------------------


@pytest.mark.root
def test_root_works_as_the_workspaces_owner(root: WorkspaceRoot, base: Path) -> None:
    os.chown(base, 12345, 23456)
    write(root, "a/b/f", b"")
    make_directory(root, "c/d", parents=True)
    (base / "open").touch()
    (base / "open").chmod(0o666)
    write(root, "open", b"new")
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in base.rglob("*")}
    assert owners == {(12345, 23456)}
    assert len(list(base.rglob("*"))) == 6
    assert {entry.owner for entry in list_directory(root, "a")} == {"agent"}


@pytest.mark.root
def test_what_root_replaces_keeps_its_owner(root: WorkspaceRoot, base: Path) -> None:
    (base / "f").touch()
    os.chown(base / "f", 7, 8)
    write(root, "f", b"new")
    facts = (base / "f").stat()
    assert (facts.st_uid, facts.st_gid, facts.st_size) == (7, 8, 3)
