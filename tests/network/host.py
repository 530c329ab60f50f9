"""What tests of ports use: a free number, a server for inside, and a client of this machine."""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import closing

__all__ = ["ECHO", "converse", "free_port"]

ECHO = """
import socket, sys, threading

def serve(one):
    with one:
        while data := one.recv(65536):
            one.sendall(data)

family = socket.AF_INET6 if sys.argv[2:] == ["6"] else socket.AF_INET
place = "::1" if family == socket.AF_INET6 else "127.0.0.1"
with socket.create_server((place, int(sys.argv[1])), family=family, backlog=128) as server:
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""
"""Says what it hears until the other side has said all, and then ends too; "6" for ::1 alone."""

_BELOW_EPHEMERAL = range(20_000, 32_000)


def free_port() -> int:
    """A number that nobody listens on here, and that the kernel gives to no connection."""
    while True:
        port = random.choice(_BELOW_EPHEMERAL)  # noqa: S311  # nobody need not guess it
        try:
            for family, place in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                with closing(socket.socket(family)) as probe:
                    probe.bind((place, port))
        except OSError:
            continue
        return port


async def converse(port: int, said: bytes, host: str = "127.0.0.1") -> bytes:
    """What a server answers to something, after which we have said all."""
    reader, writer = await asyncio.open_connection(host, port)
    answer = asyncio.ensure_future(reader.read())
    try:
        writer.write(said)
        await writer.drain()
        writer.write_eof()
        return await answer
    finally:
        answer.cancel()
        await asyncio.wait([answer])
        writer.close()
        if not answer.cancelled():
            answer.exception()  # a broken connection tells the writer, too
