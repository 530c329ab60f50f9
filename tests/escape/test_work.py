"""What honest programs need works inside."""

from __future__ import annotations

import pytest

from sandyard import UnixLocalSandboxClient
from tests.escape.work import WORK, Work, run_work


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.name)
async def test_work(work: Work) -> None:
    client = UnixLocalSandboxClient()
    session = await client.create()
    async with session:
        await run_work(session, work)
    await client.delete(session)
