"""On worse hosts the doctor goes on, names one cause with its fix, exits with 1, leaves nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from tests.doctor.calling import ask


@dataclass(frozen=True)
class Case:
    """A worse host.

    Attributes:
        how: what is done to it.
        culprit: the row that is missing.
        says: words of its cause.
        fix: words of its fix or of the fix's commands.
        rung: what it still allows.
        also: another row that is missing.
        holds: who has a wall there all the same, on a lower rung: nobody, root, or everybody.
    """

    how: str
    culprit: str
    says: str
    fix: str
    rung: str
    also: str = ""
    holds: str = ""

    @property
    def held(self) -> bool:
        return self.holds == "all" or (self.holds == "root" and os.geteuid() == 0)

    @property
    def is_plain(self) -> bool:
        """Whether it shows the same for every user."""
        return self.holds != "root" and self.how != "few_processes"


CASES = (
    Case("no_user", "user_namespace", "errno 1]", "seccomp", "landlock_seccomp",
         holds="root"),
    Case("nested,no_room", "user_namespace", "errno 28]", "max_user_namespaces=", "landlock_seccomp"),
    Case("no_mounts", "mounting", "private_mounts, errno 13]", "seccomp", "landlock_seccomp",
         holds="root"),
    Case("old_open", "openat2", "[openat2, errno 1]", "openat2", "none",
         holds="root"),
    Case("nested,covered_proc", "proc", "/proc: Operation not permitted", "proc", "full_without_proc",
         holds="all"),
    Case("nested,hidden_proc", "host_proc", "No such file", "mount -t proc", "landlock_seccomp"),
    Case("nested,read_only", "temporary_directory", "Read-only file system", "TMPDIR", "full",
         "state_directory"),
    Case("nested,chroot", "user_namespace", "errno 1]", "chroot(2)", "landlock_seccomp"),
    Case("few_processes", "processes", "", "limit on processes", "full"),
    Case("file_for_state", "state_directory", "Not a directory", "XDG_STATE_HOME", "full"),
    Case("few_files", "open_files", "Too many open files", "limit on open files", "full"),
    Case("fewest_files", "open_files", "Too many open files", "limit on open files", "none"),
)  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.how, marks=pytest.mark.plain if case.is_plain else ())
        for case in CASES
    ],
)
def test_one_cause_is_named(case: Case) -> None:
    told = ask(case.how)
    assert (told.code, told.errors) == (0 if case.held else 1, "")
    assert told.keys("missing", required=True) == {case.culprit} | set(case.also.split())
    row = told.row(case.culprit)
    assert case.says in row["cause"]
    assert case.fix in " ".join((row["fix"], *row["commands"]))
    report = told.report
    if case.held:
        # Without openat2 there are no mounts, and then Landlock alone is left.
        expected = case.rung if case.rung != "none" else "landlock_seccomp"
        assert (report["holds"], report["rung"]) == (True, expected)
        assert (report["cause"], report["fix"]) == (None, None)
        assert report["lacks"] == f"{case.culprit}: {row['cause']}"
        assert (report["raises"], report["commands"]) == (row["fix"], row["commands"])
        assert set(told.canaries().values()) == {"held"}
        return
    assert report["cause"] == f"{case.culprit}: {row['cause']}"
    assert (report["fix"], report["commands"]) == (row["fix"], row["commands"])
    assert (report["holds"], report["proven"]) == (False, False)
    if case.how != "few_processes":  # root is not counted, so only an ordinary user loses all
        assert report["rung"] == case.rung
    assert set(told.canaries().values()) <= {"unknown"}


@pytest.mark.plain
def test_old_filter_names_both_calls() -> None:
    told = ask("old_filter")
    assert (told.code, told.errors) == (1, "")
    assert told.keys("missing", required=True) == {"pidfd", "openat2"}
    assert told.report["cause"].startswith("pidfd: Operation not permitted [pidfd_open")


@pytest.mark.plain
def test_kill_by_filter_is_survived() -> None:
    told = ask("deadly_filter")
    assert (told.code, told.errors) == (1, "")
    assert "ended by signal 31 (SIGSYS)" in told.row("user_namespace")["cause"]


@pytest.mark.plain
def test_missing_landlock_is_no_obstacle() -> None:
    told = ask("no_landlock")
    assert (told.code, told.report["holds"], told.report["rung"]) == (0, True, "full")
    row = told.row("landlock")
    assert (row["state"], row["required"]) == ("missing", False)


@pytest.mark.plain
@pytest.mark.parametrize("how", ["nested", "no_home", "nested,no_home", "ignoring"])
def test_still_good_host_holds(how: str) -> None:
    assert_good(how)


@pytest.mark.root
def test_mount_beside_workspaces_is_harmless() -> None:
    assert_good("crowded_place")


def assert_good(how: str) -> None:
    """Everything holds, and everything could be tried."""
    told = ask(how)
    assert (told.code, told.errors, told.report["cause"]) == (0, "", None)
    assert not told.keys("missing", required=True)
    assert not told.keys("unknown", required=True)
    assert set(told.canaries().values()) == {"held"}
