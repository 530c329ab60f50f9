from sandyard.archive.bounds import SandboxArchiveLimits as SandboxArchiveLimits
from sandyard.archive.report import (
    ArchiveNote as ArchiveNote,
    ArchiveReport as ArchiveReport,
)
from sandyard.checkpoints import (
    Checkpoint as Checkpoint,
)
from sandyard.changes import (
    AppliedChanges as AppliedChanges,
    Change as Change,
    Changes as Changes,
    Layered as Layered,
    Overlay as Overlay,
)
from sandyard.checkup import doctor as doctor
from sandyard.confinement.doctor_values import (
    DoctorCanary as DoctorCanary,
    DoctorReport as DoctorReport,
    DoctorRow as DoctorRow,
)
from sandyard.confinement.explanation import Explanation as Explanation
from sandyard.confinement.footing import (
    ConfinementReport as ConfinementReport,
    Held as Held,
)
from sandyard.client import (
    UnixLocalSandboxClient as UnixLocalSandboxClient,
)
from sandyard.contract import (
    BaseSandboxSession as BaseSandboxSession,
    SandboxSession as SandboxSession,
)
from sandyard.contract.client import (
    BaseSandboxClient as BaseSandboxClient,
    ClientOptionsT as ClientOptionsT,
)
from sandyard.contract.handles import (
    RunningCommand as RunningCommand,
    RunningProcess as RunningProcess,
    RunningTerminal as RunningTerminal,
)
from sandyard.dependencies import (
    Dependencies as Dependencies,
    DependencyKey as DependencyKey,
)
from sandyard.errors import (
    ApplyPatchDecodeError as ApplyPatchDecodeError,
    ApplyPatchDiffError as ApplyPatchDiffError,
    ApplyPatchError as ApplyPatchError,
    ApplyPatchFileNotFoundError as ApplyPatchFileNotFoundError,
    ApplyPatchPathError as ApplyPatchPathError,
    ApplyRefusedError as ApplyRefusedError,
    ArgumentError as ArgumentError,
    ArgumentTypeError as ArgumentTypeError,
    ArtifactError as ArtifactError,
    ConfigurationError as ConfigurationError,
    ConfinementUnavailableError as ConfinementUnavailableError,
    DependenciesBindingError as DependenciesBindingError,
    DependenciesError as DependenciesError,
    DependenciesMissingDependencyError as DependenciesMissingDependencyError,
    ErrorCode as ErrorCode,
    EventSinkError as EventSinkError,
    ExecFailureError as ExecFailureError,
    ExecNonZeroError as ExecNonZeroError,
    ExecTimeoutError as ExecTimeoutError,
    ExecTransportError as ExecTransportError,
    ExposedPortTimeoutError as ExposedPortTimeoutError,
    ExposedPortUnavailableError as ExposedPortUnavailableError,
    GitArtifactError as GitArtifactError,
    GitCloneError as GitCloneError,
    GitMissingInImageError as GitMissingInImageError,
    GitSubpathError as GitSubpathError,
    InvalidCompressionSchemeError as InvalidCompressionSchemeError,
    InvalidManifestPathError as InvalidManifestPathError,
    LeaseHeldError as LeaseHeldError,
    LibraryLoadError as LibraryLoadError,
    LocalArtifactError as LocalArtifactError,
    LocalChecksumError as LocalChecksumError,
    LocalDirReadError as LocalDirReadError,
    LocalFileReadError as LocalFileReadError,
    ManifestError as ManifestError,
    MountArtifactError as MountArtifactError,
    MountConfigError as MountConfigError,
    MountFailedError as MountFailedError,
    OpName as OpName,
    OutputLimitError as OutputLimitError,
    PolicyDeniedError as PolicyDeniedError,
    PolicyError as PolicyError,
    PtySessionNotFoundError as PtySessionNotFoundError,
    PtyStdinUnavailableError as PtyStdinUnavailableError,
    ResourceLimitError as ResourceLimitError,
    SandboxError as SandboxError,
    SandboxRuntimeError as SandboxRuntimeError,
    ServerError as ServerError,
    SessionClosedError as SessionClosedError,
    SessionNotFoundError as SessionNotFoundError,
    SnapshotDamagedError as SnapshotDamagedError,
    SnapshotError as SnapshotError,
    SnapshotNotRestorableError as SnapshotNotRestorableError,
    SnapshotPersistError as SnapshotPersistError,
    SnapshotRestoreError as SnapshotRestoreError,
    TerminalEndedError as TerminalEndedError,
    UnsafeTarMemberError as UnsafeTarMemberError,
    UnscriptedCommandError as UnscriptedCommandError,
    UnsupportedOperationError as UnsupportedOperationError,
    WorkspaceArchiveReadError as WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError as WorkspaceArchiveWriteError,
    WorkspaceIOError as WorkspaceIOError,
    WorkspaceReadNotFoundError as WorkspaceReadNotFoundError,
    WorkspaceRootNotFoundError as WorkspaceRootNotFoundError,
    WorkspaceStartError as WorkspaceStartError,
    WorkspaceStopError as WorkspaceStopError,
    WorkspaceWriteTypeError as WorkspaceWriteTypeError,
)
from sandyard.events.audit import (
    AuditReport as AuditReport,
    AuditSink as AuditSink,
    verify_audit as verify_audit,
)
from sandyard.events.http import (
    HttpProxySink as HttpProxySink,
)
from sandyard.events.instrumentation import (
    Instrumentation as Instrumentation,
)
from sandyard.events.model import (
    EventPayloadPolicy as EventPayloadPolicy,
    SandboxSessionEvent as SandboxSessionEvent,
    SandboxSessionFinishEvent as SandboxSessionFinishEvent,
    SandboxSessionStartEvent as SandboxSessionStartEvent,
    event_to_json_line as event_to_json_line,
    validate_sandbox_session_event as validate_sandbox_session_event,
)
from sandyard.events.otel import (
    OpenTelemetrySink as OpenTelemetrySink,
)
from sandyard.events.outbox import (
    JsonlOutboxSink as JsonlOutboxSink,
)
from sandyard.events.sinks import (
    CallbackSink as CallbackSink,
    ChainedSink as ChainedSink,
    EventSink as EventSink,
)
from sandyard.events.workspace_outbox import (
    WorkspaceJsonlSink as WorkspaceJsonlSink,
)
from sandyard.file_verbs.matches import GrepMatch as GrepMatch, GrepResult as GrepResult
from sandyard.file_verbs.watching import FileWatch as FileWatch
from sandyard.forking import Forked as Forked
from sandyard.manifest import (
    Archive as Archive,
    BaseEntry as BaseEntry,
    Dir as Dir,
    EnvEntry as EnvEntry,
    Environment as Environment,
    EnvValue as EnvValue,
    File as File,
    GitRepo as GitRepo,
    LocalDir as LocalDir,
    LocalFile as LocalFile,
    Manifest as Manifest,
    Mount as Mount,
    SandboxPathGrant as SandboxPathGrant,
    SecretValue as SecretValue,
    StrEnvValue as StrEnvValue,
)
from sandyard.manifest.concurrency import SandboxConcurrencyLimits as SandboxConcurrencyLimits
from sandyard.manifest.mounts import (
    BindMount as BindMount,
    MountProvider as MountProvider,
    OverlayMount as OverlayMount,
    RemoteMount as RemoteMount,
    TmpfsMount as TmpfsMount,
)
from sandyard.manifest.paths import (
    resolve_workspace_path as resolve_workspace_path,
)
from sandyard.narrowing import (
    Narrowing as Narrowing,
)
from sandyard.endpoint import ExposedPortEndpoint as ExposedPortEndpoint
from sandyard.options import (
    BaseSandboxClientOptions as BaseSandboxClientOptions,
    UnixLocalSandboxClientOptions as UnixLocalSandboxClientOptions,
)
from sandyard.policy import (
    Policy as Policy,
)
from sandyard.process import (
    CommandStream as CommandStream,
    OutputChunk as OutputChunk,
)
from sandyard.process.background import (
    BackgroundProcess as BackgroundProcess,
    LogStatus as LogStatus,
)
from sandyard.process.background_input import ProcessInput as ProcessInput
from sandyard.process.logs_reading import LogChunk as LogChunk, LogReader as LogReader
from sandyard.process.attachment import Attachment as Attachment
from sandyard.process.capture import Captured as Captured
from sandyard.process.terminal import Terminal as Terminal
from sandyard.process.updates import PtyExecUpdate as PtyExecUpdate
from sandyard.resources import (
    EnforcedLimit as EnforcedLimit,
    ResourceLimits as ResourceLimits,
)
from sandyard.session import (
    UnixLocalSandboxSession as UnixLocalSandboxSession,
)
from sandyard.snapshot.comparing import (
    SnapshotDiff as SnapshotDiff,
)
from sandyard.snapshot.kinds import (
    LocalSnapshot as LocalSnapshot,
    NoopSnapshot as NoopSnapshot,
    RemoteSnapshot as RemoteSnapshot,
    SnapshotBase as SnapshotBase,
    StoreSnapshot as StoreSnapshot,
)
from sandyard.snapshot.records import (
    Snapshot as Snapshot,
)
from sandyard.snapshot.specs import (
    LocalSnapshotSpec as LocalSnapshotSpec,
    NoopSnapshotSpec as NoopSnapshotSpec,
    RemoteSnapshotSpec as RemoteSnapshotSpec,
    SnapshotSpec as SnapshotSpec,
    StoreSnapshotSpec as StoreSnapshotSpec,
    resolve_snapshot as resolve_snapshot,
)
from sandyard.snapshot.store import (
    SnapshotStore as SnapshotStore,
)
from sandyard.snapshot.upkeep import (
    Damage as Damage,
    Reclaimed as Reclaimed,
    StoreHealth as StoreHealth,
)
from sandyard.state import (
    SandboxSessionState as SandboxSessionState,
    UnixLocalSandboxSessionState as UnixLocalSandboxSessionState,
)
from sandyard.truncation import (
    APPROX_BYTES_PER_TOKEN as APPROX_BYTES_PER_TOKEN,
    TruncationPolicy as TruncationPolicy,
    approx_bytes_for_tokens as approx_bytes_for_tokens,
    approx_token_count as approx_token_count,
    approx_tokens_from_byte_count as approx_tokens_from_byte_count,
    assemble_truncated_output as assemble_truncated_output,
    format_truncation_marker as format_truncation_marker,
    formatted_truncate_text as formatted_truncate_text,
    formatted_truncate_text_with_token_count as formatted_truncate_text_with_token_count,
    removed_units_for_source as removed_units_for_source,
    split_budget as split_budget,
    split_string as split_string,
    truncate_text as truncate_text,
    truncate_with_byte_estimate as truncate_with_byte_estimate,
    truncate_with_token_budget as truncate_with_token_budget,
)
from sandyard.types import (
    Denial as Denial,
    EntryKind as EntryKind,
    ExecResult as ExecResult,
    FileEntry as FileEntry,
    FileMode as FileMode,
    Group as Group,
    Leftover as Leftover,
    LimitHit as LimitHit,
    Permissions as Permissions,
    RefusedCall as RefusedCall,
    ResourceUsage as ResourceUsage,
    User as User,
)
from sandyard.util.listing import (
    parse_ls_la as parse_ls_la,
)
from sandyard.util.merging import (
    deep_merge as deep_merge,
)
from sandyard.util.retrying import (
    DEFAULT_TRANSIENT_RETRY_BACKOFF as DEFAULT_TRANSIENT_RETRY_BACKOFF,
    DEFAULT_TRANSIENT_RETRY_INTERVAL_S as DEFAULT_TRANSIENT_RETRY_INTERVAL_S,
    DEFAULT_TRANSIENT_RETRY_MAX_ATTEMPT as DEFAULT_TRANSIENT_RETRY_MAX_ATTEMPT,
    TRANSIENT_HTTP_STATUS_CODES as TRANSIENT_HTTP_STATUS_CODES,
    BackoffStrategy as BackoffStrategy,
    exception_chain_contains_type as exception_chain_contains_type,
    exception_chain_has_status_code as exception_chain_has_status_code,
    iter_exception_chain as iter_exception_chain,
    retry_async as retry_async,
)
from sandyard.util.streams import (
    IteratorIO as IteratorIO,
    sha256_file as sha256_file,
    sha256_io as sha256_io,
)
from sandyard.util.tar_extraction import (
    safe_extract_tarfile as safe_extract_tarfile,
)
from sandyard.util.tar_rules import (
    safe_tar_member_rel_path as safe_tar_member_rel_path,
    should_skip_tar_member as should_skip_tar_member,
    validate_tar_bytes as validate_tar_bytes,
    validate_tarfile as validate_tarfile,
)
from sandyard.util.tasks import (
    gather_in_order as gather_in_order,
)
from sandyard.workspace.copying import (
    MaterializationResult as MaterializationResult,
    Materialized as Materialized,
    MaterializedFile as MaterializedFile,
    Skipped as Skipped,
)
from sandyard.workspace.events import FileChange as FileChange
from sandyard.workspace.persist_stream import WorkspaceArchive as WorkspaceArchive
from sandyard.workspace.progress import Progress as Progress
from sandyard.workspace.transfer import Transferred as Transferred
from sandyard.workspace.review import Finding as Finding, Review as Review

__all__: list[str]
