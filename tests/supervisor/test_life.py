"""The supervisor's life: one at a time, for one user, whatever ends it, and what is left then."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sandyard import ArgumentError, ServerError, SessionNotFoundError
from sandyard.server.connection import Connection
from sandyard.server.messages import Hello
from sandyard.server.outcomes import Failed, parse_from_server
from sandyard.server.remote import RemoteClient
from sandyard.supervisor.place import SupervisorPlace
from sandyard.supervisor.starting import (
    BUSY,
    READY,
    await_end,
    reach_running,
    reach_supervisor,
)
from tests.cli.calling import call, find_token, make_token
from tests.supervisor.living import connect, is_running, remote, supervisor_pid, wait_until

# Each test starts several programs, one after the other.
pytestmark = pytest.mark.timeout(240)

SUPERVISOR = (sys.executable, "-P", "-m", "sandyard.supervisor")


def test_nobody_is_started_for_list(home: Path) -> None:
    assert call("ls").stdout == call("ps").stdout == b""
    assert reach_running() is None


async def test_two_callers_start_one(home: Path) -> None:
    infos = await asyncio.gather(*(remote().status() for _ in range(6)))
    assert len({info.pid for info in infos}) == 1
    assert is_running(infos[0].pid)


def test_second_gives_way(place: SupervisorPlace) -> None:
    reach_supervisor().close()
    done = subprocess.run(SUPERVISOR, stdout=subprocess.PIPE, timeout=30, check=True)
    assert done.stdout == BUSY


def test_it_ends_when_idle(place: SupervisorPlace) -> None:
    with subprocess.Popen([*SUPERVISOR, "--idle", "0.1"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == READY
        assert process.wait(30) == 0
    assert reach_running() is None


def test_stale_socket_is_replaced(place: SupervisorPlace) -> None:
    directory = os.open(place.path, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as stale:  # closed without being removed
        stale.bind(f"/proc/self/fd/{directory}/supervisor.sock")  # the whole path may be too long
    os.close(directory)
    reach_supervisor().close()
    assert supervisor_pid()


def test_it_is_detached(home: Path) -> None:
    assert call("create", "--name", "kept").returncode == 0
    pid = supervisor_pid()
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    parent, session, terminal = int(stat[1]), int(stat[3]), int(stat[4])
    assert parent != os.getpid()
    assert session != os.getsid(0)
    assert terminal == 0
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    for fd in range(3):
        assert os.readlink(f"/proc/{pid}/fd/{fd}") == os.devnull


def test_secrets_stay_with_caller(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "very-secret")
    assert call("create").returncode == 0
    environ = Path(f"/proc/{supervisor_pid()}/environ").read_bytes()
    assert b"very-secret" not in environ


def test_killed_supervisor_takes_all_along(home: Path) -> None:
    token = make_token()
    assert call("create", "--name", "doomed").returncode == 0
    assert call("exec", "-d", "doomed", "sh", "-c", f"sleep 600; : {token}").returncode == 0
    (listed,) = call("ls", "--json").stdout.splitlines()
    workspace = Path(json.loads(listed)["workspace"])
    assert workspace.is_dir()
    pid = supervisor_pid()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid) and not find_token(token))
    done = call("exec", "doomed", "true")
    assert done.returncode == 125
    assert b"is gone: the supervisor that held it was killed" in done.stderr
    wait_until(lambda: not workspace.exists())
    assert call("ls").stdout == b""
    # And all goes on.
    assert call("create", "--name", "doomed").returncode == 0
    assert call("exec", "doomed", "true").returncode == 0


def test_asked_end_is_clean(place: SupervisorPlace, home: Path) -> None:
    token = make_token()
    assert call("create", "--name", "one").returncode == 0
    assert call("exec", "-d", "one", "sh", "-c", f"sleep 600; : {token}").returncode == 0
    (listed,) = call("ls", "--json").stdout.splitlines()
    os.kill(supervisor_pid(), signal.SIGTERM)
    assert await_end(30)
    assert find_token(token) == []
    assert not Path(json.loads(listed)["workspace"]).exists()
    assert reach_running() is None
    assert sorted(os.listdir(place.path)) == ["supervisor.lock"]
    with pytest.raises(SessionNotFoundError) as caught:
        asyncio.run(remote().session("one").exec("true"))
    assert caught.value.context["reason"] == "unknown"


async def test_killed_callers_harm_nobody(home: Path) -> None:
    client = remote()
    session = await client.create(name="one")
    for words in (
        ["exec", "one", "cat"],
        ["exec", "one", "sh", "-c", "yes"],
        ["logs", "-f", "one", "bg"],
        ["create", "--name", "two"],
        ["ls", "one"],
    ):
        if words[0] == "logs":
            await session.start_process("sleep 600", name="bg")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "sandyard.cli", *words,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        await asyncio.sleep(0.2)  # at some point of its life, whichever
        if process.returncode is None:
            process.kill()
        await process.wait()
    assert (await session.exec("echo fine")).stdout == b"fine\n"
    for _ in range(300):
        left = (await session.exec("cat /proc/[0-9]*/comm")).stdout.split()
        if b"yes" not in left:
            break
        await asyncio.sleep(0.02)
    assert b"yes" not in left
    assert b"sleep" in left  # what runs in the background stays


@pytest.mark.root
def test_foreign_user_is_refused(place: SupervisorPlace, tmp_path: Path) -> None:
    reach_supervisor().close()
    os.chmod(place.path, 0o777)  # as if the directory did not hold
    os.chmod(f"{place.path}/supervisor.sock", 0o777)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == 0 and parent != Path("/") and "pytest" in str(parent):
            parent.chmod(0o755)
    os.chmod(os.environ["XDG_RUNTIME_DIR"], 0o755)
    code = f"""
