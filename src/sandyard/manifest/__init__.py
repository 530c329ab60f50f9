"""What should exist before work starts: the manifest, its entries and its environment."""

from sandyard.manifest.base import SAVED
from sandyard.manifest.entries import BaseEntry, Dir, File, LocalDir, LocalFile, Mount
from sandyard.manifest.environment import (
    EnvEntry,
    Environment,
    EnvValue,
    SecretValue,
    StrEnvValue,
)
from sandyard.manifest.fetched import Archive, GitRepo
from sandyard.manifest.grants import SandboxPathGrant
from sandyard.manifest.model import DEFAULT_ROOT, Manifest

__all__ = [
    "DEFAULT_ROOT",
    "SAVED",
    "Archive",
    "BaseEntry",
    "Dir",
    "EnvEntry",
    "EnvValue",
    "Environment",
    "File",
    "GitRepo",
    "LocalDir",
    "LocalFile",
    "Manifest",
    "Mount",
    "SandboxPathGrant",
    "SecretValue",
    "StrEnvValue",
]
