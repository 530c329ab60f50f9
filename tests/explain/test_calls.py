"""What is told of addresses and system calls is what the kernel does; and bad questions are refused."""

from __future__ import annotations

import errno
import json
import os
from pathlib import PurePosixPath

import pytest

from sandyard import ArgumentError, Policy
from sandyard.confinement.syscalls import SYSCALL_TABLES
from tests.explain.probing import opened

CALL_ALL = """
import ctypes, errno, json, sys
call = ctypes.CDLL(None, use_errno=True).syscall
told = {}
for name, number in json.load(sys.stdin).items():
    ctypes.set_errno(0)
    answer = call(number, -1, -1, -1, -1, -1, -1)
    told[name] = errno.errorcode.get(ctypes.get_errno(), "") if answer == -1 else "fine"
json.dump(told, sys.stdout)
"""
HARMFUL = {"reboot", "kexec_load"}
"""Not tried, in case they work."""


@pytest.mark.parametrize("options", [(), ("ptrace",), ("no-unix-sockets",)])
async def test_refused_calls_are_refused(options: tuple[str, ...]) -> None:
    numbers = SYSCALL_TABLES[os.uname().machine].numbers
    policy = Policy(syscalls=options)  # type: ignore[arg-type]
    async with opened(None, policy) as session:
        told = {name: await session.why(syscall=name) for name in numbers}
        whole = {name: numbers[name] for name in told if told[name].access == "none"}
        data = json.dumps({n: whole[n] for n in whole if n not in HARMFUL}).encode()
        done = await session.exec("python3", "-c", CALL_ALL, stdin=data)
    real = json.loads(done.stdout)
    assert len(real) > 40
    assert {name: f"refused with {error}" for name, error in real.items()} == {
        name: told[name].rule for name in real
    }
    if not options:
        assert told["ptrace"].grant == "Policy(syscalls=('ptrace',))"
    else:
        assert (told["ptrace"].access == "write") == (options == ("ptrace",))
    assert (told["socket"].grant is not None) == (options == ("no-unix-sockets",))
    assert told["openat"].access == told["clone"].access == told["ioctl"].access == "read"
    assert all(told[name].grant is None for name in ("mount", "bpf", "clone3", "keyctl"))


async def test_ptrace_grant_is_true() -> None:
    traced = "import ctypes; print(ctypes.CDLL(None, use_errno=True).ptrace(0, 0, 0, 0))"
    for policy, answer in ((Policy(), b"-1\n"), (Policy(syscalls=("ptrace",)), b"0\n")):
        async with opened(None, policy) as session:
            done = await session.exec("python3", "-c", traced)
            assert done.stdout == answer
            told = await session.why(syscall="ptrace")
            assert (told.access == "write") == (answer == b"0\n")


ADDRESSES = {
    "example.org:443": ("example.org:443", "none"),
    "https://example.org/path?x=1": ("example.org:443", "none"),
    "http://user@example.org:8080/": ("example.org:8080", "none"),
    "ssh://git@example.org/a.git": ("example.org:22", "none"),
    "gopher://example.org": ("example.org", "none"),
    "1.1.1.1:53": ("1.1.1.1:53", "none"),
    "[2606:4700::1111]:53": ("[2606:4700::1111]:53", "none"),
    "localhost.example.org:80": ("localhost.example.org:80", "none"),
    "127.example.org:80": ("127.example.org:80", "none"),
    "localhost:5432": ("localhost:5432", "read"),
    "127.0.0.1:80": ("127.0.0.1:80", "read"),
    "127.1.2.3:80": ("127.1.2.3:80", "read"),
    "127.1:80": ("127.1:80", "read"),
    "0.0.0.0:80": ("0.0.0.0:80", "read"),
    "[::1]:80": ("[::1]:80", "read"),
    "[::ffff:127.0.0.1]:80": ("[::ffff:127.0.0.1]:80", "read"),
    "http://localhost": ("localhost:80", "read"),
}


async def test_addresses_are_told() -> None:
    async with opened(None, Policy()) as session:
        told = {text: await session.why(text) for text in ADDRESSES}
    assert {text: (each.subject, each.access) for text, each in told.items()} == ADDRESSES
    assert {each.grant for each in told.values()} == {"Policy(network='host')"}
    async with opened(None, Policy(network="host")) as session:
        assert {(await session.why(text)).access for text in ADDRESSES} == {"write"}


SERVE = """
import socket, sys
for family, host in ((2, "127.0.0.1"), (2, "127.1.2.3"), (10, "::1")):
    server = socket.create_server((host, 0), family=family)
    socket.create_connection(server.getsockname()[:2]).close()
try:
    socket.create_connection(("1.1.1.1", 80), 5)
except OSError as error:
    print(error.errno)
"""


async def test_loopback_is_own_and_works() -> None:
    async with opened(None, Policy()) as session:
        done = await session.exec("python3", "-c", SERVE)
    assert (done.stdout, done.stderr) == (f"{errno.ENETUNREACH}\n".encode(), b"")


@pytest.mark.parametrize("subject", ["a:b", "file:", ":80", "x:99999", "a b:80", "a/b:80", "x:٣"])
async def test_what_is_no_address_is_path(subject: str) -> None:
    async with opened(None, Policy()) as session:
        told = await session.why(subject)
        assert told.subject == f"{session.state.manifest.root}/{subject}"
        assert told == await session.why(PurePosixPath(subject))


async def test_bad_questions_are_refused() -> None:
    async with opened(None, Policy()) as session:
        for words in ({}, {"subject": "x", "syscall": "y"}, {"subject": ""}, {"subject": "a\0b"}):
            with pytest.raises(ArgumentError):
                await session.why(**words)
        for words in ({"syscall": "no call"}, {"syscall": ""}, {"subject": "http://"}):
            with pytest.raises(ArgumentError):
                await session.why(**words)
        with pytest.raises(TypeError):
            await session.why(7)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await session.why(syscall=b"ptrace")  # type: ignore[arg-type]
        assert (await session.why(syscall="getpid")).access == "write"
