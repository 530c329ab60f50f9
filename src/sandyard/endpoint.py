"""Owns the value that says where a port is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sandyard.errors import ArgumentError

__all__ = ["ExposedPortEndpoint"]

_HTTP: Final = 80
_HTTPS: Final = 443


@dataclass(frozen=True, slots=True)
class ExposedPortEndpoint:
    """Where a port of a session is reached.

    Attributes:
        host: name or address.
        port: number.
        tls: whether what listens there speaks TLS.
        query: what is appended to its URLs, without the question mark.

    Example:
        >>> ExposedPortEndpoint("127.0.0.1", 8000).url_for("http")
        'http://127.0.0.1:8000/'
    """

    host: str
    port: int
    tls: bool = False
    query: str = ""

    def url_for(self, scheme: str) -> str:
        """Return its URL, with a slash at the end of the path.

        Args:
            scheme: ``"http"`` or ``"ws"``; with ``tls`` it becomes ``https`` or ``wss``.

        Raises:
            ArgumentError: it is neither.
        """
        known = str(scheme).lower()
        if known not in {"http", "ws"}:
            raise ArgumentError(
                "scheme is 'http' or 'ws'",
                op="resolve_exposed_port",
                argument="scheme",
                value=scheme,
            )
        host = f"[{self.host}]" if ":" in self.host and self.host[0] != "[" else self.host
        standard = _HTTPS if self.tls else _HTTP
        place = host if self.port == standard else f"{host}:{self.port}"
        query = self.query.removeprefix("?")
        end = f"?{query}" if query else ""
        return f"{known}{'s' if self.tls else ''}://{place}/{end}"
