"""``sandyard snapshot``: what is saved of sessions, in this user's store."""

from __future__ import annotations

import dataclasses
import json as json_format
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import IO, Annotated, Final

import typer

from sandyard import ArgumentError, Snapshot, SnapshotStore
from sandyard.cli.progress import Progress, readable_size
from sandyard.cli.reaching import (
    Freeze,
    Json,
    Session,
    attended,
    print_objects,
    print_table,
    processes_for,
    readable_moment,
    supervised,
)
from sandyard.cli.report import printable
from sandyard.cli.snapshot_names import Kept, KeptList, KeptNew, KeptOld
from sandyard.finishing import in_thread
from sandyard.layered import forget_saved
from sandyard.snapshot.upkeep import Reclaimed

__all__ = ["snapshot"]

_DAMAGED: Final = 1
_DIFFERENT: Final = 1
_DAY_S: Final = 86_400
_STREAM: Final = "-"

snapshot = typer.Typer(
    help="What is saved of sessions, in a store of yours.",
    no_args_is_help=True,
)

Label = Annotated[
    str, typer.Option(metavar="TEXT", help="What it is called; what has a label is never pruned.")
]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="WORD", help="A further word.")]
File = Annotated[
    str, typer.Argument(metavar="FILE", help="A tar archive; '-' is the standard stream.")
]
History = Annotated[
    str | None, typer.Argument(metavar="HISTORY", help="Only of this one.", show_default=False)
]


@snapshot.command(name="create")
def create(
    session: Session,
    label: Label = "",
    tag: Tags = None,
    freeze: Freeze = False,
    json: Json = False,
) -> int:
    """Save the files of a session that stays.

    The snapshot's id is printed. It costs what changed since the last one. Commands go on meanwhile,
    unless --freeze holds them still. Its history has the session's name; with neither label nor tag,
    what has not changed is not saved again.
    """

    async def work() -> int:
        with Progress("saving") as progress:
            held = supervised().session(session)
            processes = processes_for(freeze=freeze)
            saving = held.save_snapshot(label=label, tags=tag or (), processes=processes)
            made = await progress.during(saving)
        if json:
            print_objects((made,))
        else:
            typer.echo(made.id)
        return 0

    return attended(work)


@snapshot.command(name="list")
def list_all(history: History = None, json: Json = False) -> int:
    """List what is saved, oldest first."""

    async def work() -> int:
        _list(await SnapshotStore().list(history), json=json)
        return 0

    return attended(work)


@snapshot.command(name="show")
def show(which: Kept, json: Json = False) -> int:
    """Tell all that is known of a snapshot.

    What could not be saved is included.
    """

    async def work() -> int:
        found = await SnapshotStore().resolve(which)
        if json:
            _print(_fields(found))
            return 0
        lines = {
            "id": found.id,
            "history": f"{found.history}, number {found.number}",
            "created": readable_moment(found.created),
            "label": found.label,
            "tags": " ".join(found.tags),
            "parent": found.parent or "",
            "path inside": found.root,
            "content": f"{found.files} files ({readable_size(found.size)}), {found.directories} "
            f"directories, {found.symlinks} symlinks, {found.hard_links} hard links",
        }
        for name, value in lines.items():
            if value:
                typer.echo(f"{name + ':':13}{printable(value)}")
        for fate in ("skipped", "changed", "dropped"):
            for path, reason in getattr(found, fate):
                typer.echo(f"{fate + ':':13}{printable(path)} ({reason})")
        if found.unlisted:
            typer.echo(f"{'and:':13}{found.unlisted} more")
        return 0

    return attended(work)


@snapshot.command(name="diff")
def diff(old: KeptOld, new: KeptNew, json: Json = False) -> int:
    """Tell what is different between two snapshots.

    - is gone, + is new, ~ has other content, ! has other permissions, attributes or times only.

    Exit codes: 0 if nothing is different, 1 if something is, 125 where sandyard refuses.
    """

    async def work() -> int:
        store = SnapshotStore()
        before, after = await store.resolve(old), await store.resolve(new)
        found = await store.diff(before.id, after.id)
        if json:
            _print(dataclasses.asdict(found))
        else:
            fates = (("-", found.removed), ("+", found.added), ("~", found.changed))
            for sign, paths in (*fates, ("!", found.retouched)):
                for path in paths:
                    typer.echo(f"{sign} {printable(path)}")
        return 0 if found.same else _DIFFERENT

    return attended(work)


@snapshot.command(name="verify")
def verify(json: Json = False) -> int:
    """Read all that is saved, and compare it with what was written.

    Exit codes: 0 if all of it is as it was, 1 if something is damaged, 125 where sandyard refuses.
    """

    async def work() -> int:
        with Progress("verifying") as progress:
            health = await progress.during(SnapshotStore().verify())
        if json:
            _print(dataclasses.asdict(health) | {"ok": health.ok})
            return 0 if health.ok else _DAMAGED
        for one in health.damage:
            whose = "no snapshot" if one.snapshot is None else f"snapshot {one.snapshot}"
            typer.echo(f"{printable(one.path)}: {one.reason}; it harms {whose}")
        typer.echo(
            f"{health.snapshots} snapshots are whole; {health.objects} contents "
            f"({readable_size(health.size)}) were read"
        )
        return 0 if health.ok else _DAMAGED

    return attended(work)


