"""The seccomp program: a table of expectations over every system call, and the real kernel."""

from __future__ import annotations

import errno
import itertools
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard.confinement.bpf import Assembler, Label
from sandyard.confinement.seccomp import seccomp_program
from sandyard.confinement.syscalls import SYSCALL_TABLES
from sandyard.errors import ConfinementUnavailableError
from tests.confinement.bpf_machine import (
    AARCH64,
    ALLOW,
    KILL_PROCESS,
    X86_64,
    refused,
    run_filter,
)

HIGHEST = 469
HIGH_HALF = 0xDEADBEEF << 32
ARCHES = {"x86_64": X86_64, "aarch64": AARCH64}

# Written down a second time, by hand and by number, so that a slip in the rules or in the tables
# of numbers shows. EPERM for all arguments; linux/arch tables of Linux 6.18.
DENIED = {
    "x86_64": {
        101, 103, 135, 154, 155, 159, 161, 163, 164, 165, 166, 167, 168, 169, 172, 173, 175, 176,
        179, 227, 246, 248, 249, 250, 272, 298, 304, 305, 308, 310, 311, 313, 320, 321, 323, 425,
        426, 427, 428, 429, 430, 431, 432, 433, 438, 442, 443, 467,
    },
    "aarch64": {
        39, 40, 41, 51, 60, 89, 92, 97, 104, 105, 106, 112, 116, 117, 142, 170, 171, 217, 218, 219,
        224, 225, 241, 265, 266, 268, 270, 271, 273, 280, 282, 294, 425, 426, 427, 428, 429, 430,
        431, 432, 433, 438, 442, 443, 467,
    },
}  # fmt: skip
UNKNOWN_TO_US = {435, 437}  # clone3, openat2: ENOSYS
MODE_ARGUMENT = {
    "x86_64": {85: 1, 90: 1, 91: 1, 83: 1, 133: 1, 258: 2, 259: 2, 268: 2, 452: 2},
    "aarch64": {52: 1, 33: 2, 34: 2, 53: 2, 452: 2},
}
OPEN_ARGUMENTS = {"x86_64": {2: (1, 2), 257: (2, 3)}, "aarch64": {56: (2, 3)}}
CLONE = {"x86_64": 56, "aarch64": 220}
SOCKET = {"x86_64": 41, "aarch64": 198}
SOCKETPAIR = {"x86_64": 53, "aarch64": 199}
IOCTL = {"x86_64": 16, "aarch64": 29}
PRLIMIT = {"x86_64": 302, "aarch64": 261}

EPERM = refused(errno.EPERM)
ENOSYS = refused(errno.ENOSYS)
NO_FAMILY = refused(errno.EAFNOSUPPORT)


def arguments_at(index: int, value: int) -> tuple[int, ...]:
    return (*[0] * index, value)


def conditional_numbers(machine: str) -> set[int]:
    return {
        *MODE_ARGUMENT[machine],
        *OPEN_ARGUMENTS[machine],
        CLONE[machine],
        SOCKET[machine],
        SOCKETPAIR[machine],
        IOCTL[machine],
        PRLIMIT[machine],
    }


@pytest.fixture(params=sorted(ARCHES))
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def answer(
    machine: str, number: int, *arguments: int, unix_sockets: bool = True, ptrace: bool = False
) -> int:
    program = seccomp_program(machine, unix_sockets=unix_sockets, ptrace=ptrace)
    return run_filter(program, ARCHES[machine], number, *arguments)


def test_unconditional_answers(machine: str) -> None:
    samples = ((), (0,) * 6, (0xFFFFFFFFFFFFFFFF,) * 6, (1, 2, 3, 4, 5, 6))
    for number in range(HIGHEST + 1):
        if number in conditional_numbers(machine):
            continue
        expected = ALLOW
        if number in DENIED[machine]:
            expected = EPERM
        elif number in UNKNOWN_TO_US:
            expected = ENOSYS
        for arguments in samples:
            assert answer(machine, number, *arguments) == expected, number


DEBUGGING = {"x86_64": {101, 310, 311}, "aarch64": {117, 270, 271}}
PERSONALITY = {"x86_64": 135, "aarch64": 92}


