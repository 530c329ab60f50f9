"""Manifests: the SDK's as ours, and what of them only the SDK can make."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, Literal, NoReturn

from agents.sandbox import Group, Manifest, Permissions, User, entries
from agents.sandbox import manifest as sdk_manifest
from agents.sandbox.errors import ConfigurationError, ErrorCode
from agents.sandbox.workspace_paths import coerce_posix_path
from pydantic import PrivateAttr

import sandyard as ours

__all__ = ["Translated", "as_ours", "refuse"]


@dataclass(slots=True)
class Translated:
    """A manifest of the SDK's, as ours.

    Attributes:
        manifest: ours.
        foreign: entries of a program's own classes, by their paths beneath the root: only they know
            how they are made.
    """

    manifest: ours.Manifest
    foreign: dict[str, entries.BaseEntry] = field(default_factory=dict)


def refuse(message: str) -> NoReturn:
    """Refuse what a caller asked for, in the SDK's words for that."""
    raise ConfigurationError(
        message=message, error_code=ErrorCode.SANDBOX_CONFIG_INVALID, op="start", context={}
    )


def as_ours(manifest: Manifest, providers: Collection[str] = ()) -> Translated:
    """Translate a manifest.

    Args:
        manifest: the SDK's.
        providers: types of mounts that the client can make.

    Raises:
        agents.sandbox.errors.ConfigurationError: an entry is a mount that nobody can make.
        sandyard.ManifestError: something in it is impossible.
    """
    foreign: dict[str, entries.BaseEntry] = {}
    tree = _Tree(frozenset(providers), foreign)
    translated = ours.Manifest(
        root=manifest.root,
        entries=tree.children("", manifest.entries),
        environment=ours.Environment(value=_environment(manifest.environment)),
        users=[_user(user) for user in manifest.users],
        groups=[_group(group) for group in manifest.groups],
        extra_path_grants=[
            ours.SandboxPathGrant(
                path=grant.path,
                read_only=grant.read_only,
                description=grant.description,
                host_path=grant.host_path,
            )
            for grant in manifest.extra_path_grants
        ],
    )
    return Translated(translated, foreign)


# --- variables ----------------------------------------------------------------------------------


class ForeignValue(ours.EnvValue):
    """A variable whose value a class of the program's works out."""

    only_base = True  # nothing that is saved names it
    type: Literal["openai_agents"] = "openai_agents"
    _value: sdk_manifest.EnvValue = PrivateAttr()

    @classmethod
    def of(cls, value: sdk_manifest.EnvValue) -> ForeignValue:
        """Wrap it."""
        made = cls()
        made._value = value
        return made

    def __deepcopy__(self, memo: object = None) -> ForeignValue:
        """The very same: what works it out may hold connections."""
        return self

    async def resolve(self) -> str:
        """Ask it, for every command."""
        return await self._value.resolve()


def _environment(
    environment: sdk_manifest.Environment,
) -> dict[str, str | ours.EnvValue | ours.EnvEntry]:
    translated: dict[str, str | ours.EnvValue | ours.EnvEntry] = {}
    for name, entry in environment.normalized().items():
        value: ours.EnvValue
        if type(entry.value) is sdk_manifest.StrEnvValue:
            value = ours.StrEnvValue(value=entry.value.value)
        else:
            value = ForeignValue.of(entry.value)
        translated[name] = ours.EnvEntry(
            value=value, description=entry.description, ephemeral=entry.ephemeral
        )
    return translated


# --- users --------------------------------------------------------------------------------------


def _user(user: User) -> ours.User:
    return ours.User(name=user.name)


def _group(group: Group) -> ours.Group:
    return ours.Group(name=group.name, users=[_user(user) for user in group.users])


def _permissions(permissions: Permissions) -> ours.Permissions:
    return ours.Permissions.from_mode(permissions.to_mode())


def _common(entry: entries.BaseEntry, *, source: bool = False) -> dict[str, object]:
    """The fields that all entries have; copies of the host's files keep their own permissions."""
    fields: dict[str, object] = {"description": entry.description, "ephemeral": entry.ephemeral}
    if entry.group is not None:
        is_group = isinstance(entry.group, Group)
        fields["group"] = _group(entry.group) if is_group else _user(entry.group)  # type: ignore[arg-type]
    if not source or "permissions" in entry.model_fields_set:
        fields["permissions"] = _permissions(entry.permissions)
    return fields


# --- entries ------------------------------------------------------------------------------------

