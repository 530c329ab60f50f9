"""Identities on the host: leased, never shared, and free again when the last holder is gone."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from sandyard.accounts import ACCOUNTS_MOST
from sandyard.errors import ConfinementUnavailableError
from sandyard.limits import (
    IDENTITIES_FIRST,
    IDENTITIES_LEASED,
    IDENTITIES_STEP,
)
from sandyard.process.identity import IdentityLease, free_range, taken_ranges

MODULE = "sandyard.process.identity"
FIRST, STEP, COUNT = IDENTITIES_FIRST, IDENTITIES_STEP, IDENTITIES_LEASED
PARKED = ACCOUNTS_MOST
LOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl(2), where off_t has 64 bits


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock file of the test's own, for whoever runs it."""
    path = tmp_path / "locks" / "identities"
    monkeypatch.setattr(f"{MODULE}._FILE", str(path))
    return path


@pytest.fixture
def own_accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with subuid, subgid and passwd of the test's own; none of them is there yet."""
    place = tmp_path / "etc"
    place.mkdir()
    files = (str(place / "subuid"), str(place / "subgid"))
    monkeypatch.setattr(f"{MODULE}._SUBORDINATE", files)
    monkeypatch.setattr(f"{MODULE}._ACCOUNTS", str(place / "passwd"))
    return place


