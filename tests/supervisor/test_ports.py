"""Servers of a held session: their processes are waited for until they listen, or fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandyard import ExposedPortEndpoint, ExposedPortUnavailableError
from tests.network.host import ECHO, converse, free_port
from tests.supervisor.living import remote


async def test_process_is_waited_for_by_its_port(home: Path) -> None:
    client, port = remote(), free_port()
    session = await client.create(name="web", directory=str(home), exposed_ports=(port,))
    server = await session.start_process("python3", "-c", ECHO, str(port), shell=False)
    endpoint = await server.wait_for_port(port, timeout=60)
    assert endpoint == ExposedPortEndpoint("127.0.0.1", port)
    assert await converse(port, b"hello") == b"hello"
    failing = await session.start_process("exit 7", name="bad")
    await failing.wait()
    with pytest.raises(ExposedPortUnavailableError, match="process bad ended") as caught:
        await failing.wait_for_port(port)
    assert caught.value.reason == "process_ended"
    assert caught.value.context["exit_code"] == 7
    await client.delete(session)
