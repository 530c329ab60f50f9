"""Subordinate ids: which of them are a user's, and what is said where there are none."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from sandyard import ConfinementUnavailableError, Manifest, ManifestError, User
from sandyard.accounts import ACCOUNTS_MOST
from sandyard.client import UnixLocalSandboxClient
from sandyard.subordinate import common_range, given_ranges, own_range
from tests.users.conftest import people

MODULE = "sandyard.subordinate"
ODD = "\n".join((
    "me:100000:65536", "you:1:1", "1000:5:10", "me:0:9", "me:x:9", "me:7", "me:7:0", "me:7:8:9",
    " me:300:4 ", "me:²:9", "me:99999999999:1", ":1:2", "mee:1:2", "\udcff:1:1",
))  # fmt: skip


def test_lines_of_a_user() -> None:
    found = given_ranges(ODD, ("me", "1000"))
    assert found == [range(100000, 165536), range(5, 15), range(300, 304)]
    assert given_ranges("", ("me",)) == []


@pytest.mark.parametrize(
    ("users", "groups", "expected"),
    [
        ([], [range(5, 9)], None),
        ([range(10, 20)], [range(20, 30)], None),
        ([range(10, 20)], [range(15, 30)], range(15, 20)),
        ([range(1, 3), range(100, 110)], [range(1, 200)], range(100, 110)),
        ([range(100000, 165536)], [range(100000, 165536)], range(165536 - ACCOUNTS_MOST, 165536)),
    ],
)
def test_the_same_for_users_and_groups(
    users: list[range], groups: list[range], expected: range | None
) -> None:
    assert common_range(users, groups) == expected


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Lists of ids of the test's own, in which this user has a range, and programs that map nothing."""
    names = tmp_path / "subuid", tmp_path / "subgid"
    name = pwd.getpwuid(os.getuid()).pw_name
    for path in names:
        path.write_text(f"{name}:700000:100\n")
    monkeypatch.setattr(f"{MODULE}._FILES", tuple(map(str, names)))
    monkeypatch.setattr(f"{MODULE}._PROGRAMS", {"uid_map": "true", "gid_map": "true"})
    return names


async def _refusal() -> str:
    with pytest.raises(ManifestError, match="users and groups can't be made") as caught:
        await UnixLocalSandboxClient().create(manifest=Manifest(users=[User(name="reviewer")]))
    assert caught.value.context["field"] == "users"
    assert "or leave users and groups out" in caught.value.message
    return caught.value.message


def _has_name() -> bool:
    try:
        return bool(pwd.getpwuid(os.getuid()))
    except KeyError:
        return False


named = pytest.mark.skipif(not _has_name(), reason="needs a user with a name in /etc/passwd")


@named
@pytest.mark.user
def test_last_of_a_range(own_files: tuple[Path, Path]) -> None:
    assert own_range(3) == range(700100 - ACCOUNTS_MOST, 700100)


@named
@pytest.mark.user
async def test_what_is_missing_is_named(
    own_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own_files[1].write_text("")
    assert "subgid give" in await _refusal()
    assert "usermod --add-subuids" in await _refusal()
    own_files[1].write_text(own_files[0].read_text().replace("700000", "700100"))
    assert "0 ids in common, and 1 are needed" in await _refusal()
    own_files[1].unlink()
    assert "subgid give" in await _refusal()
    own_files[0].chmod(0)
    assert "can't be read" in await _refusal()
    monkeypatch.setattr(f"{MODULE}._PLACES", (str(own_files[0].parent),))
    (own_files[0].parent / "true").touch(mode=0o755)  # not root's
    assert "true is missing" in await _refusal()
    alone = UnixLocalSandboxClient()
    session = await alone.create(manifest=Manifest(users=[User(name="agent")]))
    async with session:
        assert (await session.exec("id -un", user="agent")).stdout == b"agent\n"
    await alone.delete(session)


@named
@pytest.mark.user
@pytest.mark.parametrize(
    ("program", "words"),
    [("true", "another map"), ("false", "it ended with 1"), ("sleep", "did not end within")],
)
async def test_programs_that_fail(
    own_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, program: str, words: str
) -> None:
    monkeypatch.setattr(f"{MODULE}._PROGRAMS", {"uid_map": program, "gid_map": program})
    monkeypatch.setattr(f"{MODULE}.ID_MAP_TIMEOUT_S", 0.3 if program == "sleep" else 10)
    with pytest.raises(ConfinementUnavailableError, match=words) as caught:
        async with people():
            pass
    assert caught.value.context["dimension"] == "processes"
