"""Entries: what a manifest puts into a workspace before work starts."""

from __future__ import annotations

import base64
import binascii
import builtins
import importlib
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Annotated, Final, Literal, Self, TypedDict, Unpack

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from sandyard.errors import ManifestError, shown
from sandyard.manifest.base import Tagged, plain_text
from sandyard.manifest.paths import absolute_path, entry_key
from sandyard.manifest.selecting import Patterns
from sandyard.types import Group, Permissions, User

__all__ = [
    "BaseEntry",
    "Copied",
    "Dir",
    "Entries",
    "EntryFields",
    "File",
    "GivenEntries",
    "LocalDir",
    "LocalFile",
    "Mount",
    "source_path",
]


def _default_permissions() -> Permissions:
    return Permissions(owner=7, group=5, other=5)


def _chosen(permissions: Permissions) -> bool:
    """Whether somebody chose them, as far as they themselves can tell."""
    bits = stat.S_IMODE(permissions.to_mode())
    return bits != stat.S_IMODE(_default_permissions().to_mode())


_REMOTE_TYPES: Final = frozenset({
    "s3_mount", "gcs_mount", "r2_mount", "azure_blob_mount", "box_mount", "s3_files_mount",
})  # fmt: skip
"""Types of other sandboxes' remote mounts."""


class EntryFields(TypedDict, total=False):
    """The fields that every entry has, as keyword arguments."""

    description: str | None
    ephemeral: bool
    group: Group | User | None
    owner: User | None
    permissions: Permissions


class BaseEntry(Tagged):
    """What all entries share.

    Attributes:
        type: tag of the kind of entry.
        description: what it is, for the model (default: nothing).
        ephemeral: True leaves it out of snapshots; it is made again on every start.
        group: group or user to whose group it belongs (default: the sandbox's own).
        owner: user whom it belongs to (default: the sandbox's own).
        is_dir: True for kinds that are directories.
        permissions: who may do what (default: ``rwxr-xr-x``).
    """

    description: str | None = None
    ephemeral: bool = False
    group: Group | User | None = None
    owner: User | None = None
    is_dir: bool = False
    permissions: Permissions = Field(default_factory=_default_permissions)

    def __init__(self, **fields: object) -> None:
        super().__init__(**fields)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="after")
    def _mark_directory(self) -> Self:
        """Let the permissions of a directory say that they are one's."""
        if self.is_dir and not self.permissions.directory:
            # Of its own, as the caller's may be a file's too; and not as a field that was chosen.
            marked = self.permissions.model_copy(update={"directory": True})
            self.__dict__["permissions"] = marked
        return self

    @classmethod
    def registered_types(cls) -> dict[str, builtins.type[Tagged]]:
        """Return the family's types by their tags."""
        importlib.import_module("sandyard.manifest.mounts")  # which registers its own
        return super().registered_types()

    @classmethod
    def find_type(cls, tag: str) -> builtins.type[Tagged] | None:
        """Return the type of a tag; those of mounts are loaded when one is looked for."""
        found = super().find_type(tag)
        return found or cls.registered_types().get(tag)

    @classmethod
    def unknown_type(cls, tag: object) -> ManifestError:
        """Give the error for a type that is not known, or known elsewhere."""
        if tag not in _REMOTE_TYPES:
            return super().unknown_type(tag)
        return ManifestError(
            f"type {shown(tag)} is a remote mount, which this sandbox does not make by itself; give "
            "RemoteMount(provider=…, source=…), and the provider to "
            "UnixLocalSandboxClient(mount_providers=…)",
            field="type",
        )


# --- files with their content in the manifest -------------------------------------------------