@snapshot.command(name="compact")
def compact(json: Json = False) -> int:
    """Compress what is saved, and join small packs."""

    async def work() -> int:
        with Progress("compacting") as progress:
            done = await progress.during(SnapshotStore().compact())
        return _tell_freed(done, json=json)

    return attended(work)


@snapshot.command(name="prune")
def prune(
    history: History = None,
    days: Annotated[
        float | None, typer.Option(metavar="DAYS", min=0, help="Older ones go.")
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Of each history, the newest so many stay."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="BYTES", min=0, help="Of each history, the newest of so many bytes stay."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing; list what would go.")
    ] = False,
    json: Json = False,
) -> int:
    """Remove old snapshots, and what only they needed.

    Those of every session are looked at, unless HISTORY says of which. With no option, only what nobody
    needs. The newest of each history stays, and so does what has a label or a tag.
    """

    async def work() -> int:
        store, age = SnapshotStore(), None if days is None else days * _DAY_S
        pruning = partial(store.prune, history=history, max_age=age, max_count=keep, max_bytes=size)
        if dry_run:
            would_go = set((await pruning(dry_run=True)).removed)
            _list([one for one in await store.list(history) if one.id in would_go], json=json)
            if not would_go:
                typer.echo("no snapshot would be removed", err=True)
            return 0
        with Progress("pruning") as progress:
            done = await progress.during(pruning())
        await in_thread(forget_saved)
        return _tell_freed(done, json=json)

    return attended(work)


@snapshot.command(name="rm")
def remove(which: KeptList, json: Json = False) -> int:
    """Remove snapshots, labelled ones too, and what only they needed.

    If there is no such snapshot, none is removed.
    """

    async def work() -> int:
        store = SnapshotStore()
        found = [await store.resolve(one) for one in which]
        with Progress("removing") as progress:
            done = await progress.during(store.remove(*dict.fromkeys(one.id for one in found)))
        await in_thread(forget_saved)
        return _tell_freed(done, json=json)

    return attended(work)


@snapshot.command(name="export")
def export(which: Kept, file: File = _STREAM) -> int:
    """Write a snapshot as a plain tar archive.

    A file that exists is not replaced.
    """

    async def work() -> int:
        store = SnapshotStore()
        found = await store.resolve(which)
        if file == _STREAM:
            await _write(store, found, sys.stdout.buffer)
            return 0
        opened = await in_thread(_opened, file, "xb", "FILE")
        try:
            await _write(store, found, opened)
            await in_thread(opened.close)
        except BaseException:
            opened.close()
            os.unlink(file)  # half an archive is none
            raise
        return 0

    return attended(work)


@snapshot.command(name="import")
def take(
    history: Annotated[str, typer.Argument(metavar="HISTORY", help="Which it comes to stand in.")],
    file: File = _STREAM,
    label: Label = "",
    tag: Tags = None,
    json: Json = False,
) -> int:
    """Take a tar archive as a new snapshot, and print its id.

    It may be compressed.
    """

    async def work() -> int:
        opened = (
            sys.stdin.buffer if file == _STREAM else await in_thread(_opened, file, "rb", "FILE")
        )
        try:
            with Progress("taking in") as progress:
                source = _Counted(opened, progress)
                made = await SnapshotStore().add_tar(history, source, label=label, tags=tag or ())
        finally:
            opened.close()
        if json:
            _print(_fields(made))
        else:
            typer.echo(made.id)
        return 0

    return attended(work)


class _Counted:
    """A file whose bytes are counted as they are read."""

    def __init__(self, file: IO[bytes], progress: Progress) -> None:
        self._file = file
        self._progress = progress

    def read(self, size: int = -1) -> bytes:
        """Read some of it."""
        return self._progress.count(self._file.read(size))


async def _write(store: SnapshotStore, found: Snapshot, file: IO[bytes]) -> None:
    with Progress("writing") as progress:
        async for piece in progress.watch(store.export(found.id)):
            await in_thread(file.write, piece)
        await in_thread(file.flush)


def _opened(path: str, mode: str, argument: str) -> IO[bytes]:
    try:
        return open(path, mode)
    except OSError as error:
        raise ArgumentError(
            f"{path} can't be opened: {error.strerror}",
            op="snapshot_persist",
            argument=argument,
            value=path,
            cause=error,
        ) from error


def _list(found: Sequence[Snapshot], *, json: bool) -> None:
    if json:
        for one in found:
            _print(_fields(one))
    elif found:
        rows = [
            (
                one.id,
                one.history,
                readable_moment(one.created),
                str(one.files),
                readable_size(one.size),
                one.label,
                " ".join(one.tags),
            )
            for one in found
        ]
        print_table(("ID", "HISTORY", "CREATED", "FILES", "SIZE", "LABEL", "TAGS"), rows)


def _tell_freed(done: Reclaimed, *, json: bool) -> int:
    if json:
        _print(dataclasses.asdict(done))
        return 0
    change = "freed" if done.size >= 0 else "taken"
    removed = f"{len(done.removed)} snapshots were" if len(done.removed) != 1 else "1 snapshot was"
    typer.echo(f"{removed} removed, {readable_size(abs(done.size))} {change}")
    if done.deferred:
        typer.echo("somebody used the store all the while: the next call frees the rest", err=True)
    return 0


def _fields(one: Snapshot) -> dict[str, object]:
    return dataclasses.asdict(one)


def _print(fields: dict[str, object]) -> None:
    typer.echo(json_format.dumps(fields))
