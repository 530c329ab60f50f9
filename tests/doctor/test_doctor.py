"""On a good host the doctor shows that the default policy holds, and tells it well."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from sandyard import UnixLocalSandboxSession
from sandyard.checkup import doctor
from sandyard.confinement.doctor_canaries import CANARIES
from sandyard.confinement.doctor_values import DoctorReport
from sandyard.policy import DIMENSIONS
from tests.doctor.calling import DOCTOR, ask

REPORT_KEYS = {
    "schema", "version", "machine", "holds", "proven", "rung", "starts_on", "lacks", "raises", "cause", "fix",
    "commands", "rows", "canaries", "seconds",
}  # fmt: skip
ROW_KEYS = {
    "key", "group", "purpose", "state", "required", "kernel", "found", "cause", "step", "errno",
    "fix", "commands",
}  # fmt: skip
CANARY_KEYS = {"key", "dimension", "purpose", "state", "inside", "outside"}
ROOT_ONLY = {"identities", "owners_temporary", "owners_current"}
USER_ONLY = {"subordinate_ids"}
ROWS = {
    "system", "kernel", "processor", "python", "sandyard", "init_program", "host_proc", "clock",
    "user_namespace", "mount_namespace", "mounting", "pid_namespace", "uts_namespace",
    "ipc_namespace", "cgroup_namespace", "network_namespace", "loopback", "tmpfs", "pivot_root",
    "bind_mounts", "proc", "devpts", "no_new_privileges", "seccomp", "landlock", "pidfd", "memfd",
    "openat2", "subreaper", "open_files", "processes", "processes_apart", "namespace_number",
    "mount_number", "pipe_pages", "cgroups", "temporary_directory", "state_directory",
    "runtime_directory", "process_view", "shell", "tools",
}  # fmt: skip


@pytest.mark.once
def test_json_has_stable_keys() -> None:
    told = ask()
    report = told.report
    assert (told.code, told.errors) == (0, "")
    assert set(report) == REPORT_KEYS
    assert (report["schema"], report["starts_on"]) == (
        1,
        ["full", "full_without_proc", "landlock_seccomp"],
    )
    assert (report["holds"], report["proven"], report["rung"]) == (True, True, "full")
    assert (report["cause"], report["fix"], report["commands"]) == (None, None, [])
    assert all(row.keys() == ROW_KEYS for row in report["rows"])
    assert all(canary.keys() == CANARY_KEYS for canary in report["canaries"])
    expected = ROWS | (ROOT_ONLY if os.geteuid() == 0 else USER_ONLY)
    assert {row["key"] for row in report["rows"]} == expected
    assert len(report["rows"]) == len(expected)


def test_all_that_is_needed_is_there() -> None:
    told = ask()
    assert not told.keys("missing", required=True)
    assert not told.keys("unknown", required=True)
    assert "ABI" in told.row("landlock")["found"]
    assert told.row("init_program")["found"].endswith("protocol 1")


def test_every_attempt_has_its_control() -> None:
    told = ask()
    expected = set(CANARIES) - (set() if os.geteuid() == 0 else {"read_shadow"})
    assert told.canaries() == dict.fromkeys(expected, "held")
    assert all(canary["outside"] == "it worked" for canary in told.report["canaries"])
    tried = {canary["dimension"] for canary in told.report["canaries"]}
    assert tried == {*DIMENSIONS, ""}


@pytest.mark.once
def test_text_fits_terminal() -> None:
    done = subprocess.run(
        DOCTOR, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "80"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in done.stdout
    assert lines[-1] == "The default policy holds here."


async def test_is_a_call_of_the_library() -> None:
    environment = dict(os.environ)
    report = await doctor()
    assert isinstance(report, DoctorReport)
    assert report.holds
    assert dict(os.environ) == environment
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.holds = False  # type: ignore[misc]


async def test_open_wall_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that shows the host's files and passes variables on, which the doctor must tell."""
    begin = UnixLocalSandboxSession.start

    async def start(session: UnixLocalSandboxSession) -> None:
        variables = [name for name in os.environ if name.startswith("SANDYARD_DOCTOR_")]
        names = await asyncio.to_thread(os.listdir, tempfile.gettempdir())
        (directory,) = [name for name in names if name.startswith("sandyard-doctor-")]
        session.policy = dataclasses.replace(
            session.policy,
            inherit=tuple(variables),
            writes=(f"{tempfile.gettempdir()}/{directory}",),
            network="host",
            syscalls=("ptrace",),
        )
        await begin(session)

    monkeypatch.setattr(UnixLocalSandboxSession, "start", start)
    report = await doctor()
    states = {canary.key: canary.state for canary in report.canaries}
    got_out = {"read_file", "write_file", "connect_port", "connect_path", "see_variable"}
    got_out |= {"trace_process"}
    assert {key for key, state in states.items() if state == "broken"} == got_out
    assert states["see_process"] == states["open_many"] == "held"
    assert (report.holds, report.proven) == (False, False)
    assert report.cause is not None
    assert report.cause.startswith("commands got out: ")


@pytest.mark.once
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_leaves_nothing(number: signal.Signals) -> None:
    """Ended at the moment at which the most exists: while the attempts are prepared."""
    before = set(os.listdir(tempfile.gettempdir()))
    running = subprocess.Popen(
        DOCTOR, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    while running.poll() is None:
        new = set(os.listdir(tempfile.gettempdir())) - before
        if any(name.startswith("sandbox-local-") for name in new):
            running.send_signal(number)
            break
    _, said = running.communicate(timeout=30)
    assert b"Traceback" not in said
    assert running.returncode in (128 + number, 0)
    assert set(os.listdir(tempfile.gettempdir())) == before


@pytest.mark.once
def test_help_tells_exit_codes() -> None:
    words = (sys.executable, "-P", "-m", "sandyard.cli", "doctor", "--help")
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "Exit codes" in done.stdout


@pytest.mark.once
def test_reader_may_stop() -> None:
    out, into = os.pipe()
    os.close(out)
    with os.fdopen(into, "wb") as stopped:
        done = subprocess.run(DOCTOR, stdout=stopped, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


async def test_cancelled_doctor_leaves_no_bait(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The cancellation comes while a thread makes the bait; what it makes then is taken away."""
    task = asyncio.ensure_future(doctor())
    loop, make, baits = asyncio.get_running_loop(), tempfile.mkdtemp, list[str]()

    def make_and_cancel(prefix: str) -> str:
        baits.append(make(prefix=prefix, dir=tmp_path))
        loop.call_soon_threadsafe(task.cancel)
        while not task.cancelling():
            time.sleep(0.001)
        return baits[-1]

    monkeypatch.setattr("sandyard.checkup.tempfile.mkdtemp", make_and_cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(baits) == 1
    assert not os.listdir(tmp_path)
    assert not any(name.startswith("SANDYARD_DOCTOR_") for name in os.environ)
