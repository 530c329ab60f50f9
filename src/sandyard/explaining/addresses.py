"""Reads addresses: what ``HOST:PORT`` and URLs name."""

from __future__ import annotations

from typing import Final

__all__ = ["read_address"]

_PORT_MAX: Final = 65535


def read_address(text: str) -> tuple[str, int] | None:
    """The host and port of ``HOST:PORT`` or ``[HOST]:PORT``; None if the text is something else."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > _PORT_MAX:
        return None
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], int(port)
    if not host or any(char in "/[]:" or char.isspace() for char in host):
        return None
    return host, int(port)
