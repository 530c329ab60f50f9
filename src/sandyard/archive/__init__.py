"""Archives as streams of bytes and descriptors: tar and zip, read and written, without host paths.

Nothing here opens, names or makes a file. What an archive says is checked here, as far as it can be
without one; what to do with it is decided by who reads.
"""

from __future__ import annotations

from sandyard.archive.bounds import SandboxArchiveLimits
from sandyard.archive.model import ArchiveError, Kind, Member

__all__ = ["ArchiveError", "Kind", "Member", "SandboxArchiveLimits"]