_MOUNTS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "s3_mount": (("bucket", "prefix"), ("region", "endpoint_url", "s3_provider")),
    "gcs_mount": (("bucket", "prefix"), ("region", "endpoint_url")),
    "r2_mount": (("bucket",), ("account_id", "custom_domain")),
    "azure_blob_mount": (("account", "container"), ("endpoint",)),
    "box_mount": (("path",), ("box_sub_type",)),
    "s3_files_mount": (
        ("file_system_id", "subpath"),
        ("region", "access_point", "mount_target_ip"),
    ),
}
"""Of each remote mount: the fields that are its source, and those that are options. All others are
credentials, which a provider has of its own."""

_MOUNT_FIELDS: Final = frozenset(entries.Mount.model_fields)


@dataclass(slots=True)
class _Tree:
    """The entries of one manifest.

    Attributes:
        providers: types of mounts that somebody can make.
        foreign: takes what only the SDK can make.
    """

    providers: frozenset[str]
    foreign: dict[str, entries.BaseEntry]

    def children(
        self, above: str, given: Mapping[str | Path, entries.BaseEntry]
    ) -> dict[str, ours.BaseEntry]:
        """Translate what is in a directory."""
        translated: dict[str, ours.BaseEntry] = {}
        for key, entry in given.items():
            name = coerce_posix_path(key).as_posix()
            path = str(PurePosixPath(above, name))
            one = self.entry(path, entry)
            if one is None:
                self.foreign[path] = entry
            else:
                translated[name] = one
        return translated

    def entry(self, path: str, entry: entries.BaseEntry) -> ours.BaseEntry | None:
        """Translate one; None for one of a class that is not the SDK's own."""
        if isinstance(entry, entries.Mount):
            return self.mount(path, entry)
        if type(entry) is entries.Dir:
            children = self.children(path, entry.children)
            return ours.Dir.parse({"type": "dir", "children": children, **_common(entry)})
        make = _COPIES.get(type(entry))
        return None if make is None else ours.BaseEntry.parse(make(entry))

    def mount(self, path: str, entry: entries.Mount) -> ours.BaseEntry:
        """Translate a mount to one of a provider's, or refuse it."""
        known = _MOUNTS.get(entry.type)
        if known is None or entry.type not in self.providers:
            refuse(
                f"entry {path!r} is a mount of the type {entry.type!r}, which this sandbox does not "
                f"make by itself: give SandyardClient(mount_providers={{{entry.type!r}: provider}}), "
                "or copy what is needed into the workspace with LocalDir"
            )
        source, options = known
        secret = sorted(
            name
            for name in set(type(entry).model_fields) - _MOUNT_FIELDS - {*source, *options}
            if getattr(entry, name)
        )
        if secret:
            refuse(
                f"entry {path!r} gives {', '.join(secret)}: a mount's provider has its own "
                "credentials and settings; leave them out, and give them to the provider"
            )
        parts = [str(getattr(entry, name)) for name in source if getattr(entry, name)]
        given = {name: getattr(entry, name, None) for name in options}
        return ours.RemoteMount(
            provider=entry.type,
            source="/".join(part.strip("/") for part in parts),
            options={name: str(value) for name, value in given.items() if value},
            read_only=entry.read_only,
            mount_path=None if entry.mount_path is None else str(entry.mount_path),
            description=entry.description,
        )


def _file(entry: entries.BaseEntry) -> dict[str, object]:
    assert isinstance(entry, entries.File)  # noqa: S101  # the table says so
    return {"type": "file", "content": entry.content, **_common(entry)}


def _local_file(entry: entries.BaseEntry) -> dict[str, object]:
    assert isinstance(entry, entries.LocalFile)  # noqa: S101  # likewise
    return {"type": "local_file", "src": entry.src, **_common(entry, source=True)}


def _local_dir(entry: entries.BaseEntry) -> dict[str, object]:
    assert isinstance(entry, entries.LocalDir)  # noqa: S101  # likewise
    return {"type": "local_dir", "src": entry.src, **_common(entry, source=True)}


def _repository(entry: entries.BaseEntry) -> dict[str, object]:
    assert isinstance(entry, entries.GitRepo)  # noqa: S101  # likewise
    where = {"host": entry.host, "repo": entry.repo, "ref": entry.ref, "subpath": entry.subpath}
    return {"type": "git_repo", **where, **_common(entry)}


_Make = Callable[[entries.BaseEntry], dict[str, object]]

# By the very class: a subclass of a program's has an apply() of its own.
_COPIES: Final[Mapping[type[entries.BaseEntry], _Make]] = {
    entries.File: _file,
    entries.LocalFile: _local_file,
    entries.LocalDir: _local_dir,
    entries.GitRepo: _repository,
}
