"""Uses a workspace behind a seccomp filter that refuses openat2; a child of a test."""

from __future__ import annotations

import os
import struct
import sys

from sandyard.errors import InvalidManifestPathError
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.files import read, remove, write
from sandyard.workspace.kernel import Kernel, open_without_links
from sandyard.workspace.listing import list_directory
from tests.confinement.seccomp_live import install

LOAD_NUMBER = (0x20, 0, 0, 0)
ALLOW = (0x06, 0, 0, 0x7FFF0000)


def refuse_openat2(number: int) -> None:
    """Answer openat2(2) with an error, as filters do that do not know it."""
    program = (LOAD_NUMBER, (0x15, 0, 1, 437), (0x06, 0, 0, 0x00050000 | number), ALLOW)
    install(b"".join(struct.pack("<HBBI", *step) for step in program))


def main() -> None:
    base, number = sys.argv[1], int(sys.argv[2])
    refuse_openat2(number)
    with WorkspaceRoot.open(f"{base}/ws") as root:
        write(root, "a/f", b"inside")
        os.symlink("../secret", f"{base}/ws/out")
        with read(root, "a/f") as reader:
            assert reader.read() == b"inside"
        assert [entry.path for entry in list_directory(root, "a")] == [f"{base}/ws/a/f"]
        try:
            read(root, "out")
        except InvalidManifestPathError:
            remove(root, "out")
        else:
            raise AssertionError
        remove(root, "a", recursive=True)
    os.close(open_without_links(f"{base}/secret", os.O_RDONLY))
    assert not Kernel.resolves


if __name__ == "__main__":
    main()
