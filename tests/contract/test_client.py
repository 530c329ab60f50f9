"""The contract of clients: their options, states of other kinds, and foreign objects."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from sandyard import (
    ArgumentError,
    ArgumentTypeError,
    BaseSandboxClient,
    BaseSandboxClientOptions,
    File,
    Manifest,
    SandboxSessionState,
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
    UnixLocalSandboxSessionState,
)
from tests.contract.memory import MemorySession


class FarOptions(BaseSandboxClientOptions):
    """Options of another kind of client."""

    type: Literal["far"] = "far"
    region: str
    size: int = 1


Far: Any = FarOptions  # which takes its fields by position too; a type checker has no word for that


class FarState(SandboxSessionState):
    """The state of a session of another kind."""

    type: Literal["far"] = "far"
    region: str = "near"


class TestOptions:
    def test_given_by_position_or_name(self) -> None:
        assert Far("north", 3) == Far(region="north", size=3)
        assert Far("north", size=3).size == 3
        assert UnixLocalSandboxClientOptions([80, 81, 80]).exposed_ports == (80, 81)
        assert UnixLocalSandboxClientOptions().exposed_ports == ()

    def test_json_round_trip_keeps_the_tag(self) -> None:
        for options in (Far("north"), UnixLocalSandboxClientOptions(8000)):
            payload = json.loads(options.model_dump_json(exclude_defaults=True))
            kept = copy.deepcopy(payload)
            assert payload["type"] == options.type
            assert BaseSandboxClientOptions.parse(payload) == options
            assert payload == kept

    def test_parse_returns_options_as_they_are(self) -> None:
        options = Far("north")
        assert FarOptions.parse(options) is options
        assert FarOptions.parse({"region": "north"}) == options

    @pytest.mark.parametrize(
        "make",
        [
            Far,
            lambda: Far("north", 3, 4),
            lambda: Far("north", region="south"),
            lambda: Far("north", colour="red"),
            lambda: Far(region=3),
            lambda: FarOptions.parse({"region": "north", "colour": "red"}),
            lambda: FarOptions.parse({"type": "unix_local"}),
            lambda: FarOptions.parse(UnixLocalSandboxClientOptions()),
            lambda: BaseSandboxClientOptions.parse({"type": "nearer"}),
            lambda: BaseSandboxClientOptions.parse({}),
            lambda: BaseSandboxClientOptions.parse({"type": []}),
            lambda: BaseSandboxClientOptions.parse("far"),
            lambda: UnixLocalSandboxClientOptions(65_536),
            lambda: UnixLocalSandboxClientOptions(True),
            lambda: UnixLocalSandboxClientOptions("80"),  # type: ignore[arg-type]  # on purpose
        ],
    )
    def test_impossible_ones_are_refused(self, make: Callable[[], object]) -> None:
        with pytest.raises(ArgumentError):
            make()

    def test_tags_are_taken_once(self) -> None:
        with pytest.raises(ArgumentError, match="taken by FarOptions"):
            type(
                "Twin",
                (BaseSandboxClientOptions,),
                {"__annotations__": {"type": str}, "type": "far"},
            )
        assert BaseSandboxClientOptions.registered_types()["far"] is FarOptions

    def test_they_never_change(self) -> None:
        options = Far("north")
        with pytest.raises(ValueError, match="frozen"):
            options.size = 2


class TestStates:
    def test_bare_states_become_those_of_their_kind(self) -> None:
        manifest = Manifest(entries={"a": File(content=b"a")})
        bare = SandboxSessionState(type="far", manifest=manifest, exposed_ports=(80,))
        state = SandboxSessionState.parse(bare)
        assert type(state) is FarState
        assert (state.session_id, state.exposed_ports) == (bare.session_id, (80,))
        del state.manifest.entries["a"]
        assert bare.manifest.entries  # nothing is shared

    def test_unknown_kinds_are_named(self) -> None:
        with pytest.raises(ArgumentError, match=r"known types: far, (scripted, )?unix_local"):
            SandboxSessionState.parse(SandboxSessionState(type="farther"))

    async def test_foreign_ones_are_refused(self, tmp_path: Path) -> None:
        client = UnixLocalSandboxClient()
        assert isinstance(client, BaseSandboxClient)
        for odd in (FarState(), {"type": "unix_local"}, None, tmp_path):
            with pytest.raises(TypeError) as raised:
                await client.resume(odd)  # type: ignore[arg-type]  # on purpose
            assert isinstance(raised.value, ArgumentTypeError)
        for odd in ({}, None, tmp_path):
            with pytest.raises(ArgumentTypeError):
                client.serialize_session_state(odd)  # type: ignore[arg-type]  # on purpose
        with pytest.raises(ArgumentTypeError):
            await client.delete(MemorySession(FarState()))

    def test_payloads_survive_a_failure(self) -> None:
        client = UnixLocalSandboxClient()
        payload = client.serialize_session_state(UnixLocalSandboxSessionState())
        payload["exposed_ports"] = [0]
        kept = copy.deepcopy(payload)
        with pytest.raises(ArgumentError, match="exposed_ports has 0"):
            client.deserialize_session_state(payload)
        assert payload == kept


async def test_options_come_into_the_state() -> None:
    client = UnixLocalSandboxClient()
    for options in (UnixLocalSandboxClientOptions((8000, 8001)), {"exposed_ports": [8000, 8001]}):
        session = await client.create(options=options)
        try:
            saved = json.loads(json.dumps(client.serialize_session_state(session.state)))
            assert client.deserialize_session_state(saved).exposed_ports == (8000, 8001)
        finally:
            await client.delete(session)
    with pytest.raises(ArgumentTypeError):
        await client.create(options=Far("north"))
