"""The fixtures of the pytest plugin for pytest-asyncio: one for each kind of loop that a test may run on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Literal

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from sandyard import ConfinementUnavailableError, UnixLocalSandboxSession
    from sandyard.testing.fixtures import FixtureClient

_Scope = Literal["function", "class", "module", "package", "session"]


def _fixture_on(loop_scope: _Scope) -> object:
    @pytest_asyncio.fixture(loop_scope=loop_scope, name=f"_sandbox_on_{loop_scope}")
    async def made_sandbox(
        request: pytest.FixtureRequest, sandbox_client: FixtureClient
    ) -> AsyncIterator[UnixLocalSandboxSession | ConfinementUnavailableError]:
        from sandyard.testing.fixtures import marked_session  # noqa: PLC0415  # for tests that use it

        async with marked_session(request, sandbox_client) as made:
            yield made

    return made_sandbox


on_function_loop = _fixture_on("function")
on_class_loop = _fixture_on("class")
on_module_loop = _fixture_on("module")
on_package_loop = _fixture_on("package")
on_session_loop = _fixture_on("session")
