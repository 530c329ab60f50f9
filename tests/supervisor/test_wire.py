"""The wire: frames and messages go there and back, and nothing else is understood."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard import ConfigurationError, ErrorCode, Policy, ResourceLimits, SandboxError
from sandyard.server import messages
from sandyard.server.calling import pumping
from sandyard.server.framing import (
    HEADER_BYTES,
    Channel,
    FrameError,
    pack_header,
    parse_header,
)
from sandyard.server.limits import FRAME_CONTROL_BYTES, FRAME_DATA_BYTES
from sandyard.server.messages import parse_from_caller, parse_hello, parse_request
from sandyard.server.outcomes import Failed, error_of, failure_of, parse_from_server
from tests.test_errors import EVERY

if TYPE_CHECKING:
    from sandyard.server.calling import OutgoingCall

pytestmark = pytest.mark.once


@given(st.sampled_from(Channel), st.integers(1, FRAME_DATA_BYTES))
def test_header_goes_both_ways(channel: Channel, size: int) -> None:
    assert parse_header(pack_header(channel, size)) == (channel, size)


@given(st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES))
def test_header_is_bounded(header: bytes) -> None:
    try:
        channel, size = parse_header(header)
    except FrameError:
        return
    most = FRAME_CONTROL_BYTES if channel is Channel.CONTROL else FRAME_DATA_BYTES
    assert 0 < size <= most
    assert pack_header(channel, size) == header


@pytest.mark.parametrize(
    "parse", [parse_hello, parse_request, parse_from_caller, parse_from_server]
)
@given(payload=st.binary(max_size=200))
def test_noise_is_refused(parse: object, payload: bytes) -> None:
    assert callable(parse)
    with pytest.raises((FrameError, SandboxError)):
        parse(payload)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)
KINDS = sorted(
    {"create", "list", "exec", "logs", "write", "attach", "signal", "resize", "terminal"}
)
FIELDS = ["session", "command", "policy", "manifest", "environ", "shell", "path", "number", "rows"]


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5))
def test_odd_requests_are_answered(kind: str, fields: dict[str, object]) -> None:
    payload = json.dumps({"type": kind} | fields).encode()
    try:
        request = parse_request(payload)
    except (FrameError, SandboxError):
        return
    assert parse_request(request.model_dump_json().encode()) == request


def test_deep_nesting_is_refused() -> None:
    deep = b'{"type":"create","manifest":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    with pytest.raises((FrameError, SandboxError)):
        parse_request(deep)


def test_policy_travels_whole() -> None:
    policy = Policy(
        reads=("/usr/share",),
        environment=(("A", "b"),),
        network="host",
        limits=ResourceLimits(memory=2**30, cpus=1.5),
    )
    request = messages.Create(policy=policy)
    read = parse_request(request.model_dump_json().encode())
    assert isinstance(read, messages.Create)
    assert read.policy == policy


def test_policy_refuses_itself() -> None:
    with pytest.raises(SandboxError) as caught:
        parse_request(b'{"type":"create","policy":{"network":"host","reads":["relative"]}}')
    assert caught.value.code == "policy_invalid"


@given(st.binary(max_size=20).map(lambda data: data.replace(b"\0", b"")))
def test_any_word_travels(word: bytes) -> None:
    text = word.decode("utf-8", "surrogateescape")
    request = messages.Exec(session="s", command=(text,))
    assert parse_request(request.model_dump_json().encode()) == request


@pytest.mark.parametrize("code", ErrorCode)
def test_error_keeps_its_class(code: ErrorCode) -> None:
    failed = Failed(
        code=code, message="so it is", op="exec", context={"path": "/x"}, retryable=True
    )
    error = error_of(failed)
    assert (error.error_code, error.op, error.retryable) == (code, "exec", True)
    assert error.context == {"path": "/x"}
    assert str(error) == "so it is"
    assert type(error) is not SandboxError
    assert failure_of(error).model_dump(exclude={"result"}) == failed.model_dump(exclude={"result"})


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
def test_class_is_known_there(error: SandboxError) -> None:
    if type(error) is not ConfigurationError:  # which nobody raises as it is
        assert type(error_of(failure_of(error))) is type(error)


async def test_input_that_fails_late_cancels_nobody() -> None:
    """The answer is there, and then the source fails, both in one turn of the loop."""
    answered = asyncio.Event()

    class Input:
        async def pump(self, _: object) -> None:
            await asyncio.sleep(0)
            answered.set()
            raise OSError("gone")

    call = cast("OutgoingCall", SimpleNamespace(input=Input()))
    async with pumping(call, b"x"):
        await answered.wait()
    for _ in range(3):
        await asyncio.sleep(0)
