"""Downloads against a server that truncates, stalls, redirects, refuses and is busy."""

import dataclasses
import datetime
import email.utils
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from shared.data.fetch import Patience, Unavailable, _retry_after, fetch
from shared.data.manifest import Download

BODY = os.urandom(700_000)
FORM = Download(name="f.bin", size=len(BODY), sha256=[hashlib.sha256(BODY).hexdigest()])


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def patience(waits: list[float]) -> Patience:
    return Patience(connect=2, stall=0.3, backoff=1.0, sleep=waits.append)


def test_plain_download(server: Any, tmp_path: Path, patience: Patience) -> None:
    path = fetch(server.serve("/f", BODY), FORM, tmp_path, patience)
    assert path == tmp_path / "f.bin"
    assert path.read_bytes() == BODY
    assert [p.name for p in tmp_path.iterdir()] == ["f.bin"]


def test_truncated_connection_is_continued_with_range(
    server: Any, answer: Any, tmp_path: Path, patience: Patience
) -> None:
    address = server.serve("/f", answer(BODY, send=300_000), BODY)
    assert fetch(address, FORM, tmp_path, patience).read_bytes() == BODY
    first, second = [requested for _, requested in server.requests]
    assert first is None
    # what arrived before the cut is whole blocks; nothing of it is asked for again
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 300_000


def test_unannounced_truncation_is_caught_by_the_digest(
    server: Any, answer: Any, tmp_path: Path, patience: Patience
) -> None:
    form = FORM.model_copy(update={"size": None})
    with pytest.raises(Unavailable, match="sha256 expected"):
        fetch(server.serve("/f", answer(BODY, send=1000, announce=False)), form, tmp_path, patience)
    assert list(tmp_path.iterdir()) == []


def test_stalled_connection_is_dropped_and_continued(
    server: Any, answer: Any, tmp_path: Path, patience: Patience
) -> None:
    address = server.serve("/f", answer(BODY, send=600_000, stall=1.5), BODY)
    assert fetch(address, FORM, tmp_path, patience).read_bytes() == BODY
    assert len(server.requests) == 2


def test_server_without_range_restarts_from_zero(server: Any, answer: Any, tmp_path: Path, patience: Patience) -> None:
    address = server.serve("/f", answer(BODY, send=300_000), answer(BODY, ranges=False))
    assert fetch(address, FORM, tmp_path, patience).read_bytes() == BODY


def test_endless_truncation_gives_up(server: Any, answer: Any, tmp_path: Path, patience: Patience) -> None:
    with pytest.raises(Unavailable, match="requests"):
        fetch(server.serve("/f", answer(BODY, send=0)), FORM, tmp_path, patience)
    assert len(server.requests) == patience.attempts


def test_progress_resets_the_count_but_the_total_is_bounded(
    server: Any, answer: Any, tmp_path: Path, patience: Patience
) -> None:
    eager = dataclasses.replace(patience, attempts=2, requests=4)
    with pytest.raises(Unavailable, match="4 requests"):
        fetch(server.serve("/f", answer(BODY, send=70_000)), FORM, tmp_path, eager)


def test_partial_file_of_an_earlier_run_is_continued(server: Any, tmp_path: Path, patience: Patience) -> None:
    (tmp_path / "f.bin.part").write_bytes(BODY[:1234])
    assert fetch(server.serve("/f", BODY), FORM, tmp_path, patience).read_bytes() == BODY
    assert server.requests == [("/f", "bytes=1234-")]


def test_complete_partial_file_needs_no_byte(server: Any, tmp_path: Path, patience: Patience) -> None:
    (tmp_path / "f.bin.part").write_bytes(BODY)
    assert fetch(server.serve("/f", BODY), FORM, tmp_path, patience).read_bytes() == BODY


