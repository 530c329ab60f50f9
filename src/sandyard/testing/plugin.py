"""The pytest plugin: its options, its marker and its fixtures; nothing else is loaded until one is used."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, cast

import pytest

if TYPE_CHECKING:
    from sandyard import (
        ConfinementUnavailableError,
        Manifest,
        Policy,
        UnixLocalSandboxClient,
        UnixLocalSandboxSession,
    )
    from sandyard.testing.fixtures import FixtureClient

UNAVAILABLE = "sandbox_unavailable"
MARKER = (
    "sandbox(*, manifest=None, policy=None, exposed_ports=(), unavailable='error'): what the sandbox "
    "fixture is made with; unavailable='skip' skips the test where this machine can't enforce the policy"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a project say what becomes of tests where there is no confinement."""
    parser.addini(
        UNAVAILABLE,
        "what the sandbox fixture does where this machine can't enforce a test's policy: error or skip",
        default="error",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, and the fixtures for pytest-asyncio where that is."""
    config.addinivalue_line("markers", MARKER)
    if config.pluginmanager.hasplugin("asyncio"):
        import pytest_asyncio  # noqa: PLC0415  # loaded already, where there is one

        if "loop_scope" in inspect.signature(pytest_asyncio.fixture).parameters:
            from sandyard.testing import plugin_asyncio  # noqa: PLC0415  # likewise

            config.pluginmanager.register(plugin_asyncio, "sandyard-asyncio")


@pytest.fixture
def sandbox_manifest() -> Manifest | None:
    """What the workspace of ``sandbox`` is made of; override it, or mark the test (default: nothing)."""
    return None


@pytest.fixture
def sandbox_policy() -> Policy | None:
    """What commands may touch; override it, or mark the test (default: ``Policy()``)."""
    return None


@pytest.fixture
def sandbox_client(
    request: pytest.FixtureRequest, sandbox_policy: Policy | None
) -> Iterator[UnixLocalSandboxClient]:
    """A client; the sessions that a test makes with it and does not delete are deleted after it."""
    from sandyard.testing.fixtures import marked_client  # noqa: PLC0415  # only for tests that use it

    with marked_client(request, sandbox_policy) as client:
        yield client


@pytest.fixture
def sandbox(
    request: pytest.FixtureRequest,
    sandbox_client: FixtureClient,
    sandbox_manifest: Manifest | None,
) -> UnixLocalSandboxSession:
    """A session that runs, for one test; it is deleted after it."""
    from sandyard import ConfinementUnavailableError  # noqa: PLC0415  # loaded with the client

    sandbox_client.manifest = sandbox_manifest
    made = request.getfixturevalue(_fixture_for(request))
    if isinstance(made, ConfinementUnavailableError):
        pytest.skip(made.message)
    return cast("UnixLocalSandboxSession", made)


@pytest.fixture
async def _sandbox_on_anyio(
    request: pytest.FixtureRequest, sandbox_client: FixtureClient
) -> AsyncIterator[UnixLocalSandboxSession | ConfinementUnavailableError]:
    from sandyard.testing.fixtures import marked_session  # noqa: PLC0415  # see above

    async with marked_session(request, sandbox_client) as made:
        yield made


def _fixture_for(request: pytest.FixtureRequest) -> str:
    """The fixture that makes the session on the loop that the test runs on."""
    if (marker := request.node.get_closest_marker("asyncio")) is not None:
        if request.config.pluginmanager.hasplugin("sandyard-asyncio"):
            scope = marker.kwargs.get("loop_scope") or marker.kwargs.get("scope")
            return (
                f"_sandbox_on_{scope or request.config.getini('asyncio_default_test_loop_scope')}"
            )
    elif "anyio_backend" in request.fixturenames:
        if (backend := request.getfixturevalue("anyio_backend_name")) == "asyncio":
            return "_sandbox_on_anyio"
        pytest.fail(
            f"sandboxes run on asyncio, not on {backend}; have the test's anyio_backend be 'asyncio'",
            pytrace=False,
        )
    pytest.fail(
        "the sandbox fixture is started on the loop that a test runs on, and nothing runs this one on "
        "a loop: make it a coroutine function, and mark it with @pytest.mark.asyncio (pytest-asyncio "
        "0.24 or newer) or @pytest.mark.anyio; or make sessions with sandbox_client, in asyncio.run()",
        pytrace=False,
    )
