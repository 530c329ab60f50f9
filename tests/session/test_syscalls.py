"""Options for system calls: what a debugger may do with the policy's leave, and what it still may not."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from sandyard import Policy, UnixLocalSandboxClient

TRACING = """
import ctypes, errno, os, signal
libc = ctypes.CDLL(None, use_errno=True)
SEIZE, DETACH = 0x4206, 17

def seize(pid):
    if libc.ptrace(SEIZE, pid, None, None) == 0:
        return "ok"
    return errno.errorcode[ctypes.get_errno()]

child = os.fork()
if child == 0:
    signal.pause()
print("child", seize(child))
print("first process", seize(1))
print("keeper", seize(os.getppid()))
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
"""


async def traced(policy: Policy, *command: str) -> tuple[int, str, str]:
    client = UnixLocalSandboxClient(policy=policy)
    session = await client.create()
    try:
        async with session:
            result = await session.exec(*command, shell=False, timeout=60)
    finally:
        await client.delete(session)
    return result.exit_code, result.stdout.decode(), result.stderr.decode()


@pytest.mark.parametrize(("syscalls", "child"), [((), "EPERM"), (("ptrace",), "ok")])
async def test_tracing(syscalls: tuple[str, ...], child: str) -> None:
    policy = Policy(syscalls=syscalls)  # type: ignore[arg-type]
    code, said, complaint = await traced(policy, "python3", "-c", TRACING)
    assert (code, complaint) == (0, "")
    # What holds the session together stays closed to those who may trace each other.
    assert said.splitlines() == [f"child {child}", "first process EPERM", "keeper EPERM"]


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
async def test_debugger_runs() -> None:
    command = (
        "gdb",
        "-nx",
        "-batch",
        "-ex",
        "break main",
        "-ex",
        "run",
        "-ex",
        "kill",
        "/bin/true",
    )
    _, said, _ = await traced(Policy(syscalls=("ptrace",)), *command)
    assert "exited normally" in said or "Breakpoint" in said, said


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
async def test_tracer_runs() -> None:
    policy = Policy(syscalls=("ptrace",))
    script = "strace -f -qq -o trace -e trace=mkdir mkdir made; cat trace; chroot / true"
    code, said, complaint = await traced(policy, "sh", "-c", script)
    assert 'mkdir("made", 0777)' in said
    assert code != 0
    assert "ermission denied" in complaint or "not permitted" in complaint


async def test_unix_sockets_closed() -> None:
    script = """
import socket
socket.socketpair()[0].close()
try:
    socket.socket(socket.AF_UNIX)
except OSError as error:
    print(error.strerror)
"""
    policy = Policy(syscalls=("no-unix-sockets",))
    assert await traced(policy, "python3", "-W", "ignore", "-c", script) == (
        0,
        "Address family not supported by protocol\n",
        "",
    )


async def test_datagram_pairs_lead_nowhere(tmp_path: Path) -> None:
    """From one end of such a pair connect(2) leads to any socket that a host program has put there."""
    script = """
import socket, sys
try:
    socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"hello", sys.argv[1])
except OSError as error:
    print(error.strerror)
"""
    address = f"{tmp_path}/socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as host:
        host.bind(address)
        host.setblocking(False)
        policy = Policy(reads=(str(tmp_path),), syscalls=("no-unix-sockets",))
        told = await traced(policy, "python3", "-W", "ignore", "-c", script, address)
        assert told == (0, "Socket type not supported\n", "")
        with pytest.raises(BlockingIOError):
            host.recv(8)


async def test_workspace_is_home() -> None:
    _, said, _ = await traced(
        Policy(home="workspace"), "sh", "-c", 'cd; test "$PWD" = "$HOME" && pwd'
    )
    assert "/sandbox-local-" in said
