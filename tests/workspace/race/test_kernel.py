"""The kernel's resolving: where it is missing, refused, or too busy; and who it is asked as."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandyard.errors import SandboxError
from sandyard.workspace import Owner, WorkspaceRoot
from sandyard.workspace.acting import acting_as
from sandyard.workspace.files import read, remove
from sandyard.workspace.kernel import RESOLVE_BENEATH, Kernel
from tests.workspace.race.arena import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.workspace.race.arena import Arena

ROOT = Path(__file__).parents[3]
ENOUGH_S = 30.0
"""How long something may take to happen that happens thousands of times per second."""


@contextmanager
def within() -> Iterator[Iterator[int]]:
    """Count rounds, until the test has seen enough."""
    end = time.monotonic() + ENOUGH_S

    def rounds() -> Iterator[int]:
        number = 0
        while time.monotonic() < end:
            yield number
            number += 1
        pytest.fail("it did not happen")

    yield rounds()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EACCES])
def test_a_filter_without_openat2(tmp_path: Path, number: int) -> None:
    (tmp_path / "secret").touch()
    done = subprocess.run(
        [sys.executable, "-m", "tests.workspace.race.without_openat2", tmp_path, str(number)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.root
def test_a_true_refusal_is_not_a_filter(raced: WorkspaceRoot, arena: Arena) -> None:
    (arena.base / "f").touch(0o644)
    with acting_as(Owner(12345, 12345)), pytest.raises(PermissionError) as caught:
        raced.opener.open(("f",), os.O_RDONLY | os.O_NOATIME)  # only the owner may
    assert caught.value.errno == errno.EPERM
    (arena.base / "f").chmod(0)
    with acting_as(Owner(12345, 12345)), pytest.raises(PermissionError) as caught:
        raced.opener.open(("f",), os.O_RDONLY)
    assert caught.value.errno == errno.EACCES
    assert Kernel.resolves


def ask_kernel(directory: int, path: bytes) -> int:
    """openat2(2) once, without the library; its errno, or 0."""
    libc = ctypes.CDLL(None, use_errno=True)
    how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_BENEATH)
    opened = libc.syscall(437, directory, path, ctypes.byref(how), ctypes.c_size_t(24))
    if opened < 0:
        return ctypes.get_errno()
    os.close(opened)
    return 0


def test_renames_make_the_kernel_unsure(
    raced: WorkspaceRoot, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says EAGAIN then; the library has an answer all the same."""
    monkeypatch.setattr("sandyard.workspace.kernel.OPEN_RETRIES", 1)
    said = Counter[int]()
    with arena.attacked("flaps", arena.outside), within() as rounds:
        (arena.base / "kept").mkdir()
        (arena.base / "kept/f").touch()
        for _ in rounds:
            for _ in range(50):
                said[ask_kernel(raced.fd, b"kept/../kept/../kept/f")] += 1
                names = ("kept", "..", "kept", "..", "kept", "f")
                os.close(raced.opener.open(names, os.O_PATH))
            if said[errno.EAGAIN] > 3:
                break
    assert set(said) <= {0, errno.EAGAIN}


def test_what_never_stands_still(
    raced: WorkspaceRoot, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Kernel, "resolves", False)
    monkeypatch.setattr("sandyard.workspace.opener.OPEN_RETRIES", 1)
    with arena.untouched(), arena.attacked("files", arena.outside), within() as rounds:
        assert any(retryable_reason(raced) == "changing" for _ in rounds)


def retryable_reason(root: WorkspaceRoot) -> object:
    """Read, and tell why that failed, if it may succeed later."""
    try:
        read(root, "d/secret").close()
    except SandboxError as error:
        return error.context.get("reason") if error.retryable else None
    return None


def test_a_lease_does_not_make_us_wait(raced: WorkspaceRoot, arena: Arena) -> None:
    """The kernel would let us wait for its holder for /proc/sys/fs/lease-break-time, 45 s."""
    with arena.attacked("leases", arena.outside), within() as rounds:
        assert any(retryable_reason(raced) == "changing" for _ in rounds)


@pytest.fixture
def deep(arena: Arena) -> Iterator[Path]:
    """A directory that is removed by a program which does not mind how deep it is."""
    yield arena.base / "d"
    subprocess.run(["rm", "-rf", arena.base / "d"], check=True)


@pytest.mark.usefixtures("deep")
def test_descriptors_of_a_deep_walk(raced: WorkspaceRoot, arena: Arena) -> None:
    """Somebody inside nests deep and links there: that must not use up what this program has."""
    depth, most = 1500, 0
    here = os.dup(raced.fd)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_PATH, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    (arena.base / "link").symlink_to(f"{arena.base}/" + "d/" * depth)
    before = len(os.listdir("/proc/self/fd"))
    with raced.opener.place(("link", "f")) as place:
        most = len(os.listdir("/proc/self/fd")) - before
        assert place.real == ("d",) * depth
    assert most < 64
    read(raced, "link/f").close()
    with raced.opener.place(("link", *("..",) * (depth - 1), "x")) as place:
        assert (place.real, place.rest) == (("d",), ("x",))
    with raced.opener.place(("link", *("..",) * 40, *("d",) * 40, "f")) as place:
        assert (place.real, place.rest) == (("d",) * depth, ("f",))
    with (
        pytest.raises(OSError, match="cross-device"),
        raced.opener.place(("link", *("..",) * (depth + 1))),
    ):
        pass


@pytest.mark.usefixtures("deep")
def test_nobody_nests_faster_than_we_give_up(
    raced: WorkspaceRoot, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandyard.workspace.removal.DESCENT_LEVELS", 500)
    words: list[str | None] = [str(arena.attacker), "towers", str(arena.base), str(arena.outside)]
    with running(words), within() as rounds:
        assert any("ever deeper" in str(removal_cause(raced)) for _ in rounds)


def removal_cause(root: WorkspaceRoot) -> object:
    """Remove what is under attack, and tell what stopped that."""
    try:
        remove(root, "d", recursive=True)
    except SandboxError as error:
        return error.cause
    return None
