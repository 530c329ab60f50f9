"""The network inside is a loopback of the session's own, and sockets of the host in grants."""

from __future__ import annotations

import errno
import socket

import pytest

from sandyard import Policy
from tests.escape.bait import Bait
from tests.escape.inside import run_host, run_python, sandbox
from tests.escape.runner import confine

UNREACHABLE = (
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "10.0.0.1",
    "172.17.0.1",
    "192.168.0.1",
    "192.0.2.1",
    "198.51.100.7",
    "224.0.0.1",
    "fd00:ec2::254",
    "2001:db8::1",
    "fe80::1%lo",
)

CONNECT = """
import socket
for address in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        s = socket.socket(family, kind)
        s.settimeout(5)
        try: s.connect((address, 80)); s.send(b"x"); tell("ESCAPE", address, kind)
        except OSError as error: tell(error.errno, address)
"""

SERVE = """
import socket
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
d.bind(("127.0.0.1", int(sys.argv[1])))
u = socket.socket(socket.AF_UNIX)
u.bind(chr(0) + "meeting")
u.listen()
if os.fork(): os._exit(0)
os.setsid()
for fd in range(3): os.close(fd)
while True:
    peer, _ = s.accept()
    peer.sendall(b"inside")
    peer.close()
"""


async def test_no_address_is_reachable() -> None:
    async with sandbox() as session:
        result = await run_python(session, CONNECT, *UNREACHABLE)
    lines = result.stdout.decode().splitlines()
    assert len(lines) == 2 * len(UNREACHABLE)
    refusals = {errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EHOSTUNREACH, errno.EINVAL}
    for line in lines:
        # At once and by the kernel: not by a server or a timeout out there.
        assert line.split()[0].isdigit(), line
        assert int(line.split()[0]) in refusals or "fe80::1" in line, line


async def test_names_lead_nowhere() -> None:
    code = """
import socket
for name in ("example.com", "metadata.google.internal", "host.docker.internal"):
    try: tell("ESCAPE", socket.getaddrinfo(name, 80))
    except OSError as error: tell(error)
tell(socket.getaddrinfo("localhost", 80)[0][4])
"""
    async with sandbox() as session:
        result = await run_python(session, code)
    assert b"ESCAPE" not in result.stdout, result
    assert b"127.0.0.1" in result.stdout or b"::1" in result.stdout


async def test_only_loopback_is_there() -> None:
    async with sandbox() as session:
        result = await session.exec("cat /proc/net/dev | tail -n +3 | cut -d: -f1; cat /etc/hosts")
    assert result.stdout.split()[0] == b"lo"
    assert socket.gethostname().encode() not in result.stdout
    assert b"\n    lo" not in result.stdout[6:]


async def test_sessions_do_not_meet() -> None:
    """Two servers at one port, and no way from one session, or from the host, to the other."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    ask = f"""
import socket
try: tell(socket.create_connection(("127.0.0.1", {port}), 5).recv(9).decode())
except OSError as error: tell(error.errno)
try: socket.socket(socket.AF_UNIX).connect(chr(0) + "meeting"); tell("met")
except OSError as error: tell(error.errno)
"""
    nothing = [str(errno.ECONNREFUSED).encode()] * 2
    async with sandbox() as first, sandbox() as second:
        assert (await run_python(first, ask)).stdout.split() == nothing
        await run_python(first, SERVE, str(port))
        assert (await run_python(first, ask)).stdout.split() == [b"inside", b"met"]
        assert (await run_python(second, ask)).stdout.split() == nothing
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
        await run_python(second, SERVE, str(port))
        assert (await run_python(second, ask)).stdout.split() == [b"inside", b"met"]


async def test_abstract_sockets_stay_closed_with_the_host_network(bait: Bait) -> None:
    code = "import socket\nsocket.socket(socket.AF_UNIX).connect(chr(0) + sys.argv[1])"
    run_host("python3", "-c", f"import sys\n{code}", bait.variables["BAIT_ABSTRACT"])
    async with sandbox(Policy(network="host")) as session:
        address = f"('127.0.0.1', {bait.variables['BAIT_TCP4']})"
        await run_python(session, f"import socket\nsocket.create_connection({address}, 5)")
        code = f"{code}\ntell('ESCAPE')".replace("\nsocket", "\ntry: socket", 1)
        code = code.replace("\ntell", "; tell") + "\nexcept OSError as error: tell(error.errno)"
        result = await run_python(session, code, bait.variables["BAIT_ABSTRACT"])
    assert result.stdout.strip() == str(errno.EPERM).encode(), result


async def test_socket_in_a_grant_is_reachable(bait: Bait) -> None:
    """Documented: a door that a host program puts into a granted directory is open there."""
    code = """
import socket
for name in ("STREAM", "SEQPACKET"):
    s = socket.socket(socket.AF_UNIX, getattr(socket, "SOCK_" + name))
    s.connect(os.environ["BAIT_" + name])
    s.send(b"?")
    tell(s.recv(20).decode())
"""
    async with confine(bait, ("doors",)) as session:
        result = await run_python(session, code, env=bait.variables)
        assert result.stdout.split() == [b"TOPSECRET"] * 2
        beside = await session.exec(f"rm {bait.base}/doors/stream; cat {bait.base}/home/data")
        assert b"TOPSECRET" not in beside.stdout
        report = session.confinement
        assert report is not None
        assert f"{bait.base}/doors/" in report.ipc.why, "the start says which"
    assert (bait.base / "doors" / "stream").is_socket()
