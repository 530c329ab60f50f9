"""A program of the host with secrets and open doors; run as a script, it tells where they are.

It ends, and takes its System V objects and queues along, when its standard input is closed.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress

SECRET = b"TOPSECRET"
LIBC = ctypes.CDLL(None, use_errno=True)
IPC_CREATE, IPC_REMOVE = 0o1000 | 0o666, 0

selector = selectors.DefaultSelector()


def serve_stream(server: socket.socket) -> None:
    """Let somebody in."""
    peer, _ = server.accept()
    selector.register(peer, selectors.EVENT_READ, serve_peer)


def serve_peer(peer: socket.socket) -> None:
    """Tell the secret to whoever asks."""
    selector.unregister(peer)
    with peer:
        if peer.recv(100):
            peer.sendall(SECRET)


def serve_datagram(server: socket.socket) -> None:
    """Tell the secret to whoever asks and can be answered."""
    _, address = server.recvfrom(100)
    if address:
        server.sendto(SECRET, address)


def listen(family: int, kind: int, address: object) -> socket.socket:
    """Open a door."""
    server = socket.socket(family, kind)
    server.bind(address)  # type: ignore[arg-type]  # of the family's own kind
    stream = kind != socket.SOCK_DGRAM
    if stream:
        server.listen(16)
    selector.register(server, selectors.EVENT_READ, serve_stream if stream else serve_datagram)
    return server


def open_doors(place: str) -> dict[str, object]:
    """Open a door of each kind; returns where they are."""
    doors: dict[str, object] = {}
    for name, family, host in (("4", socket.AF_INET, "127.0.0.1"), ("6", socket.AF_INET6, "::1")):
        try:
            doors["TCP" + name] = listen(family, socket.SOCK_STREAM, (host, 0)).getsockname()[1]
            doors["UDP" + name] = listen(family, socket.SOCK_DGRAM, (host, 0)).getsockname()[1]
        except OSError:
            doors["TCP" + name] = doors["UDP" + name] = 0
    for name, kind in (
        ("STREAM", socket.SOCK_STREAM),
        ("DGRAM", socket.SOCK_DGRAM),
        ("SEQPACKET", socket.SOCK_SEQPACKET),
    ):
        path = f"{place}/{name.lower()}"
        listen(socket.AF_UNIX, kind, path)
        os.chmod(path, 0o777)
        doors[name] = path
    doors["ABSTRACT"] = f"host-program-{os.getpid()}"
    listen(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + str(doors["ABSTRACT"]))
    return doors


def open_objects(number: int) -> tuple[dict[str, object], Callable[[], None]]:
    """Make objects of System V and POSIX; returns where they are, and what removes them."""
    memory, queue = LIBC.shmget(number, 4096, IPC_CREATE), LIBC.msgget(number, IPC_CREATE)
    semaphore = LIBC.semget(number, 1, IPC_CREATE)
    name = f"/host-program-{number}".encode()
    LIBC.mq_open(name, os.O_CREAT | os.O_RDWR, 0o666, None)
    LIBC.shmat.restype = ctypes.c_void_p
    where = LIBC.shmat(memory, None, 0)
    ctypes.memmove(where, SECRET, len(SECRET))

    def remove() -> None:
        LIBC.shmctl(memory, IPC_REMOVE, None)
        LIBC.msgctl(queue, IPC_REMOVE, None)
        LIBC.semctl(semaphore, 0, IPC_REMOVE)
        LIBC.mq_unlink(name)

    return {"KEY": number, "QUEUE": name.decode()}, remove


def main() -> None:
    place = sys.argv[1]
    secret = ctypes.create_string_buffer(SECRET + b" in memory")
    with tempfile.TemporaryFile() as kept:
        kept.write(SECRET)
        kept.flush()
        objects, remove = open_objects(os.getpid())
        terminal, name = os.openpty()
        try:
            facts = open_doors(place) | objects
            facts |= {
                "VICTIM": os.getpid(),
                "ADDRESS": ctypes.addressof(secret),
                "DESCRIPTOR": kept.fileno(),
                "TERMINALS": os.fstat(name).st_dev,
            }
            sys.stdout.write(json.dumps(facts) + "\n")
            sys.stdout.flush()
            selector.register(0, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.data is None:
                        return
                    with suppress(OSError):  # whoever asked has gone
                        key.data(key.fileobj)
        finally:
            remove()
            os.close(terminal)


if __name__ == "__main__":
    main()
