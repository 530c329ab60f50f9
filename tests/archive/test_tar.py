"""Tar archives are read as others write them, and written as others read them."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard.archive import ArchiveError, Kind, Member, SandboxArchiveLimits
from sandyard.archive.intake import ByteReader, memory_source
from sandyard.archive.tar_fields import MAX_TIME_NS, parse_number, parse_time
from sandyard.archive.tar_reading import read_runs, read_tar
from sandyard.archive.tar_writing import END as WRITTEN_END
from sandyard.archive.tar_writing import headers_of, padding
from tests.archive.making import (
    END,
    WRAPS,
    content_of,
    directory,
    hard_link,
    header,
    item,
    members_of,
    padded,
    pax,
    refusal,
    summed,
    symlink,
    tar_of,
)

SAMPLE = (
    directory("d/", mode=0o750),
    item("d/file", b"content" * 100, mode=0o640),
    symlink("d/link", "file"),
    hard_link("again", "d/file"),
    item("empty"),
    item("n" * 90 + "/" + "m" * 90, b"long"),
)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("wrap", WRAPS)
def test_forms_and_compressions(form: int, wrap: str) -> None:
    found = members_of(WRAPS[wrap](tar_of(*SAMPLE, form=form)))
    assert [member.name.rstrip(b"/").decode() for member in found] == [
        info.name.rstrip("/") for info, _ in SAMPLE
    ]
    assert [content_of(member) for member in found if member.kind is Kind.FILE] == [
        content for info, content in SAMPLE if info.isreg()
    ]
    assert [member.link for member in found if member.link] == [b"file", b"d/file"]
    assert (found[1].mode, found[1].mtime) == (0o640, 10**18)


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_gnu_tar_is_read(tmp_path: Path, form: str) -> None:
    if shutil.which("tar") is None:
        pytest.skip("there is no tar")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").write_bytes(b"x" * 5000)
    (tmp_path / "link").symlink_to("d/file")
    words = ["tar", "-cf", "-", f"--format={form}", "-C", str(tmp_path), "d", "link"]
    data = subprocess.run(words, capture_output=True, check=True).stdout
    found = {member.name: member for member in members_of(data)}
    assert content_of(found[b"d/file"]) == b"x" * 5000
    assert found[b"link"].link == b"d/file"
    assert found[b"d/"].kind is Kind.DIRECTORY


@pytest.mark.parametrize("form", ["0.0", "0.1", "1.0", "oldgnu"])
def test_holes_are_read(tmp_path: Path, form: str) -> None:
    if shutil.which("tar") is None:
        pytest.skip("there is no tar")
    with open(tmp_path / "sparse", "wb") as file:
        for number in range(30):  # more than one header of the old format holds
            file.seek(number * 100_000)
            file.write(b"data")
        file.truncate(4_000_000)
    how = [f"--sparse-version={form}", "--format=posix"] if form[0].isdigit() else ["--format=gnu"]
    words = ["tar", "-cSf", "-", *how, "-C", str(tmp_path), "sparse"]
    data = subprocess.run(words, capture_output=True, check=True).stdout
    (found,) = members_of(data)
    assert (found.name, found.size) == (b"sparse", 4_000_000)
    assert found.sparse is not None
    assert len(found.sparse) >= 30
    assert content_of(found) == (tmp_path / "sparse").read_bytes()


NAMES = st.lists(
    st.binary(min_size=1, max_size=150).filter(
        lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."}
    ),
    min_size=1,
    max_size=3,
).map(b"/".join)


@given(
    name=NAMES,
    content=st.binary(max_size=2000),
    mode=st.integers(0, 0o777),
    mtime=st.integers(-(10**18), MAX_TIME_NS),
    attributes=st.dictionaries(
        st.from_regex(rb"user\.[a-z]{1,9}", fullmatch=True), st.binary(max_size=99), max_size=2
    ),
)
def test_written_is_read(
    name: bytes, content: bytes, mode: int, mtime: int, attributes: dict[bytes, bytes]
) -> None:
    member = Member(name, Kind.FILE, len(content), mode, mtime, attributes=attributes or None)
    data = headers_of(member) + content + padding(len(content)) + WRITTEN_END
    (found,) = members_of(data)
    assert (found.name, found.mode, found.mtime) == (name, mode, mtime)
    assert found.attributes == (attributes or None)
    assert content_of(found) == content
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        (other,) = archive.getmembers()
        assert other.name.encode("utf-8", "surrogateescape") == name.rstrip(b"/")
        assert (other.mode, other.size) == (mode, len(content))


def test_written_holes_are_read() -> None:
    member = Member(b"./s", Kind.FILE, 10**12, 0o600, 5, sparse=[(4096, 4), (10**12 - 3, 3)])
    data = headers_of(member) + b"datxend" + padding(7) + WRITTEN_END
    (found,) = members_of(data, SandboxArchiveLimits(max_extracted_bytes=None))
    assert (found.name, found.size, found.sparse) == (b"./s", 10**12, member.sparse)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        (other,) = archive.getmembers()
        assert (other.name, other.size) == ("./s", 10**12)


def test_members_without_a_type_that_end_in_a_slash_are_directories() -> None:
    (found,) = members_of(header(b"d/", b"\0", magic=b"") + END)
    assert found.kind is Kind.DIRECTORY


def test_numbers() -> None:
    assert parse_number(b"0000644\0") == 0o644
    assert parse_number(b"   644 \0") == 0o644
    assert parse_number(b"\0" * 8) == 0
    assert parse_number(b"\x80" + bytes(6) + b"\x05") == 5
    assert parse_number(b"\xff" * 8) == -1
    assert parse_time(b"-1.5") == -1_500_000_000
    assert parse_time(b"12.1234567899") == 12_123_456_789


EXTENTS = b"%011o\0%011o\0"
HOSTILE: dict[str, tuple[bytes, str]] = {
    "cut in a header": (tar_of(item("f", b"x"))[:300], "archive is truncated"),
    "cut in content": (tar_of(item("f", b"x" * 999))[:600], "archive is truncated"),
    "without its end": (tar_of(item("f", b"x"))[:1024], "archive is truncated"),
    "character device": (header(b"f", b"3") + END, "unsupported member type character device"),
    "block device": (header(b"f", b"4") + END, "unsupported member type block device"),
    "fifo": (header(b"f", b"6") + END, "unsupported member type fifo"),
    "several volumes": (header(b"f", b"M") + END, "unsupported member type continued file"),
    "unknown type": (header(b"f", b"Z") + END, "unsupported member type b'Z'"),
    "bad checksum": (header(b"f").replace(b"f", b"g", 1) + END, "corrupt header"),
    "digits": (header(b"f", size=b"9") + END, "corrupt header"),
    "underscores": (header(b"f", size=b"1_0") + END, "corrupt header"),
    "negative size": (header(b"f", size=b"\xff" * 12) + END, "corrupt header"),
    "huge size": (header(b"f", size=b"\x80" + b"\x7f" * 11) + END, "archive extracted size"),
    "negative header": (header(b"f", b"x", b"\xff" * 12) + END, "headers of a member"),
    "huge header": (header(b"f", b"L", b"77777777777") + END, "headers of a member"),
    "pax without equals": (
        header(b"p", b"x", b"5") + padded(b"5 ab\n") + header(b"f") + END,
        "corrupt header",
    ),
    "pax length too long": (
        header(b"p", b"x", b"10") + padded(b"99 a=b\n") + header(b"f") + END,
        "corrupt header",
    ),
    "pax length zero": (
        header(b"p", b"x", b"10") + padded(b"0 a=b\n") + header(b"f") + END,
        "corrupt header",
    ),
    "pax size": (pax((b"size", b"-5")) + header(b"f") + END, "corrupt header"),
    "pax time": (pax((b"mtime", b"1e9")) + header(b"f") + END, "corrupt header"),
    "pax late time": (
        pax((b"mtime", b"9999999999999999999")) + header(b"f") + END,
        "corrupt header",
    ),
    "pax without a member": (pax((b"path", b"x")) + END, "corrupt header"),
    "global path": (
        pax((b"path", b"x"), kind=b"g") + header(b"f") + END,
        "unsupported global header",
    ),
    "global size": (
        pax((b"size", b"9"), kind=b"g") + header(b"f") + END,
        "unsupported global header",
    ),
    "overlapping extents": (
        header(b"f", b"S", b"2", extents=EXTENTS % (5, 1) + EXTENTS % (5, 1)) + END,
        "corrupt map",
    ),
    "extents beyond the end": (
        header(b"f", b"S", b"1", extents=EXTENTS % (5, 1)) + END,
        "corrupt map",
    ),
    "endless map": (
        pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"9"))
        + header(b"f", size=b"1000")
        + padded(b"99999999\n")
        + END,
        "corrupt map",
    ),
    "sparse bomb": (
        pax((b"GNU.sparse.map", b"0,0"), (b"GNU.sparse.size", b"9" * 18)) + header(b"f") + END,
        "archive extracted size exceeds limit",
    ),
    "no compressed data": (b"\x1f\x8b\x08" + bytes(40), "corrupt compressed data"),
    "cut gzip": (WRAPS["gz"](tar_of(item("f", b"x" * 99)))[:-9], "archive is truncated"),
    "wrong gzip sum": (
        WRAPS["gz"](tar_of(item("f", b"x")))[:-8] + b"\0" * 8,
        "corrupt compressed data",
    ),
    "something behind": (WRAPS["gz"](tar_of(item("f"))) + b"more", "corrupt compressed data"),
    "zstd window": (b"\x28\xb5\x2f\xfd\x00\xf8" + bytes(40), "corrupt compressed data"),
    "cut xz": (WRAPS["xz"](tar_of(item("f", b"x" * 99)))[:-9], "archive is truncated"),
    "bomb": (
        WRAPS["gz"](tar_of(item("f", bytes(80_000_000)))),
        "archive compression ratio exceeds limit",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(case: str) -> None:
    data, reason = HOSTILE[case]
    assert refusal(data).startswith(reason)


def test_several_streams_are_one() -> None:
    data = tar_of(item("f", b"x"))
    (found,) = members_of(WRAPS["gz"](data[:700]) + WRAPS["gz"](data[700:]) + bytes(512))
    assert content_of(found) == b"x"


@pytest.mark.parametrize("wrap", ["plain", "gz", "zst"])
def test_any_flipped_bit(wrap: str) -> None:
    """Whatever is flipped, the archive is read or refused, never anything else."""
    whole = WRAPS[wrap](tar_of(*SAMPLE[:4]))
    data = bytearray(whole if wrap != "plain" else whole[: 8 * 512 + 1024])
    refused = 0
    for at in range(len(data)):
        bit = 1 << at % 8
        data[at] ^= bit
        refused += refusal(bytes(data)) != "accepted"
        data[at] ^= bit
    assert refused > len(data) // 8


def told_of(data: bytes, portion: int) -> list[object]:
    """What reading an archive tells if so many of its bytes come at a time, up to its refusal."""
    rest = memory_source(memoryview(data))
    found: list[object] = []
    try:
        source = ByteReader(lambda size: rest(min(size, portion)))
        source.peek(1)
        for member in read_tar(source):
            facts = (member.name, member.kind, member.size, member.mode, member.mtime, member.link)
            # Of a file that a changed size made huge, its pieces would be huge as well.
            found.append((*facts, member.size < 1 << 20 and content_of(member)))
    except ArchiveError as error:
        found.append((error.reason, error.member))
    return found


@pytest.mark.parametrize("magic", [b"ustar\x0000", b"ustar  \0"])
def test_portions_change_nothing(magic: bytes) -> None:
    """Files that are in memory as a whole are read by another way, which tells the same."""
    items = (item("d/file", b"content"), item("again", b"x" * 700, mode=0o4755), symlink("l", "d"))
    made = tar_of(*items, form=tarfile.USTAR_FORMAT)
    data = bytearray(made[: 7 * 512].replace(b"ustar\x0000", magic))
    for at in (*range(512), *range(1024, 1536)):
        data[at] ^= 1 << at % 8
        start = at - at % 512
        mended = (
            bytes(data[:start]) + summed(data[start : start + 512]) + bytes(data[start + 512 :])
        )
        for changed in (bytes(data), mended):  # what a field says counts where the sum is right
            assert told_of(changed, 1 << 20) == told_of(changed, 100)
        data[at] ^= 1 << at % 8


def test_plain_files_come_together() -> None:
    items = (item("a", b"x" * 600), item("b"), item("c", b"y"), directory("d/"), item("d/e", b"z"))
    data = tar_of(*items, form=tarfile.GNU_FORMAT)
    source = ByteReader(memory_source(memoryview(data)))
    source.peek(512)
    parts = list(read_runs(source))
    assert [len(part) for part in parts if isinstance(part, list)] == [3, 1]
    assert [part.name for part in parts if isinstance(part, Member)] == [b"d/"]


@given(st.binary(max_size=3000), st.sampled_from(["plain", *WRAPS]))
def test_any_bytes(data: bytes, wrap: str) -> None:
    refusal(WRAPS[wrap](data))
    refusal(data)


@given(st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=8))
def test_any_changes(changes: list[tuple[int, int]]) -> None:
    data = bytearray(tar_of(*SAMPLE))
    for at, value in changes:
        data[at] = value
    refusal(bytes(data))


def test_limits() -> None:
    data = tar_of(item("a", b"x" * 10), item("b", b"x" * 10))
    assert refusal(data, SandboxArchiveLimits(max_members=1)).startswith("archive member count")
    assert refusal(data, SandboxArchiveLimits(max_extracted_bytes=19)).startswith(
        "archive extracted size"
    )
    assert refusal(data, SandboxArchiveLimits(max_input_bytes=9)).startswith("archive input size")
    assert refusal(data, SandboxArchiveLimits(max_members=2, max_extracted_bytes=20)) == "accepted"
