"""Facts of machines that are not at hand: what the doctor makes of them, and which fix it names."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from sandyard.confinement.doctor import judge
from sandyard.confinement.doctor_canaries import judge_canaries, parse_findings
from sandyard.confinement.doctor_plans import PARTS
from sandyard.confinement.doctor_values import DoctorReport, DoctorRow
from sandyard.platform.auditing import AuditStanding
from sandyard.platform.probes_facts import CgroupFacts, MachineFacts, ProgramFacts, Tried

OK = Tried("ok")
UNTRIED = Tried("unknown", text="it was not tried")
PROGRAM = ProgramFacts("/opt/sandyard/lib/sandyard-init", True, True, "")
PROBES = (
    "user", "mount", "mount_inside", "cgroup", "uts", "ipc", "pid", "network", "landlock",
    "no_new_privileges", "seccomp", "pidfd", "memfd", "openat2", "subreaper", "counted_processes",
    "clock", "writable:state", "writable:runtime",
)  # fmt: skip
GOOD = MachineFacts(
    system="linux",
    kernel="6.8.0",
    machine="x86_64",
    distribution=("debian",),
    distribution_name="Debian",
    python="3.12.1",
    version="1.2.3",
    euid=1000,
    program=PROGRAM,
    tried=dict.fromkeys(PROBES, OK)
    | {
        "init_program": Tried("ok", value="1"),
        "runnable:temporary": Tried("ok", "99999999999 -1 0"),
    },
    limits={"open_files": (1024, 4096), "processes": (9999, 9999)},
    places={"temporary": "/tmp", "state": "/home/me/.local/state/sandyard", "runtime": ""},
    shell="/bin/sh",
    landlock=7,
    protocol="1",
    cgroups=(CgroupFacts(2, "/sys/fs/cgroup/me", ("cpu", "memory", "pids"), OK),),
)
ALL_OK = dict.fromkeys(("base", "session", "users", *PARTS), OK)
STARTED = {"session": Tried("refused", "the session's fix", "user", errno.EPERM, "the session")}


def refused(step: str, number: int, text: str = "") -> dict[str, Tried]:
    """What came of asking where the base is refused at a step."""
    return STARTED | {"base": Tried("refused", step=step, errno=number, text=text)}


def row_of(report: DoctorReport, key: str) -> DoctorRow:
    (row,) = [row for row in report.rows if row.key == key]
    return row


def missing(report: DoctorReport) -> list[str]:
    return [row.key for row in report.rows if row.required and row.state == "missing"]


def fix_of(report: DoctorReport) -> str:
    return "\n".join((report.fix or "", *report.commands))


def test_good_machine_holds() -> None:
    report = judge(GOOD, ALL_OK, (), 0.25)
    assert (report.holds, report.rung, report.cause, report.fix) == (True, "full", None, None)
    assert {row.state for row in report.rows} == {"ok"}
    assert not report.proven  # nothing was attempted


def test_further_users_are_optional() -> None:
    refused_users = Tried("refused", "install uidmap", text="newuidmap is missing")
    report = judge(GOOD, ALL_OK | {"users": refused_users}, (), 0)
    row = row_of(report, "subordinate_ids")
    assert (report.holds, missing(report), row.required) == (True, [], False)
    assert (row.state, row.cause, row.fix) == ("missing", "newuidmap is missing", "install uidmap")


# --- AppArmor -------------------------------------------------------------------------------------

UBUNTU = replace(
    GOOD,
    distribution=("ubuntu", "debian"),
    settings={"kernel/apparmor_restrict_unprivileged_userns": 1},
    tried={**GOOD.tried, "mount_inside": Tried("refused", step="mount", errno=errno.EACCES)},
)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_ubuntu_gets_profile_of_path(number: int) -> None:
    report = judge(UBUNTU, refused("private_mounts", number), (), 0)
    assert missing(report) == ["mounting"]
    assert row_of(report, "user_namespace").state == "ok"
    text = fix_of(report)
    assert f"profile sandyard-init {PROGRAM.path} flags=(unconfined) {{" in text
    assert "  userns," in text
    assert "sudo apparmor_parser -r /etc/apparmor.d/sandyard-init" in report.commands
    assert "sysctl" not in text


def test_profile_is_one(tmp_path: Path) -> None:
    """The parser of AppArmor 4.0 or later takes the profile as it is printed (Debian: apparmor)."""
    parser = os.environ.get("SANDYARD_APPARMOR_PARSER") or shutil.which("apparmor_parser")
    if parser is None:
        pytest.skip("needs apparmor_parser 4.0 on PATH, or in SANDYARD_APPARMOR_PARSER")
    lines = judge(UBUNTU, refused("private_mounts", errno.EACCES), (), 0).commands
    start = next(at for at, line in enumerate(lines) if line.endswith("<<'END'"))
    profile = tmp_path / "profile"
    for text, taken in (("", True), ("nonsense,\n", False)):
        profile.write_text("\n".join(lines[start + 1 : lines.index("END")]) + f"\n{text}")
        words = [parser, "--skip-kernel-load", "--skip-cache", str(profile)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if "abi/4.0" in done.stderr:
            pytest.skip(
                "this apparmor_parser is older than AppArmor 4.0, which knows user namespaces"
            )
        assert (done.returncode == 0) == taken, done.stderr


def test_replaceable_program_gets_no_profile() -> None:
    program = replace(PROGRAM, path="/home/me/venv/sandyard-init", replaceable_at="/home/me")
    report = judge(replace(UBUNTU, program=program), refused("private_mounts", 13), (), 0)
    text = fix_of(report)
    assert "/home/me can be changed by others than root" in text
    assert "profile sandyard-init" not in text
    assert "sysctl" not in text


@pytest.mark.parametrize("path", ["/opt/a b/init", "/opt/{a,b}/init", "/opt/'/init", "/opt/*/init"])
def test_odd_path_gets_no_profile(path: str) -> None:
    program = replace(PROGRAM, path=path)
    report = judge(replace(UBUNTU, program=program), refused("private_mounts", 13), (), 0)
    assert report.commands == ()
    assert "/opt/sandyard" in (report.fix or "")


def test_profiled_program_counts_not_probe() -> None:
    """With the profile our program may what the probe, another program, may not."""
    report = judge(UBUNTU, ALL_OK, (), 0)
    assert (report.holds, missing(report)) == (True, [])


# --- containers -----------------------------------------------------------------------------------

BARRED = {
    name: Tried("refused", step="unshare", errno=errno.EPERM)
    for name in ("user", "mount", "mount_inside", "cgroup", "uts", "ipc", "pid", "network")
}


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ("docker", ("docker run", "seccomp=unconfined", "systempaths=unconfined")),
        ("podman", ("podman run", "seccomp=unconfined", "unmask=ALL")),
        ("kubernetes", ("seccompProfile", "procMount: Unmasked")),
        ("lxc", ("lxc", "seccomp")),
    ],
)
def test_container_gets_its_options(container: str, words: tuple[str, ...]) -> None:
    facts = replace(GOOD, container=container, filtered=True, tried={**GOOD.tried, **BARRED})
    report = judge(facts, refused("namespaces", errno.EPERM), (), 0)
    assert missing(report) == ["user_namespace"]
    assert all(word in fix_of(report) for word in words)
    assert "--user" not in fix_of(report)


def test_root_in_container_becomes_user() -> None:
    facts = replace(
        GOOD, euid=0, container="docker", filtered=True, privileged=False,
        tried={**GOOD.tried, **BARRED},
    )  # fmt: skip
    report = judge(facts, refused("namespaces", errno.EPERM), (), 0)
    assert missing(report) == ["mount_namespace"]
    assert "--user 1000:1000" in fix_of(report)


def test_filter_without_container_is_named() -> None:
    facts = replace(GOOD, filtered=True, tried={**GOOD.tried, **BARRED})
    assert "Seccomp: 2" in fix_of(judge(facts, refused("namespaces", errno.EPERM), (), 0))


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ("docker", "systempaths=unconfined"),
        ("podman", "unmask=ALL"),
        ("kubernetes", "procMount: Unmasked"),
        ("", "umount /proc/sys"),
    ],
)
def test_covered_proc_is_uncovered(container: str, words: str) -> None:
    facts = replace(GOOD, container=container, covered=("/proc/sys",))
    proc = Tried("refused", step="mount", errno=errno.EPERM, text="/proc")
    report = judge(facts, {**ALL_OK, **STARTED, "proc": proc}, (), 0)
    assert (missing(report), report.rung) == (["proc"], "full_without_proc")
    assert words in fix_of(report)


# --- settings and kernels -------------------------------------------------------------------------


def test_debian_setting_is_turned_on() -> None:
    facts = replace(
        GOOD, settings={"kernel/unprivileged_userns_clone": 0}, tried={**GOOD.tried, **BARRED}
    )
    text = fix_of(judge(facts, refused("namespaces", errno.EPERM), (), 0))
    assert "kernel.unprivileged_userns_clone=1" in text


def test_count_of_namespaces_is_raised() -> None:
    one = Tried("refused", step="unshare", errno=errno.ENOSPC)
    facts = replace(GOOD, settings={"user/max_net_namespaces": 0})
    trials = {**ALL_OK, **STARTED, "network": replace(one, step="namespaces")}
    report = judge(facts, trials, (), 0)
    assert missing(report) == ["network_namespace"]
    assert "user.max_net_namespaces=15000" in fix_of(report)


def test_loopback_is_told_from_its_namespace() -> None:
    down = Tried("refused", step="loopback", errno=errno.EPERM)
    report = judge(GOOD, {**ALL_OK, **STARTED, "network": down}, (), 0)
    assert missing(report) == ["loopback"]
    assert row_of(report, "network_namespace").state == "ok"


@pytest.mark.parametrize(
    ("abi", "state"), [(0, "missing"), (1, "partial"), (2, "partial"), (5, "partial"), (6, "ok")]
)
def test_landlock_is_no_condition(abi: int, state: str) -> None:
    report = judge(replace(GOOD, landlock=abi), ALL_OK, (), 0)
    row = row_of(report, "landlock")
    assert (row.state, row.required, report.holds) == (state, False, True)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_missing_call_has_its_fix(number: int) -> None:
    tried = Tried("refused", step="openat2", errno=number)
    facts = replace(GOOD, container="docker", tried={**GOOD.tried, "openat2": tried})
    report = judge(facts, refused("source", number, "/dev/null"), (), 0)
    assert missing(report) == ["openat2"]
    wanted = "Linux 5.6 or later" if number == errno.ENOSYS else "up to date"
    assert wanted in fix_of(report)


def test_other_system_is_refused() -> None:
    tried = {"all": Tried("unknown", text="it was not tried")}
    facts = replace(GOOD, system="darwin", tried=tried)
    report = judge(facts, {}, (), 0)
    assert (report.holds, report.rung) == (False, "none")
    assert report.cause == "system: this is darwin"


@pytest.mark.parametrize(
    ("program", "tried", "words"),
    [
        (
            replace(PROGRAM, present=False),
            Tried("refused", step="exec", errno=2),
            "apt install gcc",
        ),
        (PROGRAM, Tried("refused", step="exec", errno=errno.EACCES), "noexec"),
        (replace(PROGRAM, executable=False), Tried("refused", step="exec", errno=13), "chmod 755"),
        (PROGRAM, Tried("refused", step="exec", errno=errno.ENOEXEC), "another processor"),
        (PROGRAM, Tried("ok", value="2"), "reinstall"),
    ],
)
def test_program_has_its_fix(program: ProgramFacts, tried: Tried, words: str) -> None:
    facts = replace(GOOD, program=program, tried={**GOOD.tried, "init_program": tried})
    report = judge(facts, refused("start", tried.errno or 0), (), 0)
    assert missing(report) == ["init_program"]
    assert words in fix_of(report)


def test_delegated_group_is_seen() -> None:
    denied = Tried("refused", step="mkdir", errno=errno.EACCES)
    group = CgroupFacts(2, "/sys/fs/cgroup", ("memory", "pids"), denied)
    row = row_of(judge(replace(GOOD, cgroups=(group,)), ALL_OK, (), 0), "cgroups")
    assert (row.state, row.required) == ("partial", False)
    assert "errno 13" in row.cause
    assert "Delegate=yes" in " ".join(row.commands)
    assert row_of(judge(GOOD, ALL_OK, (), 0), "cgroups").state == "ok"


def test_error_of_session_is_last_resort() -> None:
    odd = Tried("refused", "do this", "start", errno.EIO, "the workspace could not be started")
    report = judge(GOOD, ALL_OK | {"session": odd}, (), 0)
    assert (report.cause, report.fix) == ("the workspace could not be started", "do this")


AUDIT_WORDS = {
    "": None,
    "read": "denials are read from it",
    "off": "not on",
    "closed": "root outside containers alone",
    "distant": "first network namespace",
    "halting": "halts",
    "none": "no audit",
}


@pytest.mark.parametrize("audit", AUDIT_WORDS)
def test_row_of_landlock_tells_of_audit(audit: AuditStanding | Literal[""]) -> None:
    """Whether the audit is read is no reason for a machine to be worse."""
    report = judge(replace(GOOD, audit=audit), ALL_OK, (), 0)
    row, words = row_of(report, "landlock"), AUDIT_WORDS[audit]
    assert (row.state, report.holds) == ("ok", True)
    assert row.found.startswith("ABI 7: files, ")
    assert ("denials" in row.found) == (words is not None)
    assert words is None or words in row.found


# --- canaries -------------------------------------------------------------------------------------


def test_attempt_without_control_shows_nothing() -> None:
    inside = {
        "read_file": (False, "no"),
        "write_file": (False, "no"),
        "see_variable": (True, "yes"),
    }
    outside = {"read_file": (True, "yes"), "write_file": (False, "no")}
    states = {c.key: c.state for c in judge_canaries(inside, outside, root=False, why="")}
    assert states["read_file"] == "held"
    assert states["write_file"] == "uncontrolled"
    assert states["see_variable"] == "broken"
    assert states["connect_port"] == "unknown"
    assert "read_shadow" not in states


def test_one_open_wall_is_enough() -> None:
    canaries = judge_canaries({"see_variable": (True, "yes")}, {}, root=False)
    report = judge(GOOD, ALL_OK, canaries, 0)
    assert (report.holds, report.cause) == (False, "commands got out: see_variable")


@pytest.mark.parametrize("said", [b"", b"[]", b"{", b'{"a": 1}', b"\xff", b"null", b"7"])
def test_nonsense_is_no_finding(said: bytes) -> None:
    assert parse_findings(said) == {}
