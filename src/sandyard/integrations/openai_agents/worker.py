"""The worker: what the SDK asks of a session, done by a session of ours."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from agents.editor import ApplyPatchOperation
from agents.run_config import SandboxArchiveLimits
from agents.sandbox.apply_patch import PatchFormat
from agents.sandbox.entries import BaseEntry, Dir, Mount, resolve_workspace_path
from agents.sandbox.errors import ExecTimeoutError, ExposedPortUnavailableError
from agents.sandbox.files import EntryKind, FileEntry
from agents.sandbox.materialization import MaterializationResult
from agents.sandbox.session import BaseSandboxSession
from agents.sandbox.types import ExecResult, ExposedPortEndpoint, Permissions, User

import sandyard as ours
from sandyard.finishing import in_thread
from sandyard.integrations.openai_agents.commands import (
    CANT_RUN,
    as_result,
    as_update,
    named,
    refused,
    refused_update,
)
from sandyard.integrations.openai_agents.faults import Doing, sdk_error, told
from sandyard.integrations.openai_agents.manifests import as_ours, refuse
from sandyard.integrations.openai_agents.snapshots import spooled

if TYPE_CHECKING:
    from collections.abc import Collection

    from agents.sandbox.session.pty_types import PtyExecUpdate

    from sandyard.integrations.openai_agents.snapshots import Link
    from sandyard.integrations.openai_agents.state import SandyardSessionState

__all__ = ["Operations", "SandyardWorker"]

Operations = ApplyPatchOperation | dict[str, object] | list[ApplyPatchOperation | dict[str, object]]


class SandyardWorker(BaseSandboxSession):
    """Does what a ``SandyardSession`` asks for; ``SandyardClient`` makes both.

    Attributes:
        state: what resumes it.
        sandbox: our session, which can do more: background processes, ``why``, ``review``, limits.
    """

    state: SandyardSessionState

    def __init__(
        self,
        sandbox: ours.UnixLocalSandboxSession,
        state: SandyardSessionState,
        link: Link,
        providers: Collection[str],
        directory: str | None = None,
    ) -> None:
        # A plain attribute: what guards the credentials of mounts looks here, and hides every error
        # of a session where it can't.
        self.state = state
        self.sandbox = sandbox
        self._link = link
        self._providers = providers
        self._directory = None if directory is None else Path(directory)
        link.snapshot = state.snapshot

    # --- life -------------------------------------------------------------------------------------

    async def _start_workspace(self) -> None:
        """Make the workspace ready and start the sandbox: our session knows what of it is there."""
        self._link.dependencies = self.dependencies
        self._directory = self._directory or await in_thread(Path.cwd)
        translated = as_ours(self.state.manifest, self._providers)
        self._take_manifest(translated.manifest)
        self._pass_on_limits()
        resumed = self.sandbox.state.workspace_root_ready
        fresh = bool(translated.foreign) and not (
            resumed or await self.state.snapshot.restorable(dependencies=self.dependencies)
        )
        await self.sandbox.start()
        await self._apply_foreign(translated.foreign, fresh=fresh)
        self.state.workspace_root_ready = True
        self.state.confinement = self.sandbox.state.confinement

    def _pass_on_limits(self) -> None:
        """Let what a run says of concurrency hold for our session too; those of archives come by call."""
        self.sandbox.limit_concurrency(
            ours.SandboxConcurrencyLimits(
                manifest_entries=self._max_manifest_entry_concurrency,
                local_dir_files=self._max_local_dir_file_concurrency,
            )
        )

    def _take_manifest(self, manifest: ours.Manifest) -> None:
        """Let the SDK change, until the start, what capabilities of an agent add to a manifest."""
        present = self.sandbox.state.manifest
        for name in ("root", "users", "groups", "extra_path_grants"):
            if getattr(manifest, name) != getattr(present, name):
                refuse(
                    f"the manifest's {name} can't be changed any more: give it to create(); of a "
                    "session that is handed to a run, that includes the user of run_as"
                )
        present.entries, present.environment = manifest.entries, manifest.environment

    async def _apply_foreign(self, foreign: dict[str, BaseEntry], *, fresh: bool) -> None:
        """Have entries of the program's own classes make themselves."""
        root = Path(self.state.manifest.root)
        wanted = [
            (resolve_workspace_path(root, path), entry)
            for path, entry in foreign.items()
            if fresh or entry.ephemeral
        ]
        if wanted:
            await self._apply_entry_batch(wanted, base_dir=self._manifest_base_dir())

    def _wrap_start_error(self, error: Exception) -> Exception:
        return self._wrapped(error, "start")

    def _wrap_stop_error(self, error: Exception) -> Exception:
        return self._wrapped(error, "stop")

    def _wrapped(self, error: Exception, doing: Doing) -> Exception:
        if isinstance(error, ours.SandboxError):
            return sdk_error(error, doing, self.state.manifest.root)
        return error

    async def _persist_snapshot(self) -> None:
        """Have our session save itself: what changed, where the snapshot is a store."""
        self._skip_unsaved()
        await self.sandbox.stop()

    def _skip_unsaved(self) -> None:
        """Tell our session what the SDK wants to be left out."""
        for path in self._persist_workspace_skip_relpaths():
            if path.parts:
                with suppress(ours.MountConfigError):  # mounts are never saved
                    self.sandbox.register_persist_workspace_skip_path(path)

    async def _shutdown_backend(self) -> None:
        with told("shutdown", self.state.manifest.root):
            await self.sandbox.shutdown()

    async def _aclose_dependencies(self) -> None:
        """The last thing that is asked of a session, so it also lets go of the workspace."""
        try:
            await super()._aclose_dependencies()
        finally:
            with told("shutdown", self.state.manifest.root):
                await self.sandbox.aclose(save=False)  # a stop has saved it, if anybody wanted that

    async def running(self) -> bool:
        """Tell whether commands can run."""
        return await self.sandbox.running()

    # --- what should exist --------------------------------------------------------------------------

    async def _apply_manifest(
        self, *, only_ephemeral: bool = False, provision_accounts: bool = True
    ) -> MaterializationResult:
        """Apply the manifest again; mounts stand already, and users are there from the start."""
        root, manifest = Path(self.state.manifest.root), self.state.manifest
        if only_ephemeral:
            given = [(path, entry) for path, entry in manifest.iter_entries() if entry.ephemeral]
        else:
            given = [(Path(key), entry) for key, entry in manifest.validated_entries().items()]
        wanted = [
            (resolve_workspace_path(root, path), _without_mounts(entry))
            for path, entry in given
            if not isinstance(entry, Mount)
        ]
        files = await self._apply_entry_batch(wanted, base_dir=self._manifest_base_dir())
        return MaterializationResult(files=files)

    async def provision_manifest_accounts(self) -> None:
        """Nothing: users and groups are there from the start."""

    def _manifest_base_dir(self) -> Path:
        """Where relative sources begin: as for the entries of the start."""
        return self._directory or super()._manifest_base_dir()

    # --- commands -----------------------------------------------------------------------------------

    async def exec(
        self,
        *command: str | Path,
        timeout: float | None = None,
        shell: bool | list[str] = True,
        user: str | User | None = None,
    ) -> ExecResult:
        """Run a command and wait for its exit.

        Args:
            command: with a shell, one word is the shell's text and several are quoted and joined;
                without, they are the argv.
            timeout: seconds after which the command and all that it started are ended (default:
                none).
            shell: True (default) for ``sh -c``; a list such as ``["bash", "-c"]``; False for none.
            user: whom it is done as (default: ``agent``).

        Returns:
            Output and exit code: 127 where there is no such program, 126 where it can't be run.

        Raises:
            ExecTimeoutError: it took too long; its output so far is in the context.
            ExecTransportError: the sandbox is not running.
        """
        words = [str(word) for word in command]
        if timeout is not None and timeout <= 0:
            raise ExecTimeoutError(command=words, timeout_s=timeout)
        try:
            result = await self.sandbox.exec(
                *command, timeout=timeout, shell=shell, user=named(user)
            )
        except CANT_RUN as error:
            return refused(error)
        except ours.SandboxError as error:
            raise sdk_error(error, "exec", words) from error
        return as_result(result)

    async def _exec_internal(
        self, *command: str | Path, timeout: float | None = None
    ) -> ExecResult:
        return await self.exec(*command, timeout=timeout, shell=False)

    def supports_pty(self) -> bool:
        """There are long-running processes on every rung; a terminal is refused where there is none."""
        return True

    async def pty_exec_start(
        self,
        *command: str | Path,
        timeout: float | None = None,
        shell: bool | list[str] = True,
        user: str | User | None = None,
        tty: bool = False,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        """Start a command, and tell what it has written after a while; as our session does it."""
        try:
            update = await self.sandbox.pty_exec_start(
                *command,
                timeout=timeout,
                shell=shell,
                user=named(user),
                tty=tty,
                yield_time_s=yield_time_s,
                max_output_tokens=max_output_tokens,
            )
        except CANT_RUN as error:
            return refused_update(error)
        except ours.SandboxError as error:
            raise sdk_error(error, "exec", [str(word) for word in command]) from error
        return as_update(update)

    async def pty_write_stdin(
        self,
        *,
        session_id: int,
        chars: str,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        """Type something into a process, and tell what it has written after a while."""
        try:
            update = await self.sandbox.pty_write_stdin(
                session_id=session_id,
                chars=chars,
                yield_time_s=yield_time_s,
                max_output_tokens=max_output_tokens,
            )
        except CANT_RUN as error:
            return refused_update(error, process_id=session_id)
        except ours.SandboxError as error:
            raise sdk_error(error, "exec", [f"process {session_id}"]) from error
        return as_update(update)

    async def pty_terminate_all(self) -> None:
        """End all processes of ``pty_exec_start``, with all that they started."""
        with suppress(ours.SessionClosedError):  # then there are none
            await self.sandbox.pty_terminate_all()

    async def _resolve_exposed_port(self, port: int) -> ExposedPortEndpoint:
        """A number of this machine's loopback, which leads inside while the session runs."""
        try:
            found = await self.sandbox.resolve_exposed_port(port)
        except ours.SessionClosedError as error:
            raise ExposedPortUnavailableError(
                port=port,
                exposed_ports=self.state.exposed_ports,
                reason="backend_unavailable",
                context={"fix": "start the session first"},
                cause=error,
                retryable=True,
            ) from error
        return ExposedPortEndpoint(host=found.host, port=found.port)

    # --- files --------------------------------------------------------------------------------------

    async def read(self, path: Path | str, *, user: str | User | None = None) -> io.IOBase:
        """Open a file for reading; the caller closes it."""
        with told("read", path):
            return await self.sandbox.read(path, user=named(user))

    async def _read_bounded(self, path: Path, *, max_bytes: int) -> bytes:
        with told("read", path):
            return await self.sandbox.read_bounded(path, max_bytes=max_bytes)

    async def write(
        self, path: Path | str, data: io.IOBase, *, user: str | User | None = None
    ) -> None:
        """Write a file whole, or not at all; parents are made, and an existing file keeps its mode."""
        with told("write", path):
            await self.sandbox.write(path, data, user=named(user))

    async def _write_new_file(
        self, path: Path, data: io.IOBase, *, user: str | User | None = None
    ) -> None:
        """Write a file that must not exist; a symlink that leads nowhere counts as one that does."""
        name = named(user)
        with told("write", path):
            if await self.sandbox.exists(path, follow_symlinks=False, user=name):
                raise FileExistsError(f"{path} exists already")
            content = bytes(data.read()).decode()
            create = {"type": "create_file", "path": str(path), "diff": "+"}
            try:
                await self.sandbox.apply_patch(create, patch_format=_whole(content), user=name)
            except ours.ApplyPatchDiffError as error:  # somebody was faster
                raise FileExistsError(f"{path} exists already") from error

    async def ls(self, path: Path | str, *, user: str | User | None = None) -> list[FileEntry]:
        """List a directory, sorted by path."""
        with told("read", path):
            found = await self.sandbox.ls(path, user=named(user))
        return [
            FileEntry(
                path=entry.path,
                permissions=Permissions.from_mode(entry.permissions.to_mode()),
                owner=entry.owner,
                group=entry.group,
                size=entry.size,
                kind=EntryKind(entry.kind.value),
            )
            for entry in found
        ]

    async def mkdir(
        self, path: Path | str, *, parents: bool = False, user: str | User | None = None
    ) -> None:
        """Make a directory; one that exists is left as it is."""
        with told("write", path):
            await self.sandbox.mkdir(path, parents=parents, user=named(user))

    async def rm(
        self, path: Path | str, *, recursive: bool = False, user: str | User | None = None
    ) -> None:
        """Remove a file, a link (never its target), or with ``recursive`` a tree."""
        with told("write", path):
            await self.sandbox.rm(path, recursive=recursive, user=named(user))

    async def mv(
        self,
        source: Path | str,
        destination: Path | str,
        *,
        user: str | User | None = None,
    ) -> None:
        """Rename a file, symlink or directory; a file at the destination is replaced."""
        with told("write", source):
            await self.sandbox.mv(source, destination, user=named(user))

    async def same_file(
        self,
        left: Path | str,
        right: Path | str,
        *,
        follow_symlinks: bool = True,
        user: str | User | None = None,
    ) -> bool:
        """Tell whether two paths lead to one file."""
        with told("read", left):
            return await self.sandbox.same_file(
                left, right, follow_symlinks=follow_symlinks, user=named(user)
            )

    async def apply_patch(
        self, operations: Operations, *, patch_format: PatchFormat | Literal["v4a"] = "v4a"
    ) -> str:
        """Carry out a patch: all of it, or nothing."""
        given = operations if isinstance(operations, list) else [operations]
        with told("write", self.state.manifest.root):
            plain = [_plain(operation) for operation in given]
            return await self.sandbox.apply_patch(plain, patch_format=patch_format)

    async def extract(
        self,
        path: Path | str,
        data: io.IOBase,
        *,
        compression_scheme: Literal["tar", "zip"] | None = None,
        archive_limits: SandboxArchiveLimits | None = None,
    ) -> None:
        """Put an archive at a path, and unpack it beside: all of it, or nothing.

        Without limits of the call or of the run, ours hold: 1 GiB, 4 GiB unpacked, 100,000 members.
        """
        if archive_limits is not None:
            archive_limits.validate()
        asked = archive_limits if archive_limits is not None else self._archive_limits
        with told("write", path):
            limits = None if asked is None else _limits(asked)
            archive = await spooled(data)
            with archive:
                await self.sandbox.extract(
                    path, archive, compression_scheme=compression_scheme, archive_limits=limits
                )

    async def persist_workspace(self) -> io.IOBase:
        """Save the workspace as a tar archive, in a file without a name; the caller closes it."""
        with told("read", self.state.manifest.root):
            self._skip_unsaved()
            async with await self.sandbox.persist_workspace() as archive:
                spool = await spooled(archive)
        return spool

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        """Unpack a tar archive into the workspace: all of it, or nothing."""
        with told("write", self.state.manifest.root):
            await self.sandbox.hydrate_workspace(data)


def _whole(text: str) -> PatchFormat:
    """A patch format that knows the text already."""

    class Whole:
        @staticmethod
        def apply_diff(
            input: str,  # noqa: A002  # the name that such formats have
            diff: str,
            mode: Literal["default", "create"] = "default",
        ) -> str:
            return text

    return Whole()


def _plain(operation: ApplyPatchOperation | dict[str, object]) -> dict[str, object]:
    """An operation as our session takes it: without what a tool's call hung on it."""
    if isinstance(operation, dict):
        return {name: value for name, value in operation.items() if name != "ctx_wrapper"}
    return {name: getattr(operation, name, None) for name in ("type", "path", "diff", "move_to")}


def _without_mounts(entry: BaseEntry) -> BaseEntry:
    """An entry without the mounts beneath it."""
    if not isinstance(entry, Dir):
        return entry
    children = {
        key: _without_mounts(child)
        for key, child in entry.children.items()
        if not isinstance(child, Mount)
    }
    return entry.model_copy(update={"children": children})


def _limits(limits: SandboxArchiveLimits) -> ours.SandboxArchiveLimits:
    return ours.SandboxArchiveLimits(
        max_input_bytes=limits.max_input_bytes,
        max_extracted_bytes=limits.max_extracted_bytes,
        max_members=limits.max_members,
    )
