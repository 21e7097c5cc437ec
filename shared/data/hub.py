"""Pinned revisions of the Hugging Face hub."""

import logging
import shutil
from pathlib import Path

from shared.data.fetch import Unavailable, is_unreachable, reason_of
from shared.data.manifest import Hub
from shared.errors import named_reason


def snapshot(hub: Hub, downloads: Path, tree: Path, token: str | None) -> None:
    """Download the allowed files of the pinned revision and move them into `tree`.

    `downloads` keeps what an interrupted attempt has already fetched. Raises Unavailable with the
    reason.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled

    for library in ("httpx", "httpx2"):
        logging.getLogger(library).setLevel(logging.WARNING)  # one line a request is too much
    _check_reachable()
    try:
        snapshot_download(
            hub.repo,
            repo_type=hub.repo_type,
            revision=hub.revision,
            allow_patterns=hub.allow,
            local_dir=downloads,
            token=token,
        )
    except GatedRepoError:
        raise Unavailable("gated, and the token (if any) does not grant access") from None
    except OfflineModeIsEnabled:
        raise Unavailable("HF_HUB_OFFLINE is set") from None
    except Exception as error:
        # Network errors are classes of whichever HTTP package the hub library's version uses; only
        # the disk is ours.
        if isinstance(error, OSError) and error.errno:
            raise
        raise Unavailable(named_reason(error.__cause__ or error)) from None
    shutil.rmtree(downloads / ".cache", ignore_errors=True)  # the library's own notes are no data
    shutil.copytree(downloads, tree, dirs_exist_ok=True, copy_function=shutil.move)


def _check_reachable() -> None:
    """Without a network the hub library retries for half a minute; one request tells at once."""
    import requests
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return
    try:
        requests.head(constants.ENDPOINT, timeout=10)
    except requests.exceptions.RequestException as error:
        if is_unreachable(error):
            raise Unavailable(f"{constants.ENDPOINT}: {reason_of(error)}") from None