@pytest.mark.parametrize("junk", [b"x" * 1000, b"x" * 800_000], ids=["wrong start", "too long"])
def test_wrong_partial_file_is_replaced(server: Any, tmp_path: Path, patience: Patience, junk: bytes) -> None:
    (tmp_path / "f.bin.part").write_bytes(junk)
    assert fetch(server.serve("/f", BODY), FORM, tmp_path, patience).read_bytes() == BODY


def test_partial_file_without_digest_is_not_trusted(server: Any, tmp_path: Path, patience: Patience) -> None:
    (tmp_path / "f.bin.part").write_bytes(b"x" * 1000)
    assert fetch(server.serve("/f", BODY), Download(name="f.bin"), tmp_path, patience).read_bytes() == BODY
    assert server.requests == [("/f", None)]


def test_redirect_is_followed(server: Any, answer: Any, tmp_path: Path, patience: Patience) -> None:
    target = server.serve("/real", BODY)
    address = server.serve("/f", answer(status=302, headers={"Location": target}))
    assert fetch(address, FORM, tmp_path, patience).read_bytes() == BODY


def test_redirect_loop_ends(server: Any, answer: Any, tmp_path: Path, patience: Patience) -> None:
    address = server.serve("/f", answer(status=302, headers={"Location": server.address("/f")}))
    with pytest.raises(Unavailable, match="redirects"):
        fetch(address, FORM, tmp_path, patience)


@pytest.mark.parametrize("status", [403, 404, 410])
def test_final_refusals_are_not_repeated(
    server: Any, answer: Any, tmp_path: Path, patience: Patience, status: int
) -> None:
    with pytest.raises(Unavailable, match=str(status)):
        fetch(server.serve("/f", answer(status=status)), FORM, tmp_path, patience)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_busy_server_is_asked_again_when_it_says(
    server: Any, answer: Any, tmp_path: Path, patience: Patience, waits: list[float], status: int
) -> None:
    busy = answer(status=status, headers={"Retry-After": "7"})
    assert fetch(server.serve("/f", busy, busy, BODY), FORM, tmp_path, patience).read_bytes() == BODY
    assert waits == [7.0, 7.0]


def test_server_that_asks_for_too_much_patience(server: Any, answer: Any, tmp_path: Path, patience: Patience) -> None:
    with pytest.raises(Unavailable, match="asks to wait 3600 s"):
        fetch(
            server.serve("/f", answer(status=429, headers={"Retry-After": "3600"})),
            FORM,
            tmp_path,
            patience,
        )


def test_waits_grow_without_retry_after(
    server: Any, answer: Any, tmp_path: Path, patience: Patience, waits: list[float]
) -> None:
    with pytest.raises(Unavailable, match="500"):
        fetch(server.serve("/f", answer(status=500)), FORM, tmp_path, patience)
    assert waits == [1, 2, 4, 8]


def test_wrong_file_is_refused_before_it_is_stored(server: Any, tmp_path: Path, patience: Patience) -> None:
    with pytest.raises(Unavailable, match="offers 23 bytes, expected 700000"):
        fetch(server.serve("/f", b"<html>please log in</html>"[:23]), FORM, tmp_path, patience)
    assert list(tmp_path.iterdir()) == []


def test_endless_body_is_cut_off(server: Any, answer: Any, tmp_path: Path, patience: Patience) -> None:
    with pytest.raises(Unavailable, match="more than the expected"):
        fetch(server.serve("/f", answer(BODY + b"more", announce=False)), FORM, tmp_path, patience)
    assert list(tmp_path.iterdir()) == []


def test_unreachable_host_is_asked_twice_only(tmp_path: Path, patience: Patience, waits: list[float]) -> None:
    with pytest.raises(Unavailable, match=r"refused \(2 requests\)"):
        fetch("http://127.0.0.1:9/f", FORM, tmp_path, patience)
    assert waits == [1.0]


def test_retry_after_as_a_date() -> None:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=40)
    assert _retry_after(email.utils.format_datetime(moment, usegmt=True)) == pytest.approx(40, abs=2)
    assert _retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert _retry_after("soon") is None
    assert _retry_after(None) is None