import os, socket, sys
os.chdir({place.path!r})
sock = socket.socket(socket.AF_UNIX)
sock.connect("supervisor.sock")
data = b""
while part := sock.recv(4096):
    data += part
    if b"foreign" in data: break
print(data)
"""
    done = subprocess.run(
        ["setpriv", "--reuid", "12345", "--clear-groups", sys.executable, "-c", code],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert b"user 12345" in done.stdout, done
    os.chmod(place.path, 0o700)
    assert call("supervisor", "status").returncode == 0


def test_open_directory_is_refused(home: Path) -> None:
    (home / "run" / "sandyard").mkdir(mode=0o755)
    done = call("create")
    assert done.returncode == 125
    assert b"chmod 700" in done.stderr
    (home / "run" / "sandyard").rmdir()


def test_missing_runtime_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert call("create", "--name", "one").returncode == 0
    assert (home / "state" / "sandyard" / "supervisor" / "supervisor.sock").is_socket()
    assert call("exec", "one", "true").returncode == 0
    said = call("supervisor", "status").stdout.decode()
    assert re.fullmatch(
        r"process \d+, sandyard \S+, 1 session, since \d{4}-\d\d-\d\d \d\d:\d\d\n", said
    )
    assert call("supervisor", "stop").returncode == 0


def test_long_path_is_no_matter(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = home / ("long" * 20) / ("long" * 20)
    deep.mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    assert call("create").returncode == 0
    assert call("supervisor", "stop").returncode == 0


def test_full_disk_for_log(home: Path) -> None:
    logs = home / "state" / "sandyard" / "supervisor"
    logs.mkdir(parents=True, mode=0o700)
    (logs / "supervisor.log").symlink_to("/dev/full")
    assert call("create", "--name", "one").returncode == 0
    assert call("exec", "one", "true").returncode == 0


async def test_other_version_is_told(home: Path) -> None:
    connection = await connect()
    async with connection:
        await connection.meet(Hello(protocol=1, version="0.0.1"))
        await connection.say(Hello(protocol=1, version="x"))  # no request at all
        frame = await connection.receive()
    assert frame is not None
    said = parse_from_server(frame.payload)
    assert isinstance(said, Failed)
    assert "sandyard supervisor stop" in said.message


async def test_server_is_not_trusted(home: Path) -> None:
    for answer in (b"\xff" * 64, b"\0\0\0\0\2{}", b""):

        async def reach(answer: bytes = answer) -> Connection:
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            with theirs:
                await asyncio.get_running_loop().sock_sendall(theirs, answer)
            return Connection(*await asyncio.open_unix_connection(sock=ours))

        with pytest.raises(ServerError):
            await RemoteClient(reach).sessions()


async def test_ending_server_is_left(home: Path) -> None:
    ways = []

    async def reach() -> Connection:
        ways.append(True)
        if len(ways) > 1:
            return await connect()
        ours, theirs = socket.socketpair()
        theirs.close()
        return Connection(*await asyncio.open_unix_connection(sock=ours))

    assert await RemoteClient(reach).sessions() == ()
    assert len(ways) == 2


async def test_removed_directory_is_told(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    client = remote()
    with pytest.raises(ArgumentError, match="working directory can't be told") as caught:
        await client.create(name="web")
    assert caught.value.context["argument"] == "directory"
    session = await client.create(name="web", directory="/")
    assert repr(session) == f"<RemoteSession {session.which!r}>"
    with pytest.raises(ArgumentError, match="working directory can't be told"):
        await session.upload("relative", "file")
    await client.delete(session)
