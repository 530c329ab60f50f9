"""Session states: JSON and back, tolerant of what other versions wrote, strict about the rest."""

from __future__ import annotations

import copy
import json
from uuid import UUID

import pytest
from pydantic import ValidationError

from sandyard.errors import ArgumentError, ArgumentTypeError
from sandyard.manifest import File, Manifest
from sandyard.state import SandboxSessionState, UnixLocalSandboxSessionState


def _state() -> UnixLocalSandboxSessionState:
    return UnixLocalSandboxSessionState(
        manifest=Manifest(root="/srv/w", entries={"bin": File(content=b"\xff\0")}),
        exposed_ports=(8000, 9000),
        workspace_root_owned=True,
    )


def test_defaults() -> None:
    state = UnixLocalSandboxSessionState()
    assert state.type == "unix_local"
    assert isinstance(state.session_id, UUID)
    assert state.session_id != UnixLocalSandboxSessionState().session_id
    assert (state.exposed_ports, state.workspace_root_ready) == ((), False)
    assert state.workspace_root_owned is False


def test_json_round_trip() -> None:
    state = _state()
    payload = json.loads(state.model_dump_json())
    kept = copy.deepcopy(payload)
    back = SandboxSessionState.parse(payload)
    assert type(back) is UnixLocalSandboxSessionState
    assert back == state
    assert payload == kept


def test_the_tag_stays_whatever_is_excluded() -> None:
    assert _state().model_dump(mode="json", exclude_defaults=True)["type"] == "unix_local"


def test_a_state_is_returned_as_it_is() -> None:
    state = _state()
    assert SandboxSessionState.parse(state) is state


def test_unknown_fields_are_ignored_at_every_level() -> None:
    state = _state()
    payload = json.loads(state.model_dump_json())
    payload["later"] = 1
    payload["manifest"]["remote_mount_command_allowlist"] = ["ls"]
    payload["manifest"]["entries"]["bin"]["later"] = 1
    payload["manifest"]["environment"]["later"] = 1
    assert SandboxSessionState.parse(payload) == state


@pytest.mark.parametrize(
    ("given", "kept"), [(80, (80,)), ([80, 81, 80], (80, 81)), ((), ()), ({443}, (443,))]
)
def test_ports(given: object, kept: tuple[int, ...]) -> None:
    payload = {"type": "unix_local", "exposed_ports": given}
    assert SandboxSessionState.parse(payload).exposed_ports == kept


@pytest.mark.parametrize("ports", [0, 65536, True, "80", [None], [80.0], None])
def test_bad_ports(ports: object) -> None:
    with pytest.raises(ArgumentError, match="exposed_ports"):
        SandboxSessionState.parse({"type": "unix_local", "exposed_ports": ports})
    with pytest.raises(ValidationError):
        UnixLocalSandboxSessionState.model_validate({"exposed_ports": ports})


@pytest.mark.parametrize(
    ("payload", "argument"),
    [
        ({}, "type"),
        ({"type": "docker"}, "type"),
        ({"type": 3}, "type"),
        ({"type": "unix_local", "session_id": "x"}, "session_id"),
        ({"type": "unix_local", "manifest": {"root": "relative"}}, "manifest.root"),
        ({"type": "unix_local", "manifest": []}, "manifest"),
    ],
)
def test_bad_payloads_are_named(payload: dict[str, object], argument: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        SandboxSessionState.parse(payload)
    assert caught.value.context["argument"] == argument
    assert argument.rpartition(".")[2] in str(caught.value)


@pytest.mark.parametrize("payload", [None, "{}", 3, [("type", "unix_local")]])
def test_other_types_are_refused(payload: object) -> None:
    with pytest.raises(ArgumentTypeError):
        SandboxSessionState.parse(payload)