def test_debuggers_are_let_in(machine: str) -> None:
    for number in range(HIGHEST + 1):
        if number not in {*conditional_numbers(machine), PERSONALITY[machine]}:
            expected = ALLOW if number in DEBUGGING[machine] else answer(machine, number)
            assert answer(machine, number, ptrace=True) == expected, number
    for persona, expected in ((0, ALLOW), (0x40000, ALLOW), (0xFFFFFFFF, ALLOW), (8, EPERM)):
        assert answer(machine, PERSONALITY[machine], persona, ptrace=True) == expected
        assert answer(machine, PERSONALITY[machine], persona) == EPERM


def test_conditional_calls_work_plainly(machine: str) -> None:
    for number in conditional_numbers(machine) - {SOCKET[machine], SOCKETPAIR[machine]}:
        assert answer(machine, number) == ALLOW


def test_numbers_above_known_are_unknown(machine: str) -> None:
    x32 = 0x40000000
    numbers = (HIGHEST + 1, 470, 512, 547, 1000, x32, x32 + 59, x32 + 101, 0x7FFFFFFF, 0xFFFFFFFF)
    for number in numbers:
        assert answer(machine, number) == ENOSYS


@pytest.mark.parametrize("arch", [0x40000003, 0x40000028, 0xC0000015, 0, 0xFFFFFFFF])
def test_foreign_architecture_is_killed(machine: str, arch: int) -> None:
    for number in (0, 1, 59, 0x40000000):
        assert run_filter(seccomp_program(machine), arch, number) == KILL_PROCESS


def test_other_of_our_architectures_is_killed() -> None:
    assert run_filter(seccomp_program("x86_64"), AARCH64, 0) == KILL_PROCESS
    assert run_filter(seccomp_program("aarch64"), X86_64, 0) == KILL_PROCESS


@pytest.mark.parametrize("high", [0, HIGH_HALF])
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (0, ALLOW),
        (0o644, ALLOW),
        (0o1777, ALLOW),
        (0o100644, ALLOW),
        (0o4000, EPERM),
        (0o4755, EPERM),
        (0o2755, EPERM),
        (0o106755, EPERM),
        (0xFFFF, EPERM),
    ],
)
def test_setuid_modes_are_refused(machine: str, mode: int, expected: int, high: int) -> None:
    for number, index in MODE_ARGUMENT[machine].items():
        assert answer(machine, number, *arguments_at(index, mode | high)) == expected, number


def test_creating_opens_are_judged_by_mode(machine: str) -> None:
    creating = (0o100, 0o102, 0o1101, 0o20000000, 0o20200002, 0o20040002)
    plain = (0, 2, 0o1001, 0o2000000, 0o200000, 0o40000)
    modes = {0: False, 0o644: False, 0o1755: False, 0o4755: True, 0o2000: True, 0o6777: True}
    for number, (flags_at, mode_at) in OPEN_ARGUMENTS[machine].items():
        for flags, (mode, special) in itertools.product((*creating, *plain), modes.items()):
            for high in (0, HIGH_HALF):
                arguments = [0] * 6
                arguments[flags_at], arguments[mode_at] = flags | high, mode | high
                # Without O_CREAT the fourth argument is whatever was in the register.
                expected = EPERM if special and flags in creating else ALLOW
                assert answer(machine, number, *arguments) == expected, (number, flags, mode)


def test_clone_makes_no_namespaces(machine: str) -> None:
    number = CLONE[machine]
    threads = 0x003D0F00  # what pthread_create asks for
    for flags in (17, threads, 0x4111, 0x01200011, 0xFF):
        assert answer(machine, number, flags) == ALLOW
        for bit in (17, 25, 26, 27, 28, 29, 30):
            assert answer(machine, number, flags | 1 << bit) == EPERM
            assert answer(machine, number, flags | 1 << bit | HIGH_HALF) == EPERM


def test_socket_families(machine: str) -> None:
    number = SOCKET[machine]
    for family in range(64):
        expected = ALLOW if family in (1, 2, 10, 16) else NO_FAMILY
        assert answer(machine, number, family, 1, 0) == expected
        assert answer(machine, number, family | HIGH_HALF, 1, 0) == expected
    for protocol in range(1, 24):
        assert answer(machine, number, 16, 3, protocol) == NO_FAMILY
        assert answer(machine, number, 2, 1, protocol) == ALLOW
    assert answer(machine, number, 0xFFFFFFFF) == NO_FAMILY


