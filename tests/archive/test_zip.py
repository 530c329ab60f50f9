"""Zip archives are read as others write them; what their parts disagree about is refused."""

from __future__ import annotations

import io
import stat
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard.archive import Kind
from tests.archive.making import content_of, refusal, zip_members, zip_of


def info_of(name: str, mode: int = 0o644 | stat.S_IFREG, method: int = 8) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (2020, 1, 2, 3, 4, 6))
    info.create_system = 3
    info.external_attr = mode << 16
    info.compress_type = method
    return info


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_is_read(method: int) -> None:
    content = b"content" * 10_000
    data = zip_of(
        (info_of("d/", 0o750 | stat.S_IFDIR, 0), b""),
        (info_of("d/file", 0o640 | stat.S_IFREG, method), content),
        (info_of("link", 0o777 | stat.S_IFLNK, 0), b"d/file"),
        (info_of("ünïcode", method=method), b"x"),
    )
    found = zip_members(data)
    assert [member.kind for member in found] == [
        Kind.DIRECTORY,
        Kind.FILE,
        Kind.SYMLINK,
        Kind.FILE,
    ]
    assert (found[1].mode, content_of(found[1])) == (0o640, content)
    assert (found[0].mode, found[2].link, found[3].name.decode()) == (0o750, b"d/file", "ünïcode")


def test_sizes_that_come_later() -> None:
    """As a writer has it that can't go back."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.data += bytes(data)
            return len(data)

    out = Pipe()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("f", b"x" * 1000)
        archive.writestr("g", b"y" * 1000)
    assert [content_of(member) for member in zip_members(out.data)] == [b"x" * 1000, b"y" * 1000]


def test_large_form() -> None:
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w") as archive,
        archive.open(zipfile.ZipInfo("f"), "w", force_zip64=True) as file,
    ):
        file.write(b"x" * 1000)
    (found,) = zip_members(out.getvalue())
    assert content_of(found) == b"x" * 1000


def changed(data: bytes, old: bytes, new: bytes, where: int = 0) -> bytes:
    at = data.index(old, where)
    return data[:at] + new + data[at + len(old) :]


PLAIN = zip_of(("f", b"x" * 50), ("g", b"y" * 50), method=zipfile.ZIP_STORED)
CENTRAL = PLAIN.index(b"PK\x01\x02")
SECOND = PLAIN.index(b"PK\x01\x02", CENTRAL + 1)


def patched(at: int, form: str, value: int) -> bytes:
    return PLAIN[:at] + struct.pack(form, value) + PLAIN[at + struct.calcsize(form) :]


HOSTILE: dict[str, tuple[bytes, str]] = {
    "cut": (PLAIN[:-30], "archive is truncated"),
    "another local name": (changed(PLAIN, b"f", b"h"), "zip member and list disagree"),
    "another local size": (patched(22, "<I", 49), "zip member and list disagree"),
    "another local method": (patched(8, "<H", 8), "zip member and list disagree"),
    "wrong content": (changed(PLAIN, b"x" * 50, b"z" * 50), "zip member has a wrong checksum"),
    "encrypted": (patched(CENTRAL + 8, "<H", 1), "zip member and list disagree"),
    "encrypted on both sides": (
        patched(CENTRAL + 8, "<H", 1)[:6] + b"\1\0" + patched(CENTRAL + 8, "<H", 1)[8:],
        "encrypted zip member",
    ),
    "same bytes twice": (patched(SECOND + 42, "<I", 0), "overlapping zip entries"),
    "reaches into the next": (patched(CENTRAL + 20, "<I", 90), "overlapping zip entries"),
    "list of another length": (patched(len(PLAIN) - 12, "<H", 1), "zip archive of several"),
    "list elsewhere": (patched(len(PLAIN) - 6, "<I", 7), "corrupt zip archive"),
    "something before": (b"PK\x03\x04" + PLAIN, "corrupt zip archive"),
    "several volumes": (patched(len(PLAIN) - 18, "<H", 1), "zip archive of several volumes"),
    "method": (zip_of(("f", b"x" * 50), method=zipfile.ZIP_BZIP2), "unsupported zip compression"),
    "bomb": (zip_of(("f", bytes(80_000_000))), "archive compression ratio exceeds limit"),
    "fifo": (zip_of((info_of("f", stat.S_IFIFO | 0o644), b"")), "unsupported member type special"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(case: str) -> None:
    data, reason = HOSTILE[case]
    assert refusal(data).startswith(reason)


def test_any_flipped_bit() -> None:
    data = bytearray(zip_of(("d/f", b"content" * 20), ("g", b"more"), ("e/", b"")))
    refused = 0
    for at in range(len(data)):
        for bit in (1, 64):
            data[at] ^= bit
            refused += refusal(bytes(data)) != "accepted"
            data[at] ^= bit
    assert refused > len(data) // 2


@given(st.lists(st.tuples(st.integers(2, 400), st.integers(0, 255)), max_size=8))
def test_any_changes(changes: list[tuple[int, int]]) -> None:
    data = bytearray(zip_of(("d/f", b"content" * 20), ("g", b"more" * 50), ("e/", b"")))
    for at, value in changes:
        data[at % len(data)] = value
    refusal(b"PK" + bytes(data[2:]))


@given(st.dictionaries(st.text("abc/.é-", min_size=1, max_size=9), st.binary(max_size=500)))
def test_what_others_write(files: dict[str, bytes]) -> None:
    data = zip_of(*files.items())
    if not any(name.endswith("/") and content for name, content in files.items()):
        found = zip_members(data)
        assert {member.name.decode(): content_of(member) for member in found} == files
