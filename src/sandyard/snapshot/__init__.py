"""Workspaces at rest: a store that keeps each content once, histories, and the kinds of snapshots.

Nothing here knows a live workspace. Trees come in as contents and directories, and go out as the
members of an archive.
"""
