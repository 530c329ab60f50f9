"""Ports of a session as this machine's programs reach them, and what can go wrong with them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from sandyard import (
    ArgumentError,
    ExposedPortEndpoint,
    ExposedPortTimeoutError,
    ExposedPortUnavailableError,
    Policy,
    SessionClosedError,
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
    UnixLocalSandboxSession,
)
from sandyard.network import publishing
from sandyard.process.passing import taken_socket
from sandyard.process.wire import ProtocolError
from tests.cli.calling import SANDYARD
from tests.network.host import ECHO, converse, free_port
from tests.session.host import POLL_S, find_survivors, make_token, open_descriptors, until

Session = UnixLocalSandboxSession
MEGABYTE = bytes(range(256)) * 4096
TRY = "import socket,sys; print(socket.socket().connect_ex(('127.0.0.1', int(sys.argv[1]))))"

LISTEN = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    print(flush=True)
    server.accept()
"""


@asynccontextmanager
async def opened(*ports: int, policy: Policy | None = None) -> AsyncIterator[Session]:
    """A session that runs, with these ports."""
    client = UnixLocalSandboxClient(policy=policy)
    session = await client.create(options=UnixLocalSandboxClientOptions(ports))
    try:
        async with session:
            yield session
    finally:
        await client.delete(session)


async def serve(session: Session, port: int, *words: str) -> None:
    """Start an echoing server inside, and wait for it."""
    await session.start_process("python3", "-c", ECHO, str(port), *words, shell=False)
    await session.wait_for_port(port)


async def answers(port: int) -> bool:
    """Whether a connection of this machine's is taken, and stays for a byte."""
    try:
        return await converse(port, b"x") == b"x"
    except OSError:
        return False


async def until_answered(port: int) -> None:
    """Wait until a connection is taken: where we ask from, nobody else can tell."""
    async with asyncio.timeout(60):
        while not await answers(port):  # noqa: ASYNC110  # what happens inside sets no event
            await asyncio.sleep(POLL_S)


async def test_server_inside_is_reached() -> None:
    port, other = free_port(), free_port()
    async with opened(port) as session:
        assert not await answers(port)  # nobody listens inside
        await session.write("index.html", b"from inside")
        server = await session.start_process(f"exec python3 -m http.server {port}")
        endpoint = await session.wait_for_port(port, timeout=60)
        assert endpoint == await session.resolve_exposed_port(port)
        assert endpoint == ExposedPortEndpoint(host="127.0.0.1", port=port)
        page = await asyncio.to_thread(lambda: urlopen(endpoint.url_for("http")).read())  # noqa: S310
        assert page == b"from inside"
        assert (await converse(port, b"GET / HTTP/1.0\r\n\r\n", "::1")).endswith(b"from inside")
        with pytest.raises(ExposedPortUnavailableError, match="made with") as undeclared:
            await session.resolve_exposed_port(other)
        assert undeclared.value.context["reason"] == "not_configured"
        await server.close()
        with pytest.raises(ExposedPortTimeoutError, match=r"within 0\.05 s"):
            await session.wait_for_port(port, timeout=0.05)
        waiting = asyncio.create_task(session.wait_for_port(port))
        await asyncio.sleep(0)
        await session.shutdown()
        with pytest.raises(SessionClosedError):
            await waiting
        with pytest.raises(ConnectionRefusedError):
            await converse(port, b"")
        await session.start()
        await serve(session, port, "6")  # as servers do that find ::1 first
        assert await converse(port, b"again") == b"again"


async def test_bytes_pass_whole_and_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr(publishing, "PORT_DESCRIPTORS_SHARE", 1)
    async with opened(port) as session:
        await serve(session, port)
        assert await converse(port, MEGABYTE) == MEGABYTE
        said = [str(number).encode() * 999 for number in range(100)]
        assert await asyncio.gather(*(converse(port, one) for one in said)) == said


async def test_connections_are_limited_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    port, before = free_port(), open_descriptors()
    monkeypatch.setattr(publishing, "PORT_CONNECTIONS_MAX", 2)
    async with opened(port) as session:
        await serve(session, port)
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for reader, writer in held:
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
        assert not await answers(port)  # one too many
        held[0][1].transport.abort()
        await until_answered(port)
        await session.shutdown()
        with pytest.raises(ConnectionResetError):  # broken off is not ended
            await held[1][0].read()
        held[1][1].close()
    del held, reader, writer
    await until(lambda: open_descriptors() <= before)


async def test_taken_port_is_an_error() -> None:
    port = free_port()
    async with opened(port):
        with pytest.raises(ExposedPortUnavailableError, match="taken by this program") as again:
            async with opened(port):
                pass
    assert (again.value.op, again.value.reason, again.value.retryable) == ("start", "taken", True)
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LISTEN, str(port)), stdout=asyncio.subprocess.PIPE
    )
    assert other.stdout is not None
    await other.stdout.readline()
    with pytest.raises(ExposedPortUnavailableError, match=f"process {other.pid} "):
        async with opened(port):
            pass
    other.kill()
    await other.wait()
    async with opened(port) as session:  # it can be had now
        await serve(session, port)
        assert await answers(port)


async def test_ports_lead_inside_alone() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as outside:
        async with opened(port) as session:
            for number in (port, outside.getsockname()[1]):
                tried = await session.exec("python3", "-c", TRY, str(number), shell=False)
                assert tried.stdout == b"111\n", number  # ECONNREFUSED
            await serve(session, port)
            async with opened() as neighbour:
                tried = await neighbour.exec("python3", "-c", TRY, str(port), shell=False)
                assert tried.stdout == b"111\n"


