"""Attacks through what is open on the host: sockets, shared objects, the network, terminals."""

from __future__ import annotations

from typing import Final

from tests.escape.attacks import Attack, python

__all__ = ["LOCAL", "NETWORK", "TERMINALS"]

HEAD: Final = "import socket\nB = os.environ\n"
STREAM, DATAGRAM = "socket.SOCK_STREAM", "socket.SOCK_DGRAM"


def connect(name: str, family: str, kind: str, address: str, *, needs: str = "") -> Attack:
    """Ask the host program for its secret."""
    return python(
        name,
        f"{HEAD}s = socket.socket(socket.{family}, {kind})\n"
        f"s.settimeout(1)\ns.connect({address})\ns.send(b'?')\n"
        "escape_if(s.recv(20) == b'TOPSECRET')",
        needs=needs,
    )


LOCAL: Final = (
    connect("path_stream", "AF_UNIX", STREAM, "B['BAIT_STREAM']"),
    python("path_datagram", f"{HEAD}s = socket.socket(socket.AF_UNIX, {DATAGRAM})\n"
           "s.connect(B['BAIT_DGRAM'])\ntell('ESCAPE')"),
    connect("path_packets", "AF_UNIX", "socket.SOCK_SEQPACKET", "B['BAIT_SEQPACKET']"),
    connect("path_by_root_link", "AF_UNIX", STREAM, "'/proc/self/root' + B['BAIT_STREAM']"),
    connect("path_by_parent", "AF_UNIX", STREAM, "'../doors/stream'"),
    connect("abstract", "AF_UNIX", STREAM, "chr(0) + B['BAIT_ABSTRACT']"),
    python("list_abstract", "escape_if(os.environ['BAIT_ABSTRACT'] in "
           "open('/proc/net/unix').read())"),
    python("shared_memory", "\n".join((
        "LIBC.shmat.restype = ctypes.c_void_p",
        "where = LIBC.shmat(LIBC.shmget(int(os.environ['BAIT_KEY']), 0, 0), None, 0o10000)",
        "escape_if(where not in (None, 2**64 - 1) and ctypes.string_at(where, 9) == b'TOPSECRET')",
    ))),
    python("message_queue", "escape_if(LIBC.msgget(int(os.environ['BAIT_KEY']), 0) >= 0)"),
    python("semaphore", "escape_if(LIBC.semget(int(os.environ['BAIT_KEY']), 0, 0) >= 0)"),
    python("posix_queue", "escape_if(LIBC.mq_open(os.environ['BAIT_QUEUE'].encode(), 0) >= 0)"),
    python("list_objects", "escape_if(str(int(os.environ['BAIT_KEY'])) in "
           "open('/proc/sysvipc/shm').read().split())"),
    python("engine_sockets", "\n".join((
        HEAD,
        "for path in ('/run/docker.sock', '/var/run/docker.sock', '/run/podman/podman.sock',",
        "             '/run/containerd/containerd.sock', '/run/dbus/system_bus_socket',",
        "             '/run/systemd/private', '/run/nscd/socket', B['BAIT_STREAM']):",
        "    try:",
        "        socket.socket(socket.AF_UNIX).connect(path)",
        "        tell('ESCAPE', path)",
        "    except OSError as error:",
        "        tell(path, error)",
    ))),
)  # fmt: skip

LOOPBACK_4, LOOPBACK_6 = "('127.0.0.1', int(B['BAIT_{}4']))", "('::1', int(B['BAIT_{}6']))"
V6: Final = "IPv6"

NETWORK: Final = (
    connect("tcp", "AF_INET", STREAM, LOOPBACK_4.format("TCP")),
    connect("udp", "AF_INET", DATAGRAM, LOOPBACK_4.format("UDP")),
    connect("tcp6", "AF_INET6", STREAM, LOOPBACK_6.format("TCP"), needs=V6),
    connect("udp6", "AF_INET6", DATAGRAM, LOOPBACK_6.format("UDP"), needs=V6),
    connect("mapped", "AF_INET6", STREAM, "('::ffff:127.0.0.1', int(B['BAIT_TCP4']))", needs=V6),
    connect("any_address", "AF_INET", STREAM, "('0.0.0.0', int(B['BAIT_TCP4']))"),
    connect("multipath", "AF_INET", STREAM + ", 262", LOOPBACK_4.format("TCP"),
            needs="a kernel with MPTCP"),
    python("list_listeners", "\n".join((
        "escape_if('%04X' % int(os.environ['BAIT_TCP4']) in open('/proc/net/tcp').read())",
    ))),
    python("new_interface", "\n".join((
        HEAD,
        "import fcntl, struct",
        "s = socket.socket()",
        "request = struct.pack('16sH14s', b'lo', 1, b'')",
        "fcntl.ioctl(s, 0x8914, struct.pack('16sH14s', b'lo', 0x49, b''))",
        "tell('ESCAPE')",
    )), needs="root"),
)  # fmt: skip

OWN_TERMINAL: Final = "\n".join((
    "import fcntl, struct",
    "master, slave = os.openpty()",
    "child = os.fork()",
    "if child:",
    "    os.waitpid(child, 0)",
    "    os._exit(0)",
    "os.setsid()",
    "call('ioctl', slave, 0x540E, 0)",
    "pushed = ctypes.create_string_buffer(b'x')",
    "",
))  # fmt: skip

TERMINALS: Final = (
    python("push_input", OWN_TERMINAL
           + "attempt('ioctl', slave, 0x5412, ctypes.addressof(pushed))\nos._exit(0)",
           needs="a kernel that still lets terminals be typed into"),
    python("push_input_high_half", OWN_TERMINAL
           + "attempt('ioctl', slave, 0x77_0000_5412, ctypes.addressof(pushed))\nos._exit(0)",
           needs="a kernel that still lets terminals be typed into"),
    python("console_paste", OWN_TERMINAL
           + "reach('ioctl', slave, 0x541C, ctypes.addressof(pushed))\nos._exit(0)"),
    python("terminals_of_the_host", "\n".join((
        "for name in os.listdir('/dev/pts'):",
        "    if name.isdigit():",
        "        try: held = os.open('/dev/pts/' + name, os.O_WRONLY | os.O_NOCTTY)",
        "        except PermissionError as error: tell(error); continue  # somebody else's",
        "        escape_if(os.fstat(held).st_dev == int(os.environ['BAIT_TERMINALS']), name)",
    ))),
    python("consoles", "\n".join((
        "for name in ('console', 'tty0', 'tty1', 'ttyS0', 'vcs', 'vcs1'):",
        "    try:",
        "        os.open('/dev/' + name, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)",
        "        tell('ESCAPE', name)",
        "    except OSError as error: tell(error)",
    )), needs="root and a console"),
)  # fmt: skip
