"""Dependencies: bound, made once, owned, cloned for each session, and closed with it."""

from __future__ import annotations

import asyncio

import pytest

from sandyard import (
    ArgumentError,
    Dependencies,
    DependenciesBindingError,
    DependenciesMissingDependencyError,
    UnixLocalSandboxClient,
)


class Thing:
    """Something that wants to be closed."""

    def __init__(self, closed: list[str], name: str = "thing") -> None:
        self.closed, self.name = closed, name

    async def aclose(self) -> None:
        self.closed.append(self.name)


async def test_values_are_found() -> None:
    given = Dependencies.with_values({"a": 1}).bind_value("none", None)
    assert (await given.get("a"), await given.get("b"), await given.require("a")) == (1, None, 1)
    for missing in ("b", "none"):
        with pytest.raises(DependenciesMissingDependencyError, match="which the tool needs"):
            await given.require(missing, consumer="the tool")


async def test_bindings_are_kept() -> None:
    given = Dependencies().bind_value("a", 1)
    with pytest.raises(DependenciesBindingError, match="bound already"):
        given.bind_value("a", 2)
    assert await given.bind_value("a", 2, overwrite=True).get("a") == 2
    for wrong in ("", 3):
        with pytest.raises(ArgumentError, match="name"):
            given.bind_value(wrong, 1)  # type: ignore[arg-type]


async def test_factory_makes_once() -> None:
    made: list[int] = []
    going_on = asyncio.Event()

    async def make(own: Dependencies) -> int:
        made.append(1)
        await going_on.wait()
        return len(made) + await own.require("base")  # type: ignore[operator]

    given = Dependencies().bind_value("base", 10).bind_factory("a", make)
    given.bind_factory("each", lambda _: object(), cache=False)
    asking = [asyncio.ensure_future(given.get("a")) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()  # the others still want it
    going_on.set()
    assert await asyncio.gather(*asking[1:]) == [11, 11]
    assert await given.get("a") == 11
    assert made == [1]
    assert await given.get("each") is not await given.get("each")


async def test_failed_factory_is_tried_again() -> None:
    tries: list[int] = []

    def make(_: Dependencies) -> str:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("not yet")
        return "made"

    given = Dependencies().bind_factory("a", make)
    with pytest.raises(OSError, match="not yet"):
        await given.get("a")
    assert await given.get("a") == "made"


async def test_owned_results_are_closed() -> None:
    closed: list[str] = []
    given = Dependencies()
    for name in ("first", "second"):
        given.bind_factory(name, lambda _, n=name: Thing(closed, n), owns_result=True)  # type: ignore[misc]
    given.bind_factory("lent", lambda _: Thing(closed, "lent"))
    for name in ("first", "second", "lent"):
        await given.get(name)
    await given.aclose()
    await given.aclose()
    assert closed == ["second", "first"]
    with pytest.raises(DependenciesBindingError, match="closed"):
        await given.get("first")


async def test_closing_ends_what_is_made() -> None:
    begun = asyncio.Event()

    async def hang(_: Dependencies) -> None:
        begun.set()
        await asyncio.sleep(1_000)

    given = Dependencies().bind_factory("a", hang)
    asking = asyncio.ensure_future(given.get("a"))
    await begun.wait()
    await given.aclose()
    with pytest.raises(DependenciesBindingError, match="while it was made"):
        await asking


@pytest.mark.parametrize("cache", [True, False])
async def test_what_came_too_late_is_told(cache: bool) -> None:
    """Nobody cancelled who asks, so it must not look so."""
    going_on, closed = asyncio.Event(), list[str]()

    async def make(_: Dependencies) -> Thing:
        await going_on.wait()
        return Thing(closed)

    dependencies = Dependencies().bind_factory("it", make, cache=cache, owns_result=True)
    asking = asyncio.create_task(dependencies.get("it"))
    await asyncio.sleep(0)
    dependencies.bind_value("it", "another", overwrite=True)
    going_on.set()
    with pytest.raises(DependenciesBindingError, match="while it was made"):
        await asking
    assert closed == ([] if cache else ["thing"])


async def test_sessions_have_clones() -> None:
    closed: list[str] = []
    template = Dependencies().bind_factory("thing", lambda _: Thing(closed), owns_result=True)
    client = UnixLocalSandboxClient(dependencies=template)
    first, second = await client.create(), await client.create()
    try:
        made = [await session.dependencies.require("thing") for session in (first, second)]
        assert made[0] is not made[1]
        async with first:
            pass
        assert closed == ["thing"]
    finally:
        await client.delete(first)
        await client.delete(second)
        await second.aclose()
    assert closed == ["thing", "thing"]
