"""A classic BPF machine in Python: it runs a seccomp program on one call's description."""

from __future__ import annotations

import struct

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
ERRNO = 0x00050000

X86_64 = 0xC000003E
AARCH64 = 0xC00000B7


def refused(error: int) -> int:
    """What a filter answers for a call that fails with ``error``."""
    return ERRNO | error


def run_filter(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """Run ``program`` as seccomp(2) does, and return its answer."""
    values = [argument & 0xFFFFFFFFFFFFFFFF for argument in (*arguments, *[0] * 6)[:6]]
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *values)
    word, place = 0, 0
    instructions = list(struct.iter_unpack("=HBBI", program))
    while True:
        code, yes, no, operand = instructions[place]
        place += 1
        match code:
            case 0x20:  # ld [k]
                assert operand % 4 == 0  # seccomp refuses other offsets
                (word,) = struct.unpack_from("=I", data, operand)
            case 0x54:  # and #k
                word &= operand
            case 0x15:  # jeq
                place += yes if word == operand else no
            case 0x25:  # jgt
                place += yes if word > operand else no
            case 0x45:  # jset
                place += yes if word & operand else no
            case 0x06:  # ret
                return int(operand)
            case _:
                raise AssertionError(f"unexpected instruction {code:#x}")
