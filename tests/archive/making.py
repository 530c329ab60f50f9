"""Archives for tests, made by Python's own modules, or header by header where those refuse."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import tarfile
import zipfile
from collections.abc import Callable

from sandyard.archive import ArchiveError, Member
from sandyard.archive.bounds import ArchiveMeter, SandboxArchiveLimits
from sandyard.archive.intake import ByteReader, expanded, memory_source
from sandyard.archive.tar_reading import read_tar
from sandyard.archive.zip_reading import read_zip

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

WRAPS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zst": zstd.compress,
}

Entry = tuple[tarfile.TarInfo, bytes]


def item(name: str, content: bytes = b"", **facts: object) -> Entry:
    """A member for ``tar_of``."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mtime = 1_000_000_000
    for key, value in facts.items():
        setattr(info, key, value)
    return info, content


def symlink(name: str, target: str) -> Entry:
    return item(name, type=tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> Entry:
    return item(name, type=tarfile.LNKTYPE, linkname=target)


def directory(name: str, **facts: object) -> Entry:
    facts.setdefault("mode", 0o755)
    return item(name, b"", type=tarfile.DIRTYPE, **facts)


def tar_of(*items: Entry, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive of members, by Python's module."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, content in items:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zip_of(
    *items: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """A zip archive of members, by Python's module."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in items:
            archive.writestr(name, content)
    return out.getvalue()


def header(name: bytes, kind: bytes = b"0", size: bytes = b"0", **fields: bytes) -> bytes:
    """One header with a right checksum, whatever is in it."""
    block = bytearray(512)

    def put(at: int, value: bytes) -> None:
        block[at : at + len(value)] = value

    put(0, name)
    put(100, b"0000644\0")
    put(124, size if size[0] & 0x80 else size.rjust(11, b"0") + b"\0")
    put(136, fields.get("mtime", b"00000000000\0"))
    put(156, kind)
    put(157, fields.get("link", b""))
    put(257, fields.get("magic", b"ustar\x0000"))
    put(345, fields.get("prefix", b""))
    put(386, fields.get("extents", b""))
    return summed(block)


def summed(header: bytes | bytearray) -> bytes:
    """A header with the checksum that it should have."""
    blank = bytes(header[:148]) + b" " * 8 + bytes(header[156:])
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """An extended header."""
    data = b""
    for key, value in records:
        body = b" %b=%b\n" % (key, value)
        size = len(body) + 1
        while size != len(body) + len(str(size)):
            size += 1
        data += b"%d%b" % (size, body)
    return header(b"pax", kind, b"%o" % len(data)) + padded(data)


END = bytes(1024)


def members_of(data: bytes, limits: SandboxArchiveLimits | None = None) -> list[Member]:
    """The members of a tar archive, compressed or not, whose content was read."""
    meter = ArchiveMeter(limits or SandboxArchiveLimits())
    meter.take(len(data))
    content = expanded(ByteReader(memory_source(memoryview(data))), meter)
    found = [noted(member, meter) for member in read_tar(content)]
    content.drain()
    return found


def zip_members(data: bytes) -> list[Member]:
    """The members of a zip archive, whose content was read."""
    meter = ArchiveMeter(SandboxArchiveLimits())
    meter.take(len(data))
    found = read_zip(lambda offset, size: data[offset : offset + size], len(data), meter)
    return [noted(member, meter) for member in found]


def noted(member: Member, meter: ArchiveMeter) -> Member:
    meter.note(member)
    content = bytearray(member.size if member.size < 1 << 24 else 0)
    for offset, piece in member.pieces():
        content[offset : offset + len(piece)] = piece
    member.pieces = lambda: iter([(0, memoryview(bytes(content)))])
    return member


def content_of(member: Member) -> bytes:
    return b"".join(piece for _, piece in member.pieces())


def refusal(data: bytes, limits: SandboxArchiveLimits | None = None) -> str:
    """Why an archive is refused."""
    try:
        if data[:2] == b"PK":
            zip_members(data)
        else:
            members_of(data, limits)
    except ArchiveError as error:
        return error.reason
    return "accepted"
