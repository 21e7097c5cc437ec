"""Manifests: what a data set or checkpoint is, where it comes from and how it is verified.

One YAML file a data set in `data_manifests/`. Reading one imports neither torch nor numpy: the
planner reads all of them. Two digests decide. The *archive* digest is checked before anything is
unpacked; the *content* digest (see `shared.data.verify.content_digest`) is checked after unpacking
and is the same wherever the archive came from.
"""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

import pydantic
from pydantic import Field, field_validator, model_validator

from shared.config import read_yaml
from shared.errors import ConfigError, nearest
from shared.files import digest
from shared.options import Count, Strict, explain
from shared.paths import ROOT

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Address = Annotated[str, Field(pattern=r"^https?://[^/\s]+/\S*$")]
Text = Annotated[str, Field(min_length=1)]

# Keys of `shared.data.builtin.BUILTINS`
Builtin = Literal[
    "digits",
    "tiny_authors",
    "thin_shapes",
    "single_shapes",
    "touching_nuclei",
    "shape_scenes",
    "shapes_styles",
    "grey_shapes",
    "hue_scenes",
    "hue_triples",
]

# How the files of a data set are read. The first group is what `shared.data.images.load_images`
# reads.
IMAGE_LOADERS = ("cifar_pickles", "svhn_mat", "tiny_imagenet", "image_folder", "digits")
LOADERS = (*IMAGE_LOADERS, "checkpoint", "json_lines", "text_lines", "files")


class Download(Strict):
    """One file to get: an archive, or a file that is data itself.

    name: file name under which it is looked for in DATA_MIRROR, as `<mirror>/<data set>/<name>` or
        `<mirror>/<name>`; `mirror` names another path inside the mirror.
    addresses: places that serve these bytes, tried in turn. torchvision: weights of that library, such as
        "ResNet18_Weights.IMAGENET1K_V1": it knows the address.
    size: bytes of the file, if published.
    sha256, md5: accepted digests of the file (md5 only where nothing better is published, and then
        used).
    unpack: "tar" (any compression), "zip", "xz" or "gz" (one compressed file), "none" (the file is
        data itself).
    strip: leading path components to drop from every member (a repository archive has one top
        folder).
    keep: shell patterns of the members to take, after `strip` ("*" also matches "/"); empty: all.
    members: text file beside the manifest, one folder or file a line: take only what lies below one
        of them.
    to: path of the resulting file inside the data folder (single files only; default: its own
        name).
    """

    name: Text
    addresses: list[Address] = []
    torchvision: Annotated[str, Field(pattern=r"^\w+\.\w+$")] | None = None
    size: Count | None = None
    sha256: list[Sha256] = []
    md5: list[Md5] = []
    unpack: Literal["none", "tar", "zip", "xz", "gz"] = "none"
    strip: Annotated[int, Field(ge=0)] = 0
    keep: list[Text] = []
    members: str | None = None
    to: str | None = None
    mirror: str | None = None

    @field_validator("name", "members")
    @classmethod
    def _plain_name(cls, value: str | None) -> str | None:
        if value is not None and (PurePosixPath(value).name != value or value in {".", ".."}):
            raise ValueError("must be a plain file name")
        return value

    @field_validator("to", "mirror")
    @classmethod
    def _relative(cls, value: str | None) -> str | None:
        if value is not None and (value.startswith("/") or ".." in PurePosixPath(value).parts):
            raise ValueError("must be a relative path without '..'")
        return value

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        archive = self.unpack in {"tar", "zip"}
        if archive and self.to is not None:
            raise ValueError(f"{self.name}: 'to' is for single files, not for a {self.unpack} archive")
        if not archive and (self.strip or self.keep or self.members):
            raise ValueError(f"{self.name}: 'strip', 'keep' and 'members' are for tar and zip archives")
        return self

    @property
    def target(self) -> str:
        """Path of the resulting single file inside the data folder."""
        suffix = {"xz": ".xz", "gz": ".gz"}.get(self.unpack, "")
        return self.to or self.name.removesuffix(suffix)

    @property
    def is_pinned(self) -> bool:
        """Whether the bytes of the file itself can be verified."""
        return bool(self.sha256 or self.md5)


