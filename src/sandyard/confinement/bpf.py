"""A small assembler for classic BPF as seccomp runs it: instructions with labels become bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

__all__ = ["ARCH", "NUMBER", "Assembler", "Label", "argument"]

# Instruction codes (linux/bpf_common.h): class, size, mode or operation, operand.
_LOAD_WORD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS: A = word at offset k of seccomp_data
_AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_GREATER: Final = 0x25  # BPF_JMP | BPF_JGT | BPF_K, unsigned
_JUMP_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K

_FARTHEST_JUMP: Final = 255
"""Conditional jumps have eight bits of offset, and only forward."""

# Offsets in struct seccomp_data (linux/seccomp.h).
NUMBER: Final = 0
ARCH: Final = 4
_ARGUMENTS: Final = 16
_ARGUMENT_BYTES: Final = 8


def argument(index: int) -> int:
    """Offset of the low 32 bits of an argument; both our architectures are little-endian.

    The high half is left out on purpose. Everything that is compared here is an int or a mode to
    the kernel, which ignores the high half, so whoever compares it can be got round by setting it.
    """
    return _ARGUMENTS + _ARGUMENT_BYTES * index


class Label:
    """A place that jumps name before it is known."""


@dataclass(frozen=True, slots=True)
class _Instruction:
    code: int
    operand: int
    when_true: Label | None = None
    when_false: Label | None = None


class Assembler:
    """Instructions in order, and the places of their labels."""

    def __init__(self) -> None:
        self._instructions: list[_Instruction] = []
        self._places: dict[Label, int] = {}

    def load(self, offset: int) -> None:
        """Take the word at ``offset`` of the call's description."""
        self._instructions.append(_Instruction(_LOAD_WORD, offset))

    def keep_bits(self, mask: int) -> None:
        """Clear all bits but those of ``mask``."""
        self._instructions.append(_Instruction(_AND, mask))

    def if_equal(self, value: int, *, yes: Label | None = None, no: Label | None = None) -> None:
        """Jump on equality with ``value``; without a label the next instruction follows."""
        self._instructions.append(_Instruction(_JUMP_EQUAL, value, yes, no))

    def if_greater(self, value: int, *, yes: Label | None = None, no: Label | None = None) -> None:
        """Jump if the word is greater than ``value``, unsigned."""
        self._instructions.append(_Instruction(_JUMP_GREATER, value, yes, no))

    def if_any_bit(self, mask: int, *, yes: Label | None = None, no: Label | None = None) -> None:
        """Jump if a bit of ``mask`` is set in the word."""
        self._instructions.append(_Instruction(_JUMP_ANY_BIT, mask, yes, no))

    def give(self, result: int) -> None:
        """End with ``result`` (SECCOMP_RET_*)."""
        self._instructions.append(_Instruction(_RETURN, result))

    def place(self, label: Label) -> None:
        """Let ``label`` name the next instruction."""
        self._places[label] = len(self._instructions)

    def program(self) -> bytes:
        """The program as an array of ``struct sock_filter``."""
        return b"".join(
            struct.pack(
                "=HBBI",
                instruction.code,
                self._distance(instruction.when_true, place),
                self._distance(instruction.when_false, place),
                instruction.operand,
            )
            for place, instruction in enumerate(self._instructions, start=1)
        )

    def _distance(self, label: Label | None, place: int) -> int:
        if label is None:
            return 0
        distance = self._places[label] - place
        if not 0 <= distance <= _FARTHEST_JUMP:
            raise ValueError(f"a jump of {distance} instructions can't be encoded")
        return distance
