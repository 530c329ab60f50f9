"""The port verbs of a session: where its servers are reached, and the wait until they listen."""

from __future__ import annotations

import asyncio
import socket
from abc import abstractmethod
from typing import TYPE_CHECKING

from sandyard.errors import (
    ArgumentError,
    ArgumentTypeError,
    ExposedPortTimeoutError,
    ExposedPortUnavailableError,
    SessionClosedError,
)
from sandyard.limits import PORT_WAIT_TIMEOUT_S, TIMEOUT_MAX_S
from sandyard.observing import observed
from sandyard.verb_bases import VerbBase

if TYPE_CHECKING:
    from sandyard.endpoint import ExposedPortEndpoint
    from sandyard.errors import OpName
    from sandyard.network.publishing import PublishedPorts
    from sandyard.process import InitProcess

__all__ = ["PortVerbs"]


class PortVerbs(VerbBase):
    """What a session does with the ports that it was made with, while it runs."""

    _init: InitProcess | None
    _ports: PublishedPorts | None = None

    @abstractmethod
    async def _end_sandbox(self) -> None:
        """End the sandbox, and its ports with it."""

    @observed("resolve_exposed_port")
    async def resolve_exposed_port(self, port: int) -> ExposedPortEndpoint:
        """Tell where a port of the session is reached from this machine.

        A server inside listens on ``localhost`` or on all addresses. This machine's programs reach it
        on the same number of their own loopback, from the session's start to its end. Nobody need
        listen yet: until then connections are reset. ``wait_for_port`` waits for that.

        Args:
            port: one of those that the session was made with
                (``UnixLocalSandboxClientOptions(exposed_ports=…)``).

        Raises:
            ExposedPortUnavailableError: it is none of them.
            ArgumentTypeError: it is no number.
            SessionClosedError: the session is not running.

        Example:
            >>> (await session.resolve_exposed_port(8000)).url_for("http")
            'http://127.0.0.1:8000/'
        """
        return self._endpoint(port, "resolve_exposed_port")

    @observed("wait_for_port")
    async def wait_for_port(
        self, port: int, *, timeout: float = PORT_WAIT_TIMEOUT_S
    ) -> ExposedPortEndpoint:
        """Wait until a server inside takes connections, and tell where it is reached.

        The server sees a connection that ends at once.

        Args:
            port: as ``resolve_exposed_port``.
            timeout: seconds to wait (default: 30).

        Raises:
            ExposedPortTimeoutError: nobody listened in time.
            ExposedPortUnavailableError: the session was not made with this port.
            ArgumentError, ArgumentTypeError: an argument is impossible.
            SessionClosedError: the session is not running, or ended meanwhile.

        Example:
            >>> await session.start_process("python3 -m http.server 8000")
            >>> endpoint = await session.wait_for_port(8000, timeout=10)
        """
        endpoint = self._endpoint(port, "wait_for_port")
        _check_timeout(timeout)
        from sandyard.network.connecting import await_listener  # noqa: PLC0415  # few have ports

        try:
            async with asyncio.timeout(timeout):
                await await_listener(self._make_socket, port)
        except TimeoutError as error:
            raise ExposedPortTimeoutError(
                port=port,
                exposed_ports=self.state.exposed_ports,
                reason="not_listening",
                message=f"nobody inside listened on port {port} of localhost within {timeout:g} s; see "
                "whether the server runs (session.processes() and their logs) and listens on this "
                "number, or give it more time",
                op="wait_for_port",
                context={"timeout_s": timeout},
                cause=error,
                retryable=True,
            ) from error
        return endpoint

    def _endpoint(self, port: int, op: OpName) -> ExposedPortEndpoint:
        self._check_open(op)
        if isinstance(port, bool) or not isinstance(port, int):
            raise ArgumentTypeError("port is a number", op=op, argument="port", value=port)
        if port not in self.state.exposed_ports:
            raise ExposedPortUnavailableError(
                port=port, exposed_ports=self.state.exposed_ports, op=op
            )
        from sandyard.endpoint import ExposedPortEndpoint  # noqa: PLC0415  # few have ports

        return ExposedPortEndpoint(host="127.0.0.1", port=port)

    async def _open_ports(self) -> None:
        """Listen on the session's ports; where that can't be done, nothing is left of the start."""
        if not self.state.exposed_ports or self.policy.network == "host":
            return
        from sandyard.network.publishing import PublishedPorts  # noqa: PLC0415  # few have ports

        try:
            self._ladder.check_ports()
            self._ports = await PublishedPorts.open(self.state.exposed_ports, self._make_socket)
        except BaseException:
            await self._end_sandbox()
            raise

    async def _close_ports(self) -> None:
        ports, self._ports = self._ports, None
        if ports is not None:
            await ports.close()

    async def _make_socket(self, family: socket.AddressFamily) -> socket.socket:
        """A socket in the network that commands have.

        Raises:
            SessionClosedError: the sandbox has ended.
            OSError: there can be none.
        """
        from sandyard.network.connecting import make_own_socket  # noqa: PLC0415  # few have ports
        from sandyard.process.init import SandboxEndedError  # noqa: PLC0415  # likewise

        init = self._init
        try:
            if init is None or not init.alive:
                raise SandboxEndedError
            if self.policy.network == "host":
                return await make_own_socket(family)
            return await init.make_socket(family)
        except SandboxEndedError as error:
            raise SessionClosedError(op="wait_for_port", state="ended", cause=error) from error


def _check_timeout(timeout: float) -> None:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise ArgumentTypeError(
            "timeout is a number of seconds", op="wait_for_port", argument="timeout", value=timeout
        )
    if not 0 < timeout <= TIMEOUT_MAX_S:  # which NaN is not either
        raise ArgumentError(
            f"timeout is more than 0 and at most {TIMEOUT_MAX_S:.0f} seconds",
            op="wait_for_port",
            argument="timeout",
            value=timeout,
        )
