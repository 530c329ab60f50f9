"""Sandyard: a place on this machine for an agent to work, with a wall that the kernel holds up.

A name is loaded when it is first asked for: a program pays for what it uses. ``__init__.pyi`` says the
same to type checkers.
"""

import importlib
from typing import Final

_HOMES: Final = {
    "sandyard.archive.bounds": ("SandboxArchiveLimits",),
    "sandyard.archive.report": ("ArchiveNote", "ArchiveReport"),
    "sandyard.changes": ("AppliedChanges", "Change", "Changes", "Layered", "Overlay"),
    "sandyard.checkup": ("doctor",),
    "sandyard.checkpoints": ("Checkpoint",),
    "sandyard.client": ("UnixLocalSandboxClient",),
    "sandyard.confinement.doctor_values": ("DoctorCanary", "DoctorReport", "DoctorRow"),
    "sandyard.confinement.explanation": ("Explanation",),
    "sandyard.confinement.footing": ("ConfinementReport", "Held"),
    "sandyard.contract": ("BaseSandboxSession", "SandboxSession"),
    "sandyard.contract.client": ("BaseSandboxClient", "ClientOptionsT"),
    "sandyard.contract.handles": ("RunningCommand", "RunningProcess", "RunningTerminal"),
    "sandyard.dependencies": ("Dependencies",),
    "sandyard.errors": (
        "ApplyPatchDecodeError",
        "ApplyPatchDiffError",
        "ApplyPatchError",
        "ApplyPatchFileNotFoundError",
        "ApplyPatchPathError",
        "ApplyRefusedError",
        "ArgumentError",
        "ArgumentTypeError",
        "ArtifactError",
        "ConfigurationError",
        "ConfinementUnavailableError",
        "DependenciesBindingError",
        "DependenciesError",
        "DependenciesMissingDependencyError",
        "ErrorCode",
        "EventSinkError",
        "ExecFailureError",
        "ExecNonZeroError",
        "ExecTimeoutError",
        "ExecTransportError",
        "ExposedPortTimeoutError",
        "ExposedPortUnavailableError",
        "GitArtifactError",
        "GitCloneError",
        "GitMissingInImageError",
        "GitSubpathError",
        "InvalidCompressionSchemeError",
        "InvalidManifestPathError",
        "LeaseHeldError",
        "LibraryLoadError",
        "LocalArtifactError",
        "LocalChecksumError",
        "LocalDirReadError",
        "LocalFileReadError",
        "ManifestError",
        "MountArtifactError",
        "MountConfigError",
        "MountFailedError",
        "PolicyDeniedError",
        "PolicyError",
        "PtySessionNotFoundError",
        "PtyStdinUnavailableError",
        "ResourceLimitError",
        "SandboxError",
        "SandboxRuntimeError",
        "ServerError",
        "SessionClosedError",
        "SessionNotFoundError",
        "SnapshotDamagedError",
        "SnapshotError",
        "SnapshotNotRestorableError",
        "SnapshotPersistError",
        "SnapshotRestoreError",
        "TerminalEndedError",
        "UnscriptedCommandError",
        "UnsupportedOperationError",
        "WorkspaceArchiveReadError",
        "WorkspaceArchiveWriteError",
        "WorkspaceIOError",
        "WorkspaceReadNotFoundError",
        "WorkspaceRootNotFoundError",
        "WorkspaceStartError",
        "WorkspaceStopError",
        "WorkspaceWriteTypeError",
    ),
    "sandyard.events.audit": ("AuditReport", "AuditSink", "verify_audit"),
    "sandyard.events.http": ("HttpProxySink",),
    "sandyard.events.instrumentation": ("Instrumentation",),
    "sandyard.events.model": (
        "EventPayloadPolicy",
        "SandboxSessionEvent",
        "SandboxSessionFinishEvent",
        "SandboxSessionStartEvent",
        "event_to_json_line",
        "validate_sandbox_session_event",
    ),
    "sandyard.events.otel": ("OpenTelemetrySink",),
    "sandyard.events.outbox": ("JsonlOutboxSink",),
    "sandyard.events.sinks": ("CallbackSink", "ChainedSink", "EventSink"),
    "sandyard.events.workspace_outbox": ("WorkspaceJsonlSink",),
    "sandyard.file_verbs.matches": ("GrepMatch", "GrepResult"),
    "sandyard.file_verbs.watching": ("FileWatch",),
    "sandyard.forking": ("Forked",),
    "sandyard.manifest": (
        "Archive",
        "BaseEntry",
        "Dir",
        "EnvEntry",
        "Environment",
        "EnvValue",
        "File",
        "GitRepo",
        "LocalDir",
        "LocalFile",
        "Manifest",
        "Mount",
        "SandboxPathGrant",
        "SecretValue",
        "StrEnvValue",
    ),
    "sandyard.manifest.mounts": (
        "BindMount",
        "MountProvider",
        "OverlayMount",
        "RemoteMount",
        "TmpfsMount",
    ),
    "sandyard.narrowing": ("Narrowing",),
    "sandyard.network.endpoint": ("ExposedPortEndpoint",),
    "sandyard.options": ("BaseSandboxClientOptions", "UnixLocalSandboxClientOptions"),
    "sandyard.policy": ("Policy",),
    "sandyard.process": (
        "CommandStream",
        "OutputChunk",
    ),
    "sandyard.process.background": ("BackgroundProcess", "LogStatus"),
    "sandyard.process.background_input": ("ProcessInput",),
    "sandyard.process.logs_reading": ("LogChunk", "LogReader"),
    "sandyard.process.attachment": ("Attachment",),
    "sandyard.process.capture": ("Captured",),
    "sandyard.process.terminal": ("Terminal",),
    "sandyard.process.updates": ("PtyExecUpdate",),
    "sandyard.resources": (
        "EnforcedLimit",
        "ResourceLimits",
    ),
    "sandyard.session": ("UnixLocalSandboxSession",),
    "sandyard.snapshot.comparing": ("SnapshotDiff",),
    "sandyard.snapshot.kinds": (
        "LocalSnapshot",
        "NoopSnapshot",
        "RemoteSnapshot",
        "SnapshotBase",
        "StoreSnapshot",
    ),
    "sandyard.snapshot.records": ("Snapshot",),
    "sandyard.snapshot.specs": (
        "LocalSnapshotSpec",
        "NoopSnapshotSpec",
        "RemoteSnapshotSpec",
        "StoreSnapshotSpec",
        "resolve_snapshot",
    ),
    "sandyard.snapshot.store": ("SnapshotStore",),
    "sandyard.snapshot.upkeep": ("Damage", "Reclaimed", "StoreHealth"),
    "sandyard.state": (
        "SandboxSessionState",
        "UnixLocalSandboxSessionState",
    ),
    "sandyard.truncation": (
        "TruncationPolicy",
        "formatted_truncate_text",
        "truncate_text",
    ),
    "sandyard.types": (
        "Denial",
        "EntryKind",
        "ExecResult",
        "FileEntry",
        "FileMode",
        "Group",
        "Leftover",
        "LimitHit",
        "Permissions",
        "RefusedCall",
        "ResourceUsage",
        "User",
    ),
    "sandyard.workspace.persist_stream": ("WorkspaceArchive",),
    "sandyard.workspace.review": ("Finding", "Review"),
    "sandyard.workspace.events": ("FileChange",),
    "sandyard.workspace.progress": ("Progress",),
    "sandyard.workspace.transfer": ("Transferred",),
    "sandyard.manifest.concurrency": ("SandboxConcurrencyLimits",),
    "sandyard.workspace.copying": (
        "MaterializationResult",
        "Materialized",
        "MaterializedFile",
        "Skipped",
    ),
}
"""Where each public name lives."""

_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605  # a list of strings, made of the table above


def __getattr__(name: str) -> object:
    """Load a public name (PEP 562)."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value: object = getattr(importlib.import_module(home), name)
    except (ImportError, AttributeError) as error:
        from sandyard.elsewhere import missing_part, stand_in  # noqa: PLC0415  # nearly never

        if not missing_part(error):
            raise
        value = stand_in(name, error)
    globals()[name] = value  # so that this is asked once
    return value


def __dir__() -> list[str]:
    """What can be asked for, loaded or not."""
    return sorted({*globals(), *__all__})
