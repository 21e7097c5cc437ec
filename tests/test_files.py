"""Atomic writes: what is under the final name is always whole."""

import os
import stat

import pytest

from shared import files


def test_an_error_while_writing_keeps_the_old_content_and_leaves_no_temporary(tmp_path):
    target = tmp_path / "record.json"
    files.write_json(target, {"value": 1})

    def half_written():
        with files.atomic_path(target) as temporary:
            temporary.write_text('{"val')
            raise RuntimeError("killed here")

    with pytest.raises(RuntimeError):
        half_written()
    assert target.read_text().strip() == '{\n "value": 1\n}'
    assert os.listdir(tmp_path) == ["record.json"]


def test_nan_is_refused_instead_of_written_as_something_that_is_not_json(tmp_path):
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "x.json", {"metric": float("nan")})
    assert os.listdir(tmp_path) == []


def test_written_files_have_the_usual_permissions(tmp_path):
    files.write_text(tmp_path / "a.txt", "x")
    (tmp_path / "b.txt").write_text("x")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == stat.S_IMODE((tmp_path / "b.txt").stat().st_mode)


def test_unchanged_content_keeps_its_time_stamp(tmp_path):
    target = tmp_path / "job.json"
    assert files.write_json_if_changed(target, {"a": 1})
    os.utime(target, ns=(1, 1))
    assert not files.write_json_if_changed(target, {"a": 1})
    assert target.stat().st_mtime_ns == 1
    assert files.write_json_if_changed(target, {"a": (1, 2)})
    assert not files.write_json_if_changed(target, {"a": (1, 2)})
    assert target.stat().st_mtime_ns > 1


def test_digest_depends_on_values_and_not_on_the_order_of_keys():
    assert files.digest({"a": 1, "b": [1, 2]}) == files.digest({"b": [1, 2], "a": 1})
    assert files.digest({"a": 1, "b": [1, 2]}) != files.digest({"a": 1, "b": [2, 1]})


def test_file_digest_is_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, example of the standard
    assert files.file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
