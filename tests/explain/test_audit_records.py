"""The audit's records of Landlock: read as the kernel writes them, and no name of a file passes for a field."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard.explaining.audit_records import (
    LANDLOCK_ACCESS,
    LANDLOCK_DOMAIN,
    Domain,
    Refusal,
    read_record,
)

STAMP = b"audit(1729738800.268:30): "
ALLOCATED = (
    b'domain=1a6fdc66f status=allocated mode=enforcing pid=286 uid=30001 exe="/opt/x" comm="x"'
)


def untrusted(text: bytes) -> bytes:
    """What others chose, as the kernel writes it (audit_log_untrustedstring)."""
    plain = all(0x21 <= byte <= 0x7E and byte != 0x22 for byte in text)
    return b'"' + text + b'"' if plain else text.hex().upper().encode()


def access(path: bytes, blockers: bytes = b"fs.read_file") -> bytes:
    """A record of a denied file."""
    where = b" path=" + untrusted(path) + b" dev=" + untrusted(b"vda 2") + b" ino=351"
    return STAMP + b"domain=195ba459b blockers=" + blockers + where


def refusal(blockers: tuple[str, ...], path: str | None) -> Refusal:
    return Refusal(0x195BA459B, 1729738800.268, blockers, path)


def test_file() -> None:
    told = read_record(LANDLOCK_ACCESS, access(b"/usr/local", b"fs.make_reg,fs.refer"))
    assert told == refusal(("fs.make_reg", "fs.refer"), "/usr/local")
    device = access(b"/dev/kvm", b"fs.ioctl_dev") + b" ioctlcmd=0xae01\0"
    assert read_record(LANDLOCK_ACCESS, device) == refusal(("fs.ioctl_dev",), "/dev/kvm")


@pytest.mark.parametrize(
    ("blockers", "rest"),
    [
        ("scope.signal", b'opid=1 ocomm="systemd"'),
        ("scope.signal", b"opid=1 ocomm=" + b"a b".hex().encode()),
        ("scope.abstract_unix_socket", b"path=00" + b"/x".hex().encode()),
        ("scope.abstract_unix_socket", b'path="/run/x"'),
        ("net.connect_tcp", b"daddr=::1 dest=80"),
        ("fs.read_file", b'path="<no_memory>" dev="vda" ino=1'),
        ("fs.change_topology", b'name="/x" dev="tmpfs" ino=1'),
        ("ptrace", b'opid=1 ocomm="x"'),
    ],
)
def test_what_is_no_file_has_no_path(blockers: str, rest: bytes) -> None:
    text = STAMP + b"domain=195ba459b blockers=" + blockers.encode() + b" " + rest
    assert read_record(LANDLOCK_ACCESS, text) == refusal((blockers,), None)


def test_domain() -> None:
    assert read_record(LANDLOCK_DOMAIN, STAMP + ALLOCATED) == Domain(0x1A6FDC66F, 30001)
    ended = STAMP + b"domain=1a6fdc66f status=deallocated denials=2"
    assert read_record(LANDLOCK_DOMAIN, ended) == Domain(0x1A6FDC66F, None)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        STAMP,
        STAMP + b"domain=1a",
        STAMP + b"blockers=fs.read_file",
        STAMP + b"domain=xyz blockers=fs.read_file",
        STAMP + b"domain=0123456789abcdef0 blockers=fs.read_file",
        STAMP + b"domain=1a blockers=fs.read_file domain=1b",
        STAMP + b"domain=1a blockers=fs.read_file word",
        STAMP + b"domain=1a blockers=FS",
        b"audit(1.268): domain=1a blockers=fs.read_file",
        b"x" + STAMP + b"domain=1a blockers=fs.read_file",
    ],
)
def test_other_words_are_no_record(text: bytes) -> None:
    assert read_record(LANDLOCK_ACCESS, text) is None


def test_other_kinds_are_none() -> None:
    assert read_record(1300, access(b"/x")) is None
    assert read_record(LANDLOCK_DOMAIN, access(b"/x")) is None
    assert read_record(LANDLOCK_ACCESS, STAMP + ALLOCATED) is None
    odd = ALLOCATED.replace(b"uid=30001", b"uid=4294967295999")
    assert read_record(LANDLOCK_DOMAIN, STAMP + odd) is None


NAMES = st.binary(max_size=200).map(lambda name: b"/" + name.replace(b"\0", b""))
HOSTILE = (
    b'/x" domain=1 path="/etc/shadow',
    b"/x domain=1 blockers=fs.refer path=/y",
    b"/\naudit(1.000:1): domain=1 blockers=fs.refer",
    b"/deadbeef",
    b'/"',
    b"/ ",
    b"/\xff\xfe",
    b"/" + b"n" * 4095,
)


@given(st.one_of(NAMES, st.sampled_from(HOSTILE)))
def test_no_name_is_more_than_name(name: bytes) -> None:
    told = read_record(LANDLOCK_ACCESS, access(name))
    assert told == refusal(("fs.read_file",), os.fsdecode(name))


@given(NAMES)
def test_no_program_is_more_than_name(name: bytes) -> None:
    head = ALLOCATED[: ALLOCATED.index(b"exe=")]
    text = head + b"exe=" + untrusted(name) + b" comm=" + untrusted(name[-15:])
    assert read_record(LANDLOCK_DOMAIN, STAMP + text) == Domain(0x1A6FDC66F, 30001)


@given(st.sampled_from([LANDLOCK_ACCESS, LANDLOCK_DOMAIN]), st.binary(), st.booleans())
def test_anything_is_read(kind: int, text: bytes, stamped: bool) -> None:
    read_record(kind, STAMP + text if stamped else text)
    read_record(kind, STAMP + b"domain=1 blockers=fs.x " + text)