def test_unix_sockets_can_be_refused(machine: str) -> None:
    number = SOCKET[machine]
    assert answer(machine, number, 1, 1, 0, unix_sockets=False) == NO_FAMILY
    assert answer(machine, number, 2, 1, 0, unix_sockets=False) == ALLOW
    assert answer(machine, number, 16, 3, 0, unix_sockets=False) == ALLOW


def test_pairs_reach_nobody_else(machine: str) -> None:
    """A pair of datagram sockets is one that connect(2) and sendto(2) lead elsewhere from."""
    number, no_kind = SOCKETPAIR[machine], refused(errno.ESOCKTNOSUPPORT)
    for family in range(64):
        expected = ALLOW if family == 1 else NO_FAMILY
        assert answer(machine, number, family, 1, 0) == expected
        assert answer(machine, number, family | HIGH_HALF, 5, 0) == expected
    for flags in (0, 0o4000, 0o2000000, 0o2004000, HIGH_HALF):
        for kind, expected in ((1, ALLOW), (5, ALLOW), (2, no_kind), (3, no_kind)):
            assert answer(machine, number, 1, kind | flags, 0) == ALLOW
            assert answer(machine, number, 1, kind | flags, 0, unix_sockets=False) == expected


def test_shared_files_are_opened_by_rights(machine: str) -> None:
    """Landlock asks for no right for access mode 3, nor, at first, for emptying a file."""
    no, truncate = refused(errno.EACCES), {"x86_64": 76, "aarch64": 45}[machine]
    held = seccomp_program(machine, shared=True)
    older = seccomp_program(machine, shared=True, truncation=False)
    for number, (flags_at, _) in OPEN_ARGUMENTS[machine].items():
        for flags in (0, 1, 2, 3, 0o1000, 0o1001, 0o1002, 0o1003, 0o1101, 0o2000000, 0o2001000):
            words = arguments_at(flags_at, flags | HIGH_HALF)
            both, emptied = flags & 3 == 3, flags & 0o1000 != 0 and flags & 3 == 0
            expected = no if both else ALLOW
            assert run_filter(held, ARCHES[machine], number, *words) == expected, flags
            expected = no if both or emptied else ALLOW
            assert run_filter(older, ARCHES[machine], number, *words) == expected, flags
            assert answer(machine, number, *words) == ALLOW
    assert run_filter(held, ARCHES[machine], truncate) == ALLOW
    for listing in (457, 458):  # statmount, listmount
        assert run_filter(held, ARCHES[machine], listing) == ENOSYS
        assert answer(machine, listing) == ALLOW
    assert run_filter(older, ARCHES[machine], truncate) == no


def test_terminal_input_is_refused(machine: str) -> None:
    number = IOCTL[machine]
    for high in (0, HIGH_HALF):
        assert answer(machine, number, 0, 0x5412 | high) == EPERM
        assert answer(machine, number, 0, 0x541C | high) == EPERM
        for command in (0x5401, 0x5410, 0x5411, 0x5413, 0x5414, 0x541B, 0x541D, 0x80045430):
            assert answer(machine, number, 0, command | high) == ALLOW


def test_limits_of_others_are_refused(machine: str) -> None:
    number = PRLIMIT[machine]
    assert answer(machine, number, 0, 7) == ALLOW
    assert answer(machine, number, HIGH_HALF, 7) == ALLOW  # the kernel takes 32 bits: 0
    for pid in (1, 2, 4711, 0xFFFFFFFF, HIGH_HALF | 1):
        assert answer(machine, number, pid, 7) == EPERM


# What the sandbox's own first process does with the filter in force, besides what all do.
FIRST_PROCESS = {
    "x86_64": (
        0, 1, 3, 7, 9, 20, 39, 46, 47, 57, 58, 59, 61, 62, 72, 73, 157, 186, 217, 231, 233, 234,
        247, 271, 281, 288, 289, 292, 293, 319, 322, 424, 434, 436,
    ),
    "aarch64": (
        22, 24, 25, 57, 59, 61, 63, 64, 73, 74, 93, 94, 95, 129, 167, 172, 178, 211, 212, 221,
        260, 281, 279, 424, 434, 436,
    ),
}  # fmt: skip


