"""Reads addresses: what ``HOST:PORT`` and URLs name."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

__all__ = ["find_address", "read_address"]

_PORT_MAX: Final = 65535

_PORTS: Final = {"ftp": 21, "git": 9418, "http": 80, "https": 443, "ssh": 22, "ws": 80, "wss": 443}
"""The ports of URLs that name none."""


def find_address(text: str) -> tuple[str, int | None] | None:
    """The host and port that a text names, a URL included; None for a path.

    Raises:
        ValueError: it is a URL that names no host.
    """
    if "://" not in text:
        return read_address(text)
    parts = urlsplit(text)
    if not parts.hostname:
        raise ValueError("it names no host")
    return parts.hostname, parts.port or _PORTS.get(parts.scheme)


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
