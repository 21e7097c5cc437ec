"""Downloads over HTTP: resumed, retried, patient with busy servers, impatient with dead ones.

`pooch` keeps the files; this module supplies the downloader it lacks: one that continues a partial
file with a Range request, also after kill -9, and honours Retry-After.
"""

import datetime
import email.utils
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.data.disk import megabytes
from shared.data.manifest import Download
from shared.data.verify import mismatch

log = logging.getLogger(__name__)
_BLOCK = 1 << 15  # what a broken connection loses at most
_BUSY = {429, 503}
_TRY_AGAIN = _BUSY | {408, 425, 500, 502, 504}


class Unavailable(Exception):  # noqa: N818 (not an error: the next address may have the file)
    """This address does not give the file; the text is the reason."""


@dataclass(frozen=True)
class Patience:
    """Seconds and attempts. attempts: requests in a row without a single new byte; requests: in
    all, per address; longest_wait: a server that asks for more (Retry-After) is given up.
    """

    connect: float = 10.0
    stall: float = 30.0
    attempts: int = 5
    requests: int = 50
    backoff: float = 1.0
    longest_wait: float = 120.0
    sleep: Callable[[float], None] = time.sleep


class _TryAgain(Exception):  # noqa: N818
    """The request may succeed later. wait: seconds the server asks for; weight: attempts that this
    failure costs.
    """

    def __init__(self, reason: str, wait: float | None = None, weight: int = 1) -> None:
        super().__init__(reason)
        self.wait, self.weight = wait, weight


def fetch(address: str, form: Download, folder: Path, patience: Patience, token: str | None = None) -> Path:
    """Download one file into `folder`, verify it, return its path; or raise Unavailable.

    A partial file of an earlier attempt is continued if the result can be verified. When a
    continued file turns out wrong, it is fetched once more from the start.
    """
    part = folder / f"{form.name}.part"
    if not form.is_pinned:
        part.unlink(missing_ok=True)
    resumed = part.exists()
    path = _retrieve(address, form, folder, ResumingDownloader(part, form.size, patience, token))
    wrong = mismatch(path, form)
    if wrong and resumed:
        path.unlink()
        path = _retrieve(address, form, folder, ResumingDownloader(part, form.size, patience, token))
        wrong = mismatch(path, form)
    if wrong:
        path.unlink()
        raise Unavailable(wrong)
    return path


def _retrieve(address: str, form: Download, folder: Path, downloader: "ResumingDownloader") -> Path:
    import pooch

    # pooch would advise to pin the digest of every file; `fetch` verifies against all accepted
    # digests itself.
    pooch.get_logger().setLevel(logging.WARNING)
    return Path(pooch.retrieve(address, known_hash=None, fname=form.name, path=folder, downloader=downloader))