def few(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Leaves only so many identities."""
    monkeypatch.setattr(f"{MODULE}._leasable", lambda: range(FIRST, FIRST + count))


def is_locked(fd: int, uid: int) -> bool:
    """Whether somebody holds the lock of an identity; asked through a description of our own."""
    probe = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    try:
        asked = LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, (uid - FIRST) % STEP, 1, 0)
        kind, *_ = LOCK.unpack(fcntl.fcntl(probe, fcntl.F_OFD_GETLK, asked))
    finally:
        os.close(probe)
    return bool(kind == fcntl.F_WRLCK)


# --- leases ---------------------------------------------------------------------------------------


@pytest.mark.root
def test_50_at_once_are_different() -> None:
    with ExitStack() as stack:
        leases = [stack.enter_context(IdentityLease.take()) for _ in range(50)]
        assert len({lease.uid for lease in leases}) == 50
        assert all(FIRST <= lease.uid < 2**31 for lease in leases)
        assert all((lease.uid - FIRST) % STEP < COUNT for lease in leases)
        assert not any(os.get_inheritable(lease.fd) for lease in leases)


@pytest.mark.root
def test_lock_file_is_of_root_alone() -> None:
    with IdentityLease.take() as lease:
        facts = os.fstat(lease.fd)
        assert (facts.st_uid, facts.st_mode & 0o777) == (0, 0o600)


def test_threads_get_different_ones(own_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, 40)
    leases: list[IdentityLease] = []
    start = threading.Barrier(8)

    def take_some() -> None:
        start.wait(5)
        leases.extend([IdentityLease.take() for _ in range(5)])

    threads = [threading.Thread(target=take_some) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(lease.uid for lease in leases) == list(range(FIRST, FIRST + 40))
    for lease in leases:
        lease.close()


def test_all_are_in_use(own_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, 3)
    with ExitStack() as stack:
        leases = [stack.enter_context(IdentityLease.take()) for _ in range(3)]
        with pytest.raises(ConfinementUnavailableError, match="all 3 identities are in use"):
            IdentityLease.take()
        leases[1].close()
        with IdentityLease.take() as again:
            assert again.uid == leases[1].uid


def test_closed_lease_is_free(own_file: Path) -> None:
    with IdentityLease.take() as other, IdentityLease.take() as lease:
        uid = lease.uid
        assert is_locked(other.fd, uid)
        assert is_locked(other.fd, other.uid)
        lease.close()
        assert lease.fd == -1
        assert not is_locked(other.fd, uid)
        lease.close()  # once more does nothing


@pytest.mark.parametrize("kept", [1, 2])
def test_last_holder_keeps_it(own_file: Path, kept: int) -> None:
    with ExitStack() as stack:
        watch = stack.enter_context(IdentityLease.take())
        lease = stack.enter_context(IdentityLease.take())
        uid = lease.uid
        holders = [
            stack.enter_context(
                subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(lease.fd,))
            )
            for _ in range(kept)
        ]
        lease.close()
        for holder in holders:
            assert is_locked(watch.fd, uid)
            holder.kill()
            holder.wait(5)
        assert not is_locked(watch.fd, uid)


def test_directory_is_made(own_file: Path) -> None:
    IdentityLease.take().close()
    assert own_file.parent.stat().st_mode & 0o777 == 0o700
    assert own_file.stat().st_mode & 0o777 == 0o600


def test_file_is_made(own_file: Path) -> None:
    own_file.parent.mkdir()
    IdentityLease.take().close()
    assert own_file.stat().st_mode & 0o777 == 0o600


def test_link_is_not_followed(own_file: Path, tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    own_file.parent.mkdir()
    own_file.symlink_to(tmp_path / "target")
    with pytest.raises(ConfinementUnavailableError) as caught:
        IdentityLease.take()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ELOOP


def test_file_that_is_a_directory(own_file: Path) -> None:
    own_file.mkdir(parents=True)
    with pytest.raises(ConfinementUnavailableError, match="Is a directory") as caught:
        IdentityLease.take()
    assert caught.value.context["dimension"] == "processes"
    assert str(own_file.parent) in str(caught.value.context["fix"])


def test_parent_that_is_a_file(own_file: Path) -> None:
    own_file.parent.touch()
    with pytest.raises(ConfinementUnavailableError, match="Not a directory"):
        IdentityLease.take()


def test_failed_lock_closes_the_file(own_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The fixture that looks for leaks sees a descriptor that stays open.
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with pytest.raises(ConfinementUnavailableError, match="No locks available"):
        IdentityLease.take()


# --- ranges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subordinate", "accounts", "expected"),
    [
        ("", "", []),
        ("a:100000:65536\n", "", [range(100000, 165536)]),
        ("a:1:2\nb:3:4", "", [range(1, 3), range(3, 7)]),
        ("1000:5:1:more:fields\n", "", [range(5, 6)]),
        ("a:5:0\n", "", [range(5, 5)]),
        ("", "root:x:0:0:root:/root:/bin/sh\n", [range(1)]),
        ("", "a:x:7\nb:x:8:8", [range(7, 8), range(8, 9)]),
        ("a:1:1", "b:x:2:2", [range(1, 2), range(2, 3)]),
        # What is malformed gives nothing to anybody.
        ("\n\n:\n::\n:::\na\na:1\na:1:\na::1\n# comment:1:1x\n", "", []),
        ("a:-1:5\na:1:-5\na:0x10:5\na:1e3:5\na:1.5:2\na: 1:2\n", "", []),
        ("a:one:two\n", "a\na:x\na:x:\n:::\n+::::::\na:x:-2\na:x:x\n", []),
        ("a:²:5\na:5:³\n", "a:x:²\n", []),
        pytest.param("a:" + "9" * 5000 + ":1\n", "a:x:" + "9" * 5000, [], id="giant"),
    ],
)
def test_ids_that_somebody_has(subordinate: str, accounts: str, expected: list[range]) -> None:
    assert taken_ranges(subordinate, accounts) == expected


def whole(first: int) -> range:
    return range(first, first + COUNT)


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([], whole(FIRST)),
        ([range(100000, 165536), range(1000, 1001)], whole(FIRST)),
        ([range(FIRST - 5, FIRST)], whole(FIRST)),
        ([range(FIRST + COUNT + PARKED, FIRST + STEP)], whole(FIRST)),
        ([range(FIRST + COUNT, FIRST + COUNT + 1)], whole(FIRST + STEP)),
        ([range(FIRST + COUNT + PARKED - 1, FIRST + STEP)], whole(FIRST + STEP)),
        ([range(FIRST, FIRST)], whole(FIRST)),
        ([range(FIRST + 5, FIRST + 5)], whole(FIRST)),
        ([range(FIRST, FIRST + 1)], whole(FIRST + STEP)),
        ([range(FIRST - 1, FIRST + 1)], whole(FIRST + STEP)),
        ([range(FIRST + COUNT - 1, FIRST + COUNT)], whole(FIRST + STEP)),
        ([range(FIRST + 7, FIRST + 8)], whole(FIRST + STEP)),
        ([range(2**32)], None),
        ([range(FIRST, FIRST + 3 * STEP + 1)], whole(FIRST + 4 * STEP)),
        ([range(FIRST + STEP, FIRST + 2 * STEP), range(FIRST, FIRST + 1)], whole(FIRST + 2 * STEP)),
        ([range(FIRST + n * STEP, FIRST + n * STEP + 1) for n in range(3000)], None),
    ],
)
def test_range_that_nobody_has(taken: list[range], expected: range | None) -> None:
    assert free_range(iter(taken)) == expected


def lease_uid() -> int:
    with IdentityLease.take() as lease:
        return lease.uid


@pytest.mark.parametrize("name", ["subuid", "subgid", "passwd"])
def test_overlap_moves_on(own_file: Path, own_accounts: Path, name: str) -> None:
    assert lease_uid() in whole(FIRST)
    line = f"a:x:{FIRST}:1::/:\n" if name == "passwd" else f"a:{FIRST - 5}:6\n"
    (own_accounts / name).write_text(line)
    assert lease_uid() in whole(FIRST + STEP)
    (own_accounts / name).unlink()
    assert lease_uid() in whole(FIRST)


@pytest.mark.parametrize("name", ["subuid", "subgid"])
def test_last_line_may_lack_its_end(own_file: Path, own_accounts: Path, name: str) -> None:
    for other in ("subuid", "subgid"):
        (own_accounts / other).write_text("a:5:5")
    (own_accounts / name).write_text(f"b:1000:1000\na:{FIRST}:1000")
    assert lease_uid() in whole(FIRST + STEP)


def test_odd_bytes_in_accounts(own_file: Path, own_accounts: Path) -> None:
    (own_accounts / "subuid").write_bytes(b"\xff\xfe:1:1\n\0:\0:\0\na:%d:1\n" % FIRST)
    (own_accounts / "passwd").mkdir()
    assert lease_uid() in whole(FIRST + STEP)


def test_no_range_is_left(own_file: Path, own_accounts: Path) -> None:
    (own_accounts / "subgid").write_text(f"a:0:{2**32}\n")
    with pytest.raises(ConfinementUnavailableError, match="leave no range of user ids free"):
        IdentityLease.take()
