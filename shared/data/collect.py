"""Where the files of a data set come from: built in, DATA_MIRROR, addresses, or the hub."""

import logging
import os
from pathlib import Path

from shared.data.disk import require_space
from shared.data.fetch import Patience, Unavailable, fetch
from shared.data.manifest import Download, File, Manifest, manifest_folder
from shared.data.mirror import VARIABLE, copy_tree, find_file, mirror_folder
from shared.data.unpack import Budget, unpack
from shared.data.verify import tree_entries
from shared.errors import DataError

log = logging.getLogger(__name__)
PATIENCE = Patience()
Collected = tuple[dict[str, str], list[dict[str, str]]]


def collect(manifest: Manifest, tree: Path, downloads: Path) -> Collected:
    """Write the files of a data set into the empty folder `tree`, from the mirror or the network.

    downloads: folder for (partial) downloads, kept by the caller between attempts. Returns path ->
    sha256 of the files, and for each download where it came from. Raises DataError, in one line
    with every address tried and its reason, if the data set is not available.
    """
    if manifest.builtin:
        from shared.data.builtin import ORIGINS, build

        return build(manifest.builtin, tree), [{"file": manifest.builtin, "from": ORIGINS[manifest.builtin]}]
    mirror = mirror_folder()
    reasons: list[str] = []
    if manifest.files:
        try:
            return _collect_files(manifest, tree, downloads, mirror)
        except Unavailable as problem:
            reasons.append(str(problem))
    if mirror and (entries := copy_tree(mirror, manifest, tree)):
        return entries, [{"file": manifest.name, "from": VARIABLE}]
    if manifest.hub:
        try:
            return _collect_hub(manifest, tree, downloads)
        except Unavailable as problem:
            reasons.append(f"hub {manifest.hub.repo}@{manifest.hub.revision[:8]}: {problem}")
    raise DataError(_not_available(manifest, mirror, reasons))


def _collect_files(manifest: Manifest, tree: Path, downloads: Path, mirror: Path | None) -> Collected:
    found = [_in_mirror(mirror, manifest.name, file) for file in manifest.files]
    missing = sum(file.size or 0 for file, here in zip(manifest.files, found, strict=True) if here is None)
    require_space(tree, missing + manifest.content.max_bytes, f"{manifest.name}: unpacking")
    budget = Budget(manifest.content.max_bytes, manifest.content.num_files)
    entries: dict[str, str] = {}
    sources = []
    for number, (file, here) in enumerate(zip(manifest.files, found, strict=True)):
        path, form, origin = here or _from_network(manifest, file, downloads / str(number))
        entries |= unpack(path, form, tree, budget, _members(form))
        sources.append({"file": form.name, "from": origin})
    return entries, sources


def _in_mirror(mirror: Path | None, name: str, file: File) -> tuple[Path, Download, str] | None:
    for form in file.forms if mirror else []:
        if mirror and (path := find_file(mirror, name, form)):
            return path, form, VARIABLE
    return None


def _from_network(manifest: Manifest, file: File, folder: Path) -> tuple[Path, Download, str]:
    """Try every address of every form of the file. Raises Unavailable with all reasons."""
    token = _token(manifest)
    reasons = []
    for number, form in enumerate(file.forms):
        # A folder a form: alternatives may share a file name, and a partial file belongs to one
        # form.
        place = folder / str(number)
        place.mkdir(parents=True, exist_ok=True)
        for address in [*form.addresses, *library_addresses(form)]:
            log.info("%s: fetching %s", manifest.name, address)
            try:
                return fetch(address, form, place, PATIENCE, token), form, address
            except Unavailable as problem:
                reasons.append(f"{address}: {problem}")
    raise Unavailable("; ".join(reasons) or f"{file.name}: no public address")


def library_addresses(form: Download) -> list[str]:
    """Address of a file that a library knows; none for all others."""
    if form.torchvision is None:
        return []
    from torchvision.models import get_weight

    try:
        return [get_weight(form.torchvision).url]
    except (ValueError, KeyError, AttributeError) as error:
        raise DataError(f"{form.name}: torchvision knows no weights '{form.torchvision}' ({error})") from None


def _members(form: Download) -> set[str] | None:
    if form.members is None:
        return None
    path = manifest_folder() / form.members
    try:
        return {line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; the manifest names it under 'members'") from None


def _collect_hub(manifest: Manifest, tree: Path, downloads: Path) -> Collected:
    from shared.data.hub import snapshot

    assert manifest.hub is not None
    require_space(tree, manifest.content.max_bytes, f"{manifest.name}: downloading")
    snapshot(manifest.hub, downloads / "hub", tree, _token(manifest))
    origin = f"hub {manifest.hub.repo}@{manifest.hub.revision}"
    return tree_entries(tree), [{"file": manifest.hub.repo, "from": origin}]


def _token(manifest: Manifest) -> str | None:
    """The token for gated data; Unavailable, before any request, if it is needed and not set."""
    if manifest.gate is None or manifest.gate.token is None:
        return None
    if token := os.environ.get(manifest.gate.token):
        return token
    raise Unavailable(f"gated, and the variable {manifest.gate.token} holds no token")


def _not_available(manifest: Manifest, mirror: Path | None, reasons: list[str]) -> str:
    names = ", ".join(file.name for file in manifest.files) or "the repository's files"
    parts = [f"data set '{manifest.name}' is not available: {'; '.join(reasons)}"]
    if gate := manifest.gate:
        then = f", then put your access token into the variable {gate.token}" if gate.token else ""
        parts.append(f"gated: {gate.accept} at {gate.url}{then}")
    looked = f"{VARIABLE}={mirror} does not hold it" if mirror else f"{VARIABLE} is not set"
    parts.append(f"{looked}: put {names} into <folder>/{manifest.name}/ and set {VARIABLE}=<folder>")
    return ". ".join(parts)
