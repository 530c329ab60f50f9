"""Verbs that keep a workspace, make another of it, mount in it, or reach into it: for a soak."""

from __future__ import annotations

import shutil
from pathlib import Path

from sandyard import (
    BindMount,
    Layered,
    Overlay,
    Policy,
    StoreSnapshotSpec,
    TmpfsMount,
    UnixLocalSandboxClientOptions,
)
from tests.faults.verbs import Place, Ready, Verb
from tests.network.host import ECHO, free_port

__all__ = ["KEEPING"]

_BASE = {"gone": b"old", "file": b"old"}
_APPLIED = {"file": b"new", "made": b"new"}


# --- snapshots ------------------------------------------------------------------------------------


async def begin(place: Place) -> None:
    """A session that is saved by each stop, and runs."""
    store = StoreSnapshotSpec(directory=str(place.source.parent / "store"))
    place.made = await place.client.create(manifest=place.manifest(), snapshot=store)
    await place.session.start()
    await place.session.write("new", place.token.encode())


async def save(place: Place) -> None:
    await place.session.stop()
    assert place.session.checkpoint is not None


async def save_frozen(place: Place) -> None:
    await place.session.exec("setsid sleep 60 & true")
    await place.session.stop(processes="freeze")
    assert place.session.checkpoint is not None


async def begin_saved(place: Place) -> None:
    """A session whose workspace is nowhere but in its snapshot."""
    await begin(place)
    await place.session.stop()
    state = place.session.state
    await place.clear()
    policy = Policy(reads=(str(place.source),))
    place.made = await place.client.resume(state, policy=policy)


async def restore(place: Place) -> None:
    await place.session.start()
    assert await place.session.read_range("new", size=100) == place.token.encode()


async def fork(place: Place) -> None:
    place.others.append(await place.client.fork(place.session))
    await place.others[0].start()
    assert await place.others[0].read_range("copied/link", size=100) == b"text"


async def begin_layered(place: Place) -> None:
    """A session upon a layer that holds what a manifest made, and a change of its own."""
    plain = await place.client.create(manifest=place.manifest())
    place.others.append(plain)
    await plain.start()
    place.made = await place.client.fork(plain, workspace=Layered())
    await place.session.start()
    await place.session.write("new", place.token.encode())


async def fork_layered(place: Place) -> None:
    forked = await place.client.fork(place.session)
    place.others.append(forked)
    await forked.start()
    assert await forked.read_range("new", size=100) == place.token.encode()


# --- overlays -------------------------------------------------------------------------------------


def base_of(place: Place) -> Path:
    return place.source.parent / "base"


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


async def begin_trying(place: Place) -> None:
    """A session over a directory, with a change of each kind."""
    base = base_of(place)
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir()
    for name, content in _BASE.items():
        (base / name).write_bytes(content)
    place.made = await place.client.create(workspace=Overlay(base))
    await place.session.start()
    await place.session.rm("gone")
    for name, content in _APPLIED.items():
        await place.session.write(name, content)


async def diff(place: Place) -> None:
    assert len((await place.session.diff()).entries) == 3


async def apply(place: Place) -> None:
    await place.session.apply()


async def look_at_base(place: Place) -> None:
    """All of it, or nothing; what could not be undone at once is by the next start."""
    await place.session.shutdown()
    await place.session.start()
    assert contents(base_of(place)) in (_BASE, _APPLIED)


async def discard(place: Place) -> None:
    await place.session.discard()
    assert (await place.session.diff()).entries == ()


async def look_at_changes(place: Place) -> None:
    """All of them are there, or none; a session that was stopped amid it can be started."""
    if not await place.session.running():
        await place.session.start()
    assert len((await place.session.diff()).entries) in (0, 3)


# --- mounts ---------------------------------------------------------------------------------------


async def seen(place: Place, name: str) -> bool:
    """Whether commands find a directory with something in it."""
    return bool((await place.session.exec(f"ls {name}")).stdout)


async def mount(place: Place) -> None:
    await place.session.mount("deep/shown", BindMount(source=place.source, read_only=True))
    await place.session.mount("memory", TmpfsMount())
    assert await seen(place, "deep/shown")


async def begin_mounted(place: Place) -> None:
    place.made = await place.client.create(manifest=place.manifest())
    await place.session.start()
    await mount(place)


async def unmount(place: Place) -> None:
    await place.session.unmount("deep/shown")
    await place.session.unmount("memory")


async def look_at_mounts(place: Place) -> None:
    """What is said to be mounted is, and nothing else; what is there can be taken out.

    The empty directory of a mount point may stay, where it is its removal that failed.
    """
    told = [path.rpartition("/")[2] for path in place.session.mounts()]
    assert await seen(place, "deep/shown") == ("shown" in told)
    for path in place.session.mounts():
        await place.session.unmount(path)
    assert not await seen(place, "deep/shown")


# --- reaching in ----------------------------------------------------------------------------------


async def begin_listening(place: Place) -> None:
    """A session with a port, on which a server listens."""
    port = free_port()
    options = UnixLocalSandboxClientOptions((port,))
    place.made = await place.client.create(manifest=place.manifest(), options=options)
    await place.session.start()
    await place.session.start_process("python3", "-c", ECHO, str(port), shell=False)
    await place.session.wait_for_port(port)


async def wait_for_port(place: Place) -> None:
    (port,) = place.session.state.exposed_ports
    endpoint = await place.session.wait_for_port(port)
    assert endpoint == await place.session.resolve_exposed_port(port)


async def apply_manifest(place: Place) -> None:
    await place.session.rm("copied", recursive=True)
    assert (await place.session.apply_manifest()).files


async def review(place: Place) -> None:
    await place.session.write(".envrc", b"export A=1\n")
    told = await place.session.review()
    assert told.findings or told.notes


async def why(place: Place) -> None:
    assert str(await place.session.why("/etc/shadow"))


KEEPING: dict[str, Verb] = {
    "save": Verb(save, before=begin),
    "save_frozen": Verb(save_frozen, before=begin, leaves=True),
    "restore": Verb(restore, Ready.MADE, before=begin_saved, keeps=False),
    "fork": Verb(fork),
    "fork_layered": Verb(fork_layered, before=begin_layered),
    "wait_for_port": Verb(wait_for_port, before=begin_listening),
    "apply_manifest": Verb(apply_manifest),
    "review": Verb(review),
    "why": Verb(why),
    "mount": Verb(mount, after=look_at_mounts),
    "unmount": Verb(unmount, before=begin_mounted, after=look_at_mounts),
    "diff": Verb(diff, before=begin_trying),
    "apply": Verb(apply, before=begin_trying, after=look_at_base),
    "discard": Verb(discard, before=begin_trying, after=look_at_changes, keeps=False),
}
