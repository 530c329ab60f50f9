"""Verbs in any order with any arguments: they do what they say, or raise an error of the library's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandyard import SandboxError, UnixLocalSandboxClient, User
from tests.session.test_odd_values import VERBS, attempt

MOVES = ("start", "stop", "shutdown", "run_pre_stop_hooks", "aclose")
UNBOUND = {("wait_for_port", "timeout"), ("grep", "timeout")}
"""What makes a verb wait as long as it says."""
HOSTS = {("upload", 0), ("download", 1)}
"""Paths of the host's: those that come from here stay in the test's directory."""


class Step(NamedTuple):
    """A call: of which verb, with which argument changed, by place or by name, to what."""

    verb: str
    argument: int | str | None
    value: object


texts = st.text(st.characters(exclude_categories=()), max_size=40)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(),
    st.complex_numbers(),
    texts,
    st.sampled_from(
        ["..", ".", "/", "/proc/self/root", "a/../..", "f/x", "~", "-", "--", "\n", "agent"]
    ),
    st.binary(max_size=40),
    st.lists(texts | st.integers() | st.none(), max_size=3),
    st.tuples(texts, st.binary(max_size=3)),
    st.dictionaries(texts, texts | st.integers(), max_size=2),
    st.sampled_from([object(), object, ..., iter(()), PurePosixPath("../x"), User(name="nobody")]),
)


@st.composite
def steps(draw: Callable[[st.SearchStrategy[object]], object]) -> Step:
    """One call of a verb with one argument that may be anything, or a move of the session's life."""
    name = str(draw(st.sampled_from([*VERBS, *MOVES])))
    args, options = VERBS.get(name, ((), {}))
    places = [*range(len(args)), *(key for key in options if (name, key) not in UNBOUND)]
    if not places:
        return Step(name, None, None)
    at = draw(st.sampled_from(places))
    value = draw(values)
    if (name, at) in HOSTS and isinstance(value, str | PurePosixPath):
        value = f"here{str(value).replace('/', '').replace('.', '')}"
    return Step(name, at, value)  # type: ignore[arg-type]  # one of the places


async def take(client: UnixLocalSandboxClient, taken: list[Step]) -> None:
    """Make the calls, one after the other, and end the session, whatever state it is in."""
    session = await client.create()
    try:
        await session.start()
        await session.write("f", b"hello\n")
        for step in taken:
            args, options = VERBS.get(step.verb, ((), {}))
            if isinstance(step.argument, int):
                args = (*args[: step.argument], step.value, *args[step.argument + 1 :])
            elif step.argument is not None:
                options = options | {step.argument: step.value}
            async with asyncio.timeout(30):
                await attempt(repr(step), getattr(session, step.verb), *args, **options)
    finally:
        await client.delete(session)


def test_no_raw_error_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where downloads with odd names come to stand
    (tmp_path / "src").write_text("sent")
    client = UnixLocalSandboxClient()

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(steps(), min_size=4, max_size=12))
    def calls(taken: list[Step]) -> None:
        asyncio.run(take(client, taken))

    calls()


@given(values)
@settings(max_examples=60)
def test_clients_raise_nothing_raw(value: object) -> None:
    client = UnixLocalSandboxClient()
    for method in ("deserialize_session_state", "serialize_session_state", "resume", "delete"):

        async def call(name: str = method) -> None:
            answer = getattr(client, name)(value)
            if asyncio.iscoroutine(answer):
                await answer

        with pytest.raises(SandboxError):
            asyncio.run(call())
    for option in ("policy", "environ", "directory", "instrumentation", "dependencies"):
        with suppress(SandboxError):
            UnixLocalSandboxClient(**{option: value})  # type: ignore[arg-type]  # on purpose