class ResumingDownloader:
    """A pooch downloader that continues the file `part` and hands it over when it is complete."""

    def __init__(self, part: Path, size: int | None, patience: Patience, token: str | None = None) -> None:
        self.part, self.size, self.patience, self.token = part, size, patience, token
        self.num_requests = 0

    def __call__(self, address: str, output_file: str, _pooch: Any) -> None:
        """Download `address` to `output_file`. Raises Unavailable."""
        failures, most = 0, self._have()
        while True:
            self.num_requests += 1
            try:
                self._request(address)
                os.replace(self.part, output_file)
                return
            except _TryAgain as problem:
                reached = self._have()
                failures = 0 if reached > most else failures + problem.weight
                most = max(most, reached)
                if failures >= self.patience.attempts or self.num_requests >= self.patience.requests:
                    raise Unavailable(f"{problem} ({self.num_requests} requests)") from None
                wait = self.patience.backoff * 2 ** max(failures - 1, 0) if problem.wait is None else problem.wait
                if wait > self.patience.longest_wait:
                    raise Unavailable(f"{problem}, asks to wait {wait:.0f} s") from None
                log.info("%s: %s; next request in %.1f s", address, problem, wait)
                self.patience.sleep(wait)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _request(self, address: str) -> None:
        import requests

        # identity: a compressing proxy would change the byte positions that Range counts.
        headers = {"Accept-Encoding": "identity", "User-Agent": "paper-replications"}
        if have := self._have():
            headers["Range"] = f"bytes={have}-"
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        limits = (self.patience.connect, self.patience.stall)
        try:
            with requests.get(address, headers=headers, stream=True, timeout=limits) as response:
                self._receive(response, have)
        except (requests.exceptions.InvalidURL, requests.exceptions.TooManyRedirects) as error:
            raise Unavailable(str(error)) from None
        except requests.exceptions.ConnectionError as error:
            if is_unreachable(error):
                # Asked twice, not five times: most likely there is no network, and a person waits
                # for the answer.
                half = -(-self.patience.attempts // 2)
                raise _TryAgain(reason_of(error), wait=self.patience.backoff, weight=half) from None
            raise _TryAgain(reason_of(error)) from None
        except requests.exceptions.RequestException as error:
            raise _TryAgain(reason_of(error)) from None

    def _receive(self, response: Any, have: int) -> None:
        status = f"{response.status_code} {response.reason}"
        if response.status_code == 416:
            # The part is at least as long as the file; complete if the server says exactly that
            # length.
            if response.headers.get("Content-Range", "").endswith(f"/{have}"):
                return
            self.part.unlink()
            raise _TryAgain("the partial file is longer than the original; starting again")
        if response.status_code in _TRY_AGAIN:
            raise _TryAgain(status, wait=_retry_after(response.headers.get("Retry-After")))
        if response.status_code not in {200, 206}:
            raise Unavailable(status)
        if response.status_code == 206 and not re.match(rf"bytes {have}-", response.headers.get("Content-Range", "")):
            self.part.unlink(missing_ok=True)
            raise _TryAgain("answered with another range than asked for; starting again")
        start = have if response.status_code == 206 else 0
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else None
        if self.size is not None and total is not None and total != self.size:
            self.part.unlink(missing_ok=True)
            raise Unavailable(f"offers {total} bytes, expected {self.size}")
        self._store(response, start, total)

    def _store(self, response: Any, start: int, total: int | None) -> None:
        have, said = start, time.monotonic()
        with self.part.open("ab" if start else "wb") as out:
            for block in response.iter_content(_BLOCK):
                have += len(block)
                if self.size is not None and have > self.size:
                    self.part.unlink()
                    raise Unavailable(f"sends more than the expected {self.size} bytes")
                out.write(block)
                if time.monotonic() - said > 10:
                    said = time.monotonic()
                    log.info(
                        "%s: %s%s",
                        self.part.stem,
                        megabytes(have),
                        f" of {megabytes(total)}" if total else "",
                    )
        if total is not None and have < total:
            raise _TryAgain(f"connection closed after {have} of {total} bytes")


def _retry_after(value: str | None) -> float | None:
    """Seconds asked for by a Retry-After header (a number or a date); None if there is none or it
    makes no sense.
    """
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds())


def is_unreachable(error: Exception) -> bool:
    """Whether the host could not even be reached (as opposed to a connection that broke)."""
    import requests

    never = (
        requests.exceptions.ConnectTimeout,
        requests.exceptions.ProxyError,
        requests.exceptions.SSLError,
    )
    return isinstance(error, never) or "Failed to resolve" in str(error) or "Failed to establish" in str(error)


def reason_of(error: Exception) -> str:
    """The innermost cause of a network error in a few words, without object addresses."""
    text = str(error).strip("()'\" ")
    if match := re.search(r"IncompleteRead\(\d+ bytes read, (\d+) more expected", text):
        return f"connection closed, {match.group(1)} bytes missing"
    for pattern in (
        r"Failed to resolve '[^']*'",
        r"\[Errno -?\d+\] ([^'\")]*)",
        r"Read timed out",
        r"timed out",
    ):
        if match := re.search(pattern, text):
            return match.group(1 if match.lastindex else 0).strip()
    return re.sub(r"<[^>]*>:? ?", "", text)[:200] or type(error).__name__
