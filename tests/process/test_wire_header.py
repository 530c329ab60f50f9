"""The numbers of wire.py, and those of the tests' own decoder, are those of native/protocol.h."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from enum import IntEnum
from functools import cache
from pathlib import Path

import pytest

from sandyard.process import events, late_wire, mounting, wire
from tests.house.sources import ROOT
from tests.process import protocol

HEADER = ROOT / "native" / "protocol.h"
LETTERS = {"uint16_t": "H", "uint32_t": "I", "int32_t": "i", "uint64_t": "Q"}

# What an enumeration of wire.py is called, and its constants begin with, in the header.
ENUMERATIONS = {
    "Request": ("request", "REQUEST_"),
    "_Event": ("event", "EVENT_"),
    "Step": ("step", "STEP_"),
    "Record": ("record_op", "RECORD_"),
    "_BindFlag": ("bind_flag", "BIND_"),
    "_SpawnFlag": ("spawn_flag", "SPAWN_"),
    "SignalTarget": ("signal_target", "SIGNAL_"),
    "_Kind": ("late_kind", "LATE_"),
    "_Flag": ("late_flag", "LATE_"),
}
STRUCTURES = {
    "_HEAD": "message",
    "_RECORD": "record_head",
    "_IDENTITY": "identity",
    "_NODE": "node",
    "_OWNED": "owned",
    "_USER": "user",
    "_BIND": "bind",
    "_SCRATCH": "scratch",
    "_LIMIT": "limit",
    "_LANDLOCK": "landlock",
    "_DEVICE": "device",
    "_RULE": "rule",
    "_DONE": "done",
    "_FAILURE": "failure",
    "_SPAWN": "spawn_head",
    "_SPAWNED": "spawned",
    "_EXITED": "exited",
    "_WRITTEN": "written",
    "_REFUSED": "refused",
    "_LEFTOVER": "leftover",
    "_GONE": "gone",
    "_SOCKET": "socket_made",
    "_STILLED": "stilled",
    "_MOUNTED": "mounted",
    "_UNMAPPED": "unmapped",
}
LATE_STRUCTURES = {
    "_HEAD": "late_head",
    "_PART": "late_part",
    "_LAYERS": "layers_head",
    "_LAYER": "layer",
}


@cache
def read_header() -> str:
    """The header without its comments."""
    return re.sub(r"/\*.*?\*/", "", HEADER.read_text(encoding="utf-8"), flags=re.DOTALL)


def read_defines() -> dict[str, int]:
    """Each constant that is a product of numbers."""
    found = {}
    for name, text in re.findall(r"^#define (\w+) +(.+?) *$", read_header(), re.MULTILINE):
        product = 1
        for factor in re.findall(r"0x[0-9a-fA-F]+|\d+", text):
            product *= int(factor, 0)
        found[name] = product
    return found


def read_enumeration(name: str) -> dict[str, int]:
    """The constants of an enumeration; each says its number."""
    found = re.search(rf"enum {name} \{{(.*?)\}}", read_header(), re.DOTALL)
    assert found, name
    constants = [part.split("=") for part in found[1].split(",") if part.strip()]
    return {constant.strip(): int(number, 0) for constant, number in constants}


def read_structures() -> dict[str, str]:
    """The structures as formats without padding."""
    found = {}
    for name, body in re.findall(r"struct (\w+) \{(.*?)\};", read_header(), re.DOTALL):
        letters = ""
        for kind, members in re.findall(r"(\w+) ([^;]+);", body):
            if kind == "char":
                letters += members[members.index("[") + 1 : -1] + "s"
            else:
                letters += LETTERS[kind] * len(members.split(","))
        found[name] = letters
    return found


def spelled_out(layout: str) -> str:
    """A format without counts before its numbers."""
    return re.sub(r"(\d+)([HIiQ])", lambda m: m[2] * int(m[1]), layout.removeprefix("="))


@pytest.mark.parametrize("name", ENUMERATIONS)
def test_numbers_are_those_of_the_header(name: str) -> None:
    enumeration, prefix = ENUMERATIONS[name]
    members: type[IntEnum] = (vars(late_wire) | vars(wire))[name]
    ours = {prefix + member.name: member.value for member in members}
    assert ours == read_enumeration(enumeration)


def test_single_numbers_are_those_of_the_header() -> None:
    defines = read_defines()
    assert wire.MAGIC == protocol.MAGIC == defines["PROTOCOL_MAGIC"]
    assert wire.INLINE_LIMIT == protocol.INLINE_LIMIT == defines["INLINE_LIMIT"]
    assert wire.BODY_LIMIT == protocol.BODY_LIMIT == defines["BODY_LIMIT"]
    assert defines["NAMESPACE_PLACE"] == mounting.NAMESPACE_PLACE
    assert defines["LEFTOVERS_LISTED"] == events.LEFTOVERS_LISTED
    assert defines["REFUSED_LISTED"] == events.REFUSED_LISTED
    assert defines["OUTPUT_ROOM"] == events.OUTPUT_ROOM
    assert read_enumeration("message_flag") == {"BODY_IN_MEMFD": wire.BODY_IN_MEMFD}
    killed, lost = vars(events)["_KILLED"], vars(events)["_KEEPER_LOST"]
    exited = {"EXITED_KILLED": killed, "EXITED_KEEPER_LOST": lost}
    assert exited == read_enumeration("exited_flag")
    assert read_enumeration("identity_mode") == {
        "IDENTITY_CALLER": 0,
        "IDENTITY_LEASED": 1,
        "IDENTITY_SUBORDINATE": 2,
    }


def test_decoder_of_the_tests_knows_the_header() -> None:
    for enumeration, prefix in (
        ("request", "REQUEST_"),
        ("event", "EVENT_"),
        ("record_op", "RECORD_"),
    ):
        numbers = read_enumeration(enumeration)
        theirs = {name: getattr(protocol, name.removeprefix(prefix)) for name in numbers}
        assert theirs == numbers
    assert read_structures() == protocol.FORMATS


def test_layouts_are_those_of_the_header() -> None:
    structures = read_structures()
    own_names = vars(events) | vars(wire)
    ours = {name: spelled_out(own_names[own].format) for own, name in STRUCTURES.items()}
    pair = spelled_out(vars(wire)["_PAIR"].format)
    ours |= {
        name: spelled_out(vars(late_wire)[own].format) for own, name in LATE_STRUCTURES.items()
    }
    pairs = dict.fromkeys(("signal_body", "kill_body", "socket_body", "still_body"), pair)
    assert ours | pairs == structures


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_compiler_adds_no_padding(tmp_path: Path) -> None:
    structures = read_structures()
    lines = "".join(f'printf("{name} %zu\\n", sizeof(struct {name}));' for name in structures)
    source = tmp_path / "sizes.c"
    source.write_text(f'#include <stdio.h>\n#include "{HEADER}"\nint main(void) {{ {lines} }}\n')
    program = tmp_path / "sizes"
    subprocess.run(["cc", "-o", program, source], check=True, capture_output=True)
    told = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    sizes = {name: int(size) for name, size in (line.split() for line in told.splitlines())}
    assert sizes == {name: struct.calcsize("=" + layout) for name, layout in structures.items()}