def test_first_process_can_work(machine: str) -> None:
    for number in FIRST_PROCESS[machine]:
        assert answer(machine, number) == ALLOW, number
    assert answer(machine, CLONE[machine], 17) == ALLOW
    assert answer(machine, SOCKETPAIR[machine], 1, 5, 0, unix_sockets=False) == ALLOW


def test_program_is_well_formed(machine: str) -> None:
    program = seccomp_program(machine)
    instructions = list(struct.iter_unpack("=HBBI", program))
    assert instructions[0] == (0x20, 0, 0, 4)  # the architecture is looked at first
    assert len(instructions) < 4096  # BPF_MAXINSNS
    assert instructions[-1][0] == 0x06  # no path runs off the end
    for place, (code, yes, no, _) in enumerate(instructions, start=1):
        assert code in (0x20, 0x15, 0x25, 0x45, 0x06, 0x54)
        assert place + max(yes, no) < len(instructions) or code == 0x06
    assert seccomp_program(machine) is program


def test_allowed_answers_can_be_remembered(machine: str) -> None:
    """Linux remembers that a number is always allowed if nothing but it is looked at on the way."""
    program = list(struct.iter_unpack("=HBBI", seccomp_program(machine)))
    loads = {operand for code, _, _, operand in program if code == 0x20}
    assert {0, 4} <= loads  # arguments are loaded in the blocks of their own calls only:
    for number in set(range(HIGHEST + 1)) - conditional_numbers(machine):
        assert set(loads_on_way(program, machine, number)) <= {0, 4}


def loads_on_way(program: list[tuple[int, ...]], machine: str, number: int) -> Iterator[int]:
    place, word = 0, 0
    while True:
        code, yes, no, operand = program[place]
        place += 1
        if code == 0x20:
            yield operand
            word = ARCHES[machine] if operand == 4 else number
        elif code == 0x15:
            place += yes if word == operand else no
        elif code == 0x25:
            place += yes if word > operand else no
        else:
            return


def test_unknown_machine_is_refused() -> None:
    with pytest.raises(ConfinementUnavailableError) as caught:
        seccomp_program("riscv64")
    assert caught.value.context["dimension"] == "syscalls"


def test_tables_have_no_double() -> None:
    for table in SYSCALL_TABLES.values():
        assert len(set(table.numbers.values())) == len(table.numbers)
        assert max(table.numbers.values()) <= table.highest


@given(st.integers(0, 300))
def test_far_jumps_are_refused(distance: int) -> None:
    code, target = Assembler(), Label()
    code.if_equal(1, yes=target)
    for _ in range(distance):
        code.keep_bits(0)
    code.place(target)
    code.give(0)
    if distance <= 255:
        assert code.program()[2] == distance
    else:
        with pytest.raises(ValueError, match="can't be encoded"):
            code.program()


LIVE = Path(__file__).with_name("seccomp_live.py")


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is a thing of Linux")
@pytest.mark.parametrize("unix_sockets", [True, False])
def test_kernel_agrees(unix_sockets: bool, tmp_path: Path) -> None:
    program = seccomp_program(__import__("os").uname().machine, unix_sockets=unix_sockets)
    done = subprocess.run(
        [sys.executable, "-I", LIVE, program.hex()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    family = "ok" if unix_sockets else "EAFNOSUPPORT"
    assert done.stdout.splitlines() == [
        "ptrace EPERM",
        "unshare EPERM",
        "mount EPERM",
        "keyctl EPERM",
        "clone3 ENOSYS",
        "openat2 ENOSYS",
        "number 470 ENOSYS",
        "clone with a namespace EPERM",
        "chmod 4755 EPERM",
        "chmod 755 ok",
        "create 4755 EPERM",
        "create 644 ok",
        "mkdir 2755 EPERM",
        "TIOCSTI EPERM",
        "TIOCSTI with a high half EPERM",
        f"unix {family}",
        "socketpair ok",
        f"datagram pair {'ok' if unix_sockets else 'ESOCKTNOSUPPORT'}",
        "pair of another family EAFNOSUPPORT",
        "inet ok",
        "netlink route ok",
        "netlink audit EAFNOSUPPORT",
        "packet EAFNOSUPPORT",
        "vsock EAFNOSUPPORT",
        "own limits ok",
        "others' limits EPERM",
        "a thread ok",
        "a command ok",
        "signals and pidfds ok",
    ]
