"""The file verbs of a session: each is checked, then done by the workspace in a thread."""

from __future__ import annotations

from sandyard.file_verbs.patching import PatchingVerbs
from sandyard.file_verbs.reading import ReadingVerbs
from sandyard.file_verbs.searching import SearchingVerbs
from sandyard.file_verbs.transferring import TransferVerbs
from sandyard.file_verbs.watching import WatchingVerbs
from sandyard.file_verbs.writing import WritingVerbs

__all__ = ["FileVerbs"]


class FileVerbs(
    ReadingVerbs, WritingVerbs, SearchingVerbs, PatchingVerbs, TransferVerbs, WatchingVerbs
):
    """What a session does with the files of its workspace, in its host's program.

    Paths are those that commands use, and the policy binds these verbs as it binds commands.
    """