def _content(value: object) -> bytes:
    """Take bytes, text, or the JSON form of either."""
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise ManifestError(
                "content has a lone surrogate, which UTF-8 can't carry; give bytes instead"
            ) from None
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Mapping) and set(value) == {"base64"}:
        try:
            return base64.b64decode(value["base64"], validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise ManifestError(f"content has invalid base64: {error}") from None
    raise ManifestError(
        f'content must be bytes, text or {{"base64": "…"}}, not {shown(value)}', field="content"
    )


def _content_to_json(content: bytes) -> str | dict[str, str]:
    """Keep text readable; what is not UTF-8 becomes base64."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode("ascii")}


Content = Annotated[
    bytes,
    BeforeValidator(_content),
    PlainSerializer(_content_to_json, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"base64": {"type": "string", "contentEncoding": "base64"}},
                    "required": ["base64"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


class File(BaseEntry):
    """A file, with its content given here.

    In JSON the content is text where it is UTF-8, else ``{"base64": "…"}``; both are read back to
    the same bytes.

    Attributes:
        content: its bytes; text is encoded as UTF-8.
    """

    type: Literal["file"] = "file"
    content: Content

    def __init__(self, *, content: bytes | str, **common: Unpack[EntryFields]) -> None:
        super().__init__(content=content, **common)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


# --- directories ------------------------------------------------------------------------------


def _keys(value: object) -> dict[str, object]:
    """Bring keys into normal form; keys that mean the same path are an error."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ManifestError(f"entries must be a mapping of paths to entries, not {shown(value)}")
    normal: dict[str, object] = {}
    spelled: dict[str, object] = {}
    for key, payload in value.items():
        path = entry_key(key)
        if path in normal:
            raise ManifestError(
                f"keys {shown(spelled[path])} and {shown(key)} are the same path; keep one",
                entry=path,
            )
        spelled[path] = key
        normal[path] = payload
    return normal


def _entry(value: object, info: ValidationInfo) -> BaseEntry:
    return BaseEntry.parse_within(value, info.context)


Entries = Annotated[
    dict[str, Annotated[SerializeAsAny[BaseEntry], BeforeValidator(_entry)]],
    BeforeValidator(_keys),
]


_Given = BaseEntry | Mapping[str, object]
GivenEntries = (
    Mapping[str, _Given]
    | Mapping[Path, _Given]
    | Mapping[PurePath, _Given]
    | Mapping[str | Path, _Given]
)
"""What a caller may write as entries; each key type apart, since mappings are invariant in it."""


class Dir(BaseEntry):
    """A directory.

    Attributes:
        children: what is in it, by path beneath it.
    """

    type: Literal["dir"] = "dir"
    is_dir: bool = True
    children: Entries = Field(default_factory=dict)

    def __init__(
        self,
        *,
        children: GivenEntries | None = None,
        **common: Unpack[EntryFields],
    ) -> None:
        super().__init__(children=children, **common)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


# --- copies of the host's files ---------------------------------------------------------------


def source_path(value: object) -> Path | None:
    """Take a path of the host, as a str or a path.

    Raises:
        ManifestError: it is neither, empty, or no system call could carry it.
    """
    if value is None:
        return None
    if isinstance(value, PurePath):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise ManifestError(f"src must be a path, not {shown(value)}", field="src")
    return Path(plain_text(value, f"src {shown(value)}"))


class Copied(BaseEntry):
    """What copies of the host's files share: their permissions are the source's unless given."""

    only_base = True

    def __init__(self, **fields: object) -> None:
        super().__init__(**fields)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def given_permissions(self) -> Permissions | None:
        """Return the permissions that somebody chose, or None to keep those of the source."""
        chosen = "permissions" in self.model_fields_set or _chosen(self.permissions)
        return self.permissions if chosen else None

    @model_serializer(mode="wrap")
    def _keep_choice(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out permissions that nobody chose: read back, they would look chosen."""
        fields: dict[str, object] = handler(self)
        if self.given_permissions() is None:
            fields.pop("permissions", None)
        return {"type": self.type, **fields}


class LocalFile(Copied):
    """An exact copy of a file of the host: content, permissions, modification time.

    Attributes:
        src: the file; a relative path starts at the caller's working directory. It must be beneath
            that directory or beneath a path grant, and no part of its path may be a symlink.
        permissions: who may do what (default: as the source).
    """

    type: Literal["local_file"] = "local_file"
    src: Annotated[Path, BeforeValidator(source_path)]

    def __init__(self, *, src: str | PurePath, **common: Unpack[EntryFields]) -> None:
        super().__init__(src=src, **common)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


class LocalDir(Copied):
    """An exact copy of a directory of the host and all that is in it.

    Permissions, modification times, empty directories, hard links and symlinks are kept; FIFOs,
    sockets and devices are left out and reported, and so is what the patterns leave out. Patterns
    are those of .gitignore: ``*.log`` anywhere, ``/build/`` the directory at the top, ``!keep.log``
    takes back what an earlier one said.

    Attributes:
        src: the directory, under the rules of ``LocalFile.src``; None makes an empty directory.
        include: copies only what matches one of these, or lies beneath it (default: everything).
        exclude: leaves out what matches, with all beneath it (default: nothing). It wins.
        gitignore: True leaves out what the .gitignore files in the tree say (default: False).
        permissions: who may do what with the directory itself (default: as the source).
    """

    type: Literal["local_dir"] = "local_dir"
    is_dir: bool = True
    src: Annotated[Path | None, BeforeValidator(source_path)] = None
    include: Patterns = ()
    exclude: Patterns = ()
    gitignore: bool = False

    def __init__(
        self,
        *,
        src: str | PurePath | None = None,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        gitignore: bool = False,
        **common: Unpack[EntryFields],
    ) -> None:
        super().__init__(
            src=src,
            include=include,
            exclude=exclude,
            gitignore=gitignore,
            **common,
        )

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


# --- mounts: their kinds are in mounts.py, which is loaded when one is used ---------------------


def _mount_path(value: object) -> str | None:
    if value is None:
        return None
    text = value.as_posix() if isinstance(value, PurePath) else value
    if isinstance(text, str) and text.startswith("/"):
        if ".." in text.split("/"):
            raise ManifestError(f"mount_path {shown(text)} has a '..'; give the plain path")
        return absolute_path(text, "mount_path")
    return entry_key(text)


class Mount(BaseEntry):
    """What all mounts share.

    A mount stands in the sandbox alone: commands see it, the host does not, and it ends with the
    sandbox. It is never saved in a snapshot.

    Attributes:
        mount_path: where it stands, relative to the workspace or absolute within it (default: the
            entry's key).
        read_only: True lets commands read it only.
        ephemeral: always True.
    """

    only_base = True

    is_dir: bool = True
    ephemeral: bool = True
    mount_path: Annotated[str | None, BeforeValidator(_mount_path)] = None
    read_only: bool = True

    def __init__(self, **fields: object) -> None:
        super().__init__(**fields)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def host_directory(self) -> tuple[str, bool] | None:
        """Return the directory of the host that commands get to see, and whether they may change it.

        None where there is none, or a provider of the caller's chooses it.
        """
        return None

    @field_validator("ephemeral")
    @classmethod
    def _stay_ephemeral(cls, value: bool) -> bool:  # as pydantic calls it
        if not value:
            raise ManifestError("a mount is never saved: leave ephemeral out", field="ephemeral")
        return value

    @field_validator("permissions", "owner", "group")
    @classmethod
    def _keep_own(
        cls, value: Permissions | Group | User | None, info: ValidationInfo
    ) -> Permissions | Group | User | None:
        chosen = _chosen(value) if isinstance(value, Permissions) else value is not None
        if chosen:
            raise ManifestError(
                f"a mount's {info.field_name} is that of what is mounted: leave it out",
                field=info.field_name,
            )
        return value
