"""Values: results, permissions, accounts and file entries."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sandyard.types import (
    EntryKind,
    ExecResult,
    FileEntry,
    FileMode,
    Group,
    Leftover,
    Permissions,
    ResourceUsage,
    User,
)


def test_result_defaults() -> None:
    result = ExecResult(stdout=b"abc", stderr=b"", exit_code=0)
    assert result.ok()
    assert (result.stdout_total, result.stderr_total, result.stdout_dropped) == (3, 0, 0)
    assert (result.usage, result.leftovers, result.duration_s) == (None, (), 0.0)
    assert not ExecResult(stdout=b"", stderr=b"", exit_code=-9).ok()
    assert ExecResult(stdout=b"abc", stderr=b"", exit_code=0, stdout_dropped=7).stdout_total == 10
    assert ExecResult(stdout=b"abc", stderr=b"", exit_code=0, stdout_total=99).stdout_total == 99


def test_result_is_itself_only() -> None:
    one = ExecResult(stdout=b"", stderr=b"", exit_code=0)
    assert one == one  # noqa: PLR0124 - identity is what is tested
    assert one != ExecResult(stdout=b"", stderr=b"", exit_code=0)


def test_result_repr_is_short() -> None:
    lefts = tuple(Leftover(pid=n, name="sleep") for n in range(9))
    result = ExecResult(
        stdout=b"x" * 10**6, stderr=b"no", exit_code=2, stdout_dropped=5, leftovers=lefts
    )
    text = repr(result)
    assert len(text) < 300
    assert "exit_code=2" in text
    assert "(1000005 bytes)" in text
    assert "sleep:0" in text
    assert repr(ExecResult(stdout=b"hi", stderr=b"", exit_code=0, duration_s=0.5)) == (
        "ExecResult(exit_code=0, stdout=b'hi', stderr=b'', duration_s=0.500)"
    )


def test_usage_is_a_value() -> None:
    assert ResourceUsage(user_s=1.0) == ResourceUsage(user_s=1.0)
    with pytest.raises(AttributeError):
        ResourceUsage().user_s = 2  # type: ignore[misc]


def test_usage_is_asked_for_once_and_late() -> None:
    asked: list[ResourceUsage] = []

    def count() -> ResourceUsage:
        asked.append(ResourceUsage(user_s=1.0))
        return asked[-1]

    result = ExecResult(stdout=b"", stderr=b"", exit_code=0, usage=count)
    assert not asked
    assert result.usage is result.usage
    assert result.usage == ResourceUsage(user_s=1.0)
    assert len(asked) == 1


def test_permissions_defaults_and_mode() -> None:
    plain = Permissions()
    assert (plain.owner, plain.group, plain.other, plain.directory) == (7, 0, 0, False)
    assert plain.to_mode() == 0o700
    assert Permissions(owner=7, group=5, other=5, directory=True).to_mode() == stat.S_IFDIR | 0o755
    assert str(plain) == repr(plain) == "-rwx------"
    assert Permissions(owner=FileMode.READ | FileMode.WRITE).owner == 6


@given(st.integers(0, 0o7777), st.booleans())
def test_permissions_round_trip(mode: int, directory: bool) -> None:
    kind = stat.S_IFDIR if directory else stat.S_IFREG
    permissions = Permissions.from_mode(kind | mode)
    assert permissions.to_mode() & 0o777 == mode & 0o777
    assert permissions.directory is directory
    assert Permissions.from_str(str(permissions)) == permissions
    assert Permissions.from_str(str(permissions) + "+") == permissions


@pytest.mark.parametrize(
    ("kind", "directory"),
    [
        (stat.S_IFDIR, True),
        (stat.S_IFSOCK, False),
        (stat.S_IFBLK, False),
        (stat.S_IFREG, False),
        (stat.S_IFLNK, False),
    ],
)
def test_only_directories_are_directories(kind: int, directory: bool) -> None:
    assert Permissions.from_mode(kind | 0o755).directory is directory


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("-rwsr-sr-t", 0o755),
        ("-rwSr-Sr-T", 0o644),
        ("drwxr-xr-x.", stat.S_IFDIR | 0o755),
        ("-rw-r--r--@", 0o644),
    ],
)
def test_permissions_from_str(text: str, mode: int) -> None:
    assert Permissions.from_str(text).to_mode() == mode


@pytest.mark.parametrize(
    "text", ["", "lrwxrwxrwx", "-rwxrwxrw", "-rwxrwxrwx!", "-xwrrwxrwx", "-rwz------"]
)
def test_bad_permission_strings(text: str) -> None:
    with pytest.raises(ValueError, match="permissions"):
        Permissions.from_str(text)


def test_permissions_setters_and_equality() -> None:
    permissions = Permissions().owner_can(FileMode.READ).group_can(4).others_can(1)
    assert permissions == Permissions(owner=4, group=4, other=1)
    assert hash(permissions) == hash(Permissions(owner=4, group=4, other=1))
    assert permissions != Permissions()
    assert (permissions == "-r--r----x") is False
    with pytest.raises(ValidationError):
        permissions.owner_can(8)


def test_accounts_are_equal_by_name() -> None:
    assert User(name="a") == User(name="a")
    assert Group(name="g", users=[]) == Group(name="g", users=[User(name="a")])
    assert len({User(name="a"), User(name="a")}) == 1
    assert len({Group(name="g", users=[]), Group(name="g", users=[User(name="a")])}) == 1
    assert User(name="a") != "a"
    assert Group(name="a", users=[]) != User(name="a")


def test_file_entry() -> None:
    entry = FileEntry(path="/w/a", permissions=Permissions(), owner="agent", group="agent", size=3)
    assert entry.kind is EntryKind.FILE
    assert not entry.is_dir()
    assert str(EntryKind.SYMLINK) == "symlink"
