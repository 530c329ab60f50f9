"""The environment of a manifest: its forms, and resolving values at the same time."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from sandyard.errors import ManifestError
from sandyard.manifest import (
    EnvEntry,
    Environment,
    EnvValue,
    Manifest,
    SecretValue,
    StrEnvValue,
)
from sandyard.state import UnixLocalSandboxSessionState


class Slow(EnvValue):
    """A value that waits for an event of the test."""

    type: Literal["test_slow"] = "test_slow"
    answer: str = "x"
    fail: bool = False
    wait_s: float = 0.0

    async def resolve(self) -> str:
        try:
            await asyncio.sleep(self.wait_s)
        except asyncio.CancelledError:
            ENDED.append(self.answer)
            raise
        if self.fail:
            raise LookupError(self.answer)
        return self.answer


ENDED: list[str] = []


async def test_all_forms_resolve() -> None:
    environment = Manifest(
        environment={
            "value": {
                "TEXT": "a",
                "VALUE": StrEnvValue(value="b"),
                "ENTRY": EnvEntry(description="what", value=StrEnvValue(value="c")),
                "TAGGED": {"type": "str", "value": "d"},
                "SHORT": {"value": "e"},
                "LONG": {"description": "what", "value": {"type": "str", "value": "f"}},
                "SLOW": Slow(answer="g"),
            }
        }
    ).environment
    assert await environment.resolve() == {
        "TEXT": "a",
        "VALUE": "b",
        "ENTRY": "c",
        "TAGGED": "d",
        "SHORT": "e",
        "LONG": "f",
        "SLOW": "g",
    }
    assert list(await environment.resolve()) == list(environment.value)
    assert isinstance(environment.value["SHORT"], StrEnvValue)
    assert isinstance(environment.value["LONG"], EnvEntry)
    assert all(isinstance(entry, EnvEntry) for entry in environment.normalized().values())


async def test_values_wait_at_the_same_time() -> None:
    environment = Environment(value={f"V{n}": Slow(wait_s=0.2) for n in range(20)})
    await asyncio.wait_for(environment.resolve(), timeout=1.5)


async def test_one_failure_ends_the_others_first() -> None:
    ENDED.clear()
    environment = Environment(
        value={"A": Slow(wait_s=30, answer="a"), "B": Slow(fail=True, answer="b")}
    )
    with pytest.raises(LookupError, match="b"):
        await environment.resolve()
    assert ENDED == ["a"]


async def test_cancelling_ends_all() -> None:
    ENDED.clear()
    environment = Environment(value={"A": Slow(wait_s=30, answer="a")})
    task = asyncio.create_task(environment.resolve())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ENDED == ["a"]


@pytest.mark.parametrize("answer", ["a\0", "\ud800"])
async def test_what_a_value_returns_is_checked(answer: str) -> None:
    value = Slow()
    value.answer = answer
    with pytest.raises(ManifestError, match="'A'"):
        await Environment(value={"A": value}).resolve()


def test_own_values_survive_json() -> None:
    manifest = Manifest(environment={"value": {"A": Slow(answer="q"), "B": EnvEntry(value=Slow())}})
    dumped = manifest.model_dump(mode="json", exclude_defaults=True)
    assert dumped["environment"]["value"]["A"] == {"type": "test_slow", "answer": "q"}
    assert Manifest.from_saved(dumped) == manifest


@pytest.mark.parametrize(
    "value",
    [{"A": None}, {"A": {"type": "nope"}}, {"A": {"value": 3}}, {3: "x"}, ["A"], {"A\0": ""}],
)
def test_bad_environments(value: object) -> None:
    with pytest.raises(ManifestError):
        Environment(value=value)  # type: ignore[arg-type]


async def test_secrets_stay_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_TOKEN", "swordfish")
    given = {
        "PLAIN": SecretValue("hunter2"),
        "FOUND": SecretValue(env="TEST_TOKEN"),
        "ENTRY": EnvEntry(value=SecretValue("hunter2"), description="a key"),
        "TAGGED": {"type": "secret", "value": "hunter2"},
    }
    manifest = Manifest(environment={"value": given})
    assert await manifest.environment.resolve() == {
        "PLAIN": "hunter2", "FOUND": "swordfish", "ENTRY": "hunter2", "TAGGED": "hunter2",
    }  # fmt: skip
    state = UnixLocalSandboxSessionState(manifest=manifest)
    for told in (
        repr(manifest), str(manifest), state.model_dump_json(), repr(state.model_dump()),
        repr(state), repr(SecretValue("hunter2")), manifest.describe(),
    ):  # fmt: skip
        assert "hunter2" not in told
        assert "swordfish" not in told
    asked = manifest.model_dump_json(context={"secrets": True})
    assert Manifest.from_saved(asked) == manifest

    again = Manifest.from_saved(manifest.model_dump_json())
    assert again.environment.value["FOUND"] == SecretValue(env="TEST_TOKEN")
    with pytest.raises(ManifestError, match=r"'PLAIN'.*give it again"):
        await again.environment.resolve()
    monkeypatch.delenv("TEST_TOKEN")
    with pytest.raises(ManifestError, match="TEST_TOKEN"):
        await Manifest(
            environment={"value": {"A": SecretValue(env="TEST_TOKEN")}}
        ).environment.resolve()
    with pytest.raises(ManifestError, match="not both"):
        SecretValue("a", env="B")
