"""A host program: starts a session of several users, and says what came of it."""

from __future__ import annotations

import asyncio
import json
import sys

from sandyard import ConfinementUnavailableError
from tests.users.conftest import people, said


async def attempt() -> dict[str, object]:
    try:
        async with people() as session:
            return {"said": await said(session, "id -un", "reviewer")}
    except ConfinementUnavailableError as error:
        return {"refused": error.message, "dimension": error.context["dimension"]}


if __name__ == "__main__":
    json.dump(asyncio.run(attempt()), sys.stdout)