@pytest.mark.once
async def test_shared_network_publishes_nothing() -> None:
    port = free_port()
    async with opened(port, policy=Policy(network="host")) as session:
        with pytest.raises(ConnectionRefusedError):
            await converse(port, b"")
        await serve(session, port)
        assert await answers(port)


HOST = """
import asyncio, sys
from sandyard import UnixLocalSandboxClient

async def main():
    session = await UnixLocalSandboxClient().create(options={"exposed_ports": int(sys.argv[1])})
    await session.start()
    await session.start_process("python3", "-c", sys.argv[2], sys.argv[1], "4", sys.argv[3], shell=False)
    await session.wait_for_port(int(sys.argv[1]))
    print("ready", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


async def test_ports_end_with_a_killed_host(tmp_path: Path) -> None:
    port, token = free_port(), make_token()
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOST, str(port), ECHO, token),
        env=os.environ
        | {
            "TMPDIR": str(tmp_path),
            "XDG_STATE_HOME": str(tmp_path),
            "PYTHONPATH": ":".join(sys.path),
        },
        stdout=asyncio.subprocess.PIPE,
    )
    assert program.stdout is not None
    assert await program.stdout.readline() == b"ready\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    program.send_signal(signal.SIGKILL)
    await program.wait()
    with pytest.raises(ConnectionRefusedError):
        await converse(port, b"")
    writer.close()
    await until(lambda: not find_survivors(token))


@pytest.mark.once
async def test_command_line_exposes(tmp_path: Path) -> None:
    port, other = free_port(), free_port()
    words = ("run", "--port", str(port), "--port", str(other), "python3", "-c", ECHO, str(port))
    program = await asyncio.create_subprocess_exec(*SANDYARD, *words, cwd=tmp_path)
    await until_answered(port)
    assert await converse(port, b"hello", "::1") == b"hello"
    assert not await answers(other)
    program.terminate()
    assert await program.wait() == 128 + signal.SIGTERM
    with pytest.raises(ConnectionRefusedError):
        await converse(port, b"")


async def test_process_is_waited_for_by_its_port() -> None:
    port = free_port()
    async with opened(port) as session:
        asked = asyncio.create_task(session.wait_for_port(port))
        words = ("python3", "-c", ECHO, str(port))
        server = await session.start_process(*words, name="echo", shell=False)
        assert await server.wait_for_port(port) == await asked
        assert await converse(port, b"hello") == b"hello"
        with pytest.raises(ExposedPortUnavailableError, match="made with"):
            await server.wait_for_port(free_port())
        waiting = asyncio.create_task(server.wait_for_port(port))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        again = await session.start_process(*words, shell=False)  # the address is in use
        await again.wait()
        with pytest.raises(ExposedPortUnavailableError, match="ended with exit code 1 "):
            await again.wait_for_port(port)
        await server.close()
        slow = await session.start_process("sleep 600")
        with pytest.raises(ExposedPortTimeoutError, match=r"within 0\.05 s"):
            await slow.wait_for_port(port, timeout=0.05)


async def test_failing_server_is_told_at_once() -> None:
    port = free_port()
    async with opened(port) as session:
        server = await session.start_process("read -r _; exit 7", name="web", stdin=True)
        waiting = asyncio.create_task(server.wait_for_port(port, timeout=600))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await server.stdin.close()
        with pytest.raises(ExposedPortUnavailableError, match="process web ended") as caught:
            await waiting
        assert caught.value.reason == "process_ended"
        assert caught.value.context["exit_code"] == 7
        assert caught.value.op == "wait_for_port"
        # A server that goes into the background by itself lives on when its command has exited.
        words = ("setsid", "python3", "-c", ECHO, str(port), "&")
        daemon = await session.start_process(" ".join([*words[:3], f"'{ECHO}'", *words[4:]]))
        assert (await daemon.wait()).exit_code == 0
        await daemon.wait_for_port(port)


@pytest.mark.once
@pytest.mark.parametrize("kind", ["pipe", "unix", "udp", "ipv6"])
def test_only_asked_sockets_are_taken(kind: str) -> None:
    made = {
        "unix": (socket.AF_UNIX, socket.SOCK_STREAM),
        "udp": (socket.AF_INET, socket.SOCK_DGRAM),
        "ipv6": (socket.AF_INET6, socket.SOCK_STREAM),
    }
    fds = [*os.pipe()] if kind == "pipe" else [socket.socket(*made[kind]).detach()]
    passed = fds[:1]
    with pytest.raises(ProtocolError):
        taken_socket(passed, socket.AF_INET)
    assert passed == fds[:1]
    for fd in fds:
        os.close(fd)


@pytest.mark.once
def test_urls_of_an_endpoint() -> None:
    plain = ExposedPortEndpoint("127.0.0.1", 8000)
    assert (plain.url_for("HTTP"), plain.url_for("ws")) == (
        "http://127.0.0.1:8000/",
        "ws://127.0.0.1:8000/",
    )
    secure = ExposedPortEndpoint("::1", 443, tls=True, query="?a=b")
    assert secure.url_for("ws") == "wss://[::1]/?a=b"
    assert ExposedPortEndpoint("h", 443).url_for("http") == "http://h:443/"
    with pytest.raises(ArgumentError, match="'http' or 'ws'"):
        plain.url_for("ftp")