class File(Download):
    """One part of a data set. alternatives: other archives that unpack to the same files (a
    repository's archive at a named commit has no stable digest); they need the manifest's content
    digest unless they carry their own.
    """

    alternatives: list[Download] = []

    @property
    def forms(self) -> list[Download]:
        """The file itself, then its alternatives, in the order in which they are tried."""
        return [self, *self.alternatives]


class Hub(Strict):
    """Files of a Hugging Face repository at a pinned commit. allow: shell patterns of the files to
    take.
    """

    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    repo_type: Literal["dataset", "model"]
    allow: Annotated[list[Text], Field(min_length=1)]


class Gate(Strict):
    """What a person must accept before the files may be fetched. token: environment variable that
    holds the token.
    """

    accept: Text
    url: Address
    token: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None


class Content(Strict):
    """The unpacked files. sha256: content digest; max_bytes: unpacking stops beyond this many bytes
    in all.
    """

    max_bytes: Count
    num_files: Count | None = None
    sha256: Sha256 | None = None


class Images(Strict):
    """shape: (height, width, channels) of every image; counts: those of the public data set."""

    shape: Annotated[list[Count], Field(min_length=3, max_length=3)]
    num_classes: Count
    num_train: Count
    num_test: Count


class Manifest(Strict):
    """A data set or checkpoint. layout: the unpacked files in words; loader: how they are read."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    title: Text
    licence: Text
    homepage: Address
    gate: Gate | None = None
    files: list[File] = []
    hub: Hub | None = None
    builtin: Builtin | None = None
    content: Content
    images: Images | None = None
    layout: Text
    loader: str

    @field_validator("loader")
    @classmethod
    def _known_loader(cls, value: str) -> str:
        if value not in LOADERS:
            raise ValueError(f"is not one of {', '.join(LOADERS)}{nearest(value, list(LOADERS))}")
        return value

    @model_validator(mode="after")
    def _verifiable(self) -> Self:
        if bool(self.builtin) == bool(self.files or self.hub):
            raise ValueError("needs either 'builtin', or 'files' and/or 'hub'")
        if self.loader in IMAGE_LOADERS and self.images is None:
            raise ValueError(f"loader '{self.loader}' needs 'images' (shape and counts)")
        if self.content.sha256 is None:
            for form in (form for file in self.files for form in file.forms):
                if not form.is_pinned and not self._by_hand(form):
                    raise ValueError(f"{form.name} has no digest, and there is no content.sha256 to verify it by")
        return self

    def _by_hand(self, form: Download) -> bool:
        """Whether a person must bring the file: nothing unpinned is ever downloaded, but what its user puts into
        DATA_MIRROR is taken as it is (and its content digest recorded)."""
        return self.gate is not None and not form.addresses and form.torchvision is None

    def identity(self) -> str:
        """Digest of what the data set *is*; addresses, mirrors and wording do not change it."""
        if self.content.sha256:
            return self.content.sha256
        files = sorted([file.target, *sorted(file.sha256 or file.md5)] for file in self.files)
        return digest({"files": files, "hub": self.hub.model_dump() if self.hub else None})


def manifest_folder() -> Path:
    """Folder of the manifests: REPLICATE_MANIFESTS if set (own data, miniatures in tests), else
    `data_manifests/`.
    """
    return Path(os.environ.get("REPLICATE_MANIFESTS") or ROOT / "data_manifests")


def manifest_names(folder: Path | None = None) -> list[str]:
    """Names of all manifests, sorted."""
    return sorted(path.stem for path in (folder or manifest_folder()).glob("*.yaml"))


def load_manifest(name: str, folder: Path | None = None) -> Manifest:
    """Read `<folder>/<name>.yaml`. Raises ConfigError: one line with the file, the key and the
    nearest known name.
    """
    folder = folder or manifest_folder()
    path = folder / f"{name}.yaml"
    if not re.fullmatch(r"[a-z0-9_]+", name) or not path.is_file():
        hint = nearest(name, manifest_names(folder))
        raise ConfigError(f"no data set '{name}' in {folder.name}/{hint}; 'python -m shared.data list' names all")
    where = f"{folder.name}/{path.name}"
    values = read_yaml(path)
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{where}: must be a mapping of keys to values")
    try:
        manifest = Manifest(**values)
    except pydantic.ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, Manifest)}") from None
    if manifest.name != name:
        raise ConfigError(f"{where}: name is '{manifest.name}', expected '{name}' as the file is called")
    return manifest
