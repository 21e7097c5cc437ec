"""Videos in their public layouts, and objects followed through them."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from shared.errors import DataError
from shared.segmentation.episodes.data import VideoData
from shared.segmentation.episodes.follow import followed, fused
from shared.segmentation.episodes.videos import Video, open_videos

SPEC = TypeAdapter(VideoData)
PALETTE = [0, 0, 0, 200, 0, 0, 0, 200, 0]


def opened(**values):
    return open_videos(SPEC.validate_python(values))


def labels_of(*columns):
    """(8, 10) uint8 with columns of ids."""
    found = np.zeros((8, 10), np.uint8)
    for key, column in columns:
        found[2:6, column : column + 2] = key
    return found


def davis(photo, png, frames=4):
    files = {"DAVIS/ImageSets/2017/val.txt": b"bear\n"}
    for time in range(frames):
        files[f"DAVIS/JPEGImages/480p/bear/{time:05d}.jpg"] = photo(time)
        files[f"DAVIS/Annotations/480p/bear/{time:05d}.png"] = png(labels_of((1, time), (2, 7), (255, 5)))
    return files


def test_davis(miniature, photo, png):
    miniature("davis_2017", {"DAVIS-2017-trainval-480p.zip": davis(photo, png)})
    (video,) = opened(kind="davis", part="val")
    assert (video.name, video.number) == ("bear", 4)
    assert int(video.frame(2)[0, 0, 0]) == 2
    np.testing.assert_array_equal(video.labels(2), labels_of((1, 2), (2, 7)))
    assert list(video.given) == [0]
    np.testing.assert_array_equal(video.given[0], labels_of((1, 0), (2, 7)))


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("JPEGImages/480p/bear/00002.jpg", r"video bear: frame .*00002\.jpg is missing"),
        ("JPEGImages/480p/bear/00003.jpg", r"video bear: frame .*00003\.jpg is missing"),
        ("Annotations/480p/bear/00001.png", r"video bear: annotation .*00001\.png is missing"),
    ],
)
def test_a_missing_frame_is_one_line(miniature, photo, png, lost, message):
    files = davis(photo, png)
    del files[f"DAVIS/{lost}"]
    miniature("davis_2017", {"DAVIS-2017-trainval-480p.zip": files})
    with pytest.raises(DataError, match=message):
        opened(kind="davis", part="val")


def test_a_video_that_is_not_there_is_one_line(miniature, photo, png):
    files = davis(photo, png) | {"DAVIS/ImageSets/2017/val.txt": b"bear\nwolf\n"}
    miniature("davis_2017", {"DAVIS-2017-trainval-480p.zip": files})
    with pytest.raises(DataError, match="wolf: no such folder"):
        opened(kind="davis", part="val")


def test_youtube_vos_gives_an_object_where_it_appears_first(miniature, photo, png):
    files = {}
    for time in range(0, 20, 5):
        files[f"valid/JPEGImages/v1/{time:05d}.jpg"] = photo(time)
    files["valid/Annotations/v1/00000.png"] = png(labels_of((1, 0)))
    files["valid/Annotations/v1/00010.png"] = png(labels_of((1, 2), (2, 7)))
    miniature("youtube_vos_2018", {"valid.zip": files})
    (video,) = opened(kind="youtube_vos", part="valid")
    assert video.number == 4
    assert list(video.given) == [0, 2]
    np.testing.assert_array_equal(video.given[2], labels_of((2, 7)))
    assert video.labels(1) is None
    assert int(video.frame(3)[0, 0, 0]) == 15


def test_a_frame_between_two_is_missed_in_youtube_vos_too(miniature, photo, png):
    files = {f"valid/JPEGImages/v1/{time:05d}.jpg": photo(time) for time in (0, 5, 15)}
    files["valid/Annotations/v1/00000.png"] = png(labels_of((1, 0)))
    miniature("youtube_vos_2018", {"valid.zip": files})
    with pytest.raises(DataError, match=r"00010\.jpg is missing"):
        opened(kind="youtube_vos", part="valid")


def test_clips(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path))
    videos = opened(kind="clips", part="clips")
    assert [video.number for video in videos] == [8] * 10
    assert all(sorted(np.unique(video.labels(0))) == [0, 1, 2] for video in videos)
    assert list(videos[3].given) == [0]


def test_a_video_without_an_object_in_its_first_frame():
    empty = np.zeros((4, 4), np.int32)
    video = Video("v", 2, lambda time: None, lambda time: empty)
    with pytest.raises(DataError, match="video v: its first frame has no annotated object"):
        _ = video.given


def moving(shades, frames=3):
    """Frames in which square number k, of its own shade, goes right by a pixel a frame; and the label maps."""
    pictures, labels = np.zeros((frames, 12, 20, 3), np.uint8), np.zeros((frames, 12, 20), np.int32)
    for time in range(frames):
        for key, shade in enumerate(shades, 1):
            place = np.s_[time, 4 * key - 3 : 4 * key, 5 + time : 9 + time]
            pictures[place], labels[place] = shade, key
    return pictures, labels


def test_objects_are_remembered_once_and_found_in_every_later_frame(by_shade):
    frames, labels = moving([100, 200])
    predictor = by_shade()
    found = list(followed(predictor, frames, {0: labels[0]}))
    np.testing.assert_array_equal(np.stack(found), labels)
    assert found[0].dtype == np.int32
    assert predictor.remembered == 2
    assert len(predictor.asked) == 2 * 2


def test_an_object_that_is_given_later_is_followed_from_there(by_shade):
    frames, labels = moving([100, 200])
    later = np.where(labels == 2, 2, 0).astype(np.int32)
    found = list(followed(by_shade(), frames, {0: np.where(labels[0] == 1, 1, 0), 1: later[1]}))
    assert (found[0] == 2).sum() == 0
    np.testing.assert_array_equal(np.stack(found[1:]), labels[1:])


def test_the_higher_score_takes_a_pixel_and_of_equals_the_first():
    one, two = np.array([[0.9, 0.2, 0.0, 0.5]]), np.array([[0.1, 0.3, 0.0, 0.5]])
    np.testing.assert_array_equal(fused({7: one, 3: two}, (1, 4)), [[7, 3, 0, 7]])
    np.testing.assert_array_equal(fused({}, (1, 4)), np.zeros((1, 4)))


class Scored:
    """One object everywhere, with a score that its shade gives."""

    most_examples = None

    def remember(self, examples, name=None):
        return float(examples[0].image[examples[0].mask].mean()) / 255

    def masks(self, memory, images):
        raise AssertionError("scores say more")

    def scores(self, memory, images):
        return [np.full(image.shape[:2], memory, np.float32) for image in images]


def test_scores_decide_between_objects():
    frames, labels = moving([100, 200])
    found = list(followed(Scored(), frames, {0: labels[0]}))
    assert (np.stack(found[1:]) == 2).all()


class Own(Scored):
    def follow(self, frames, given):
        for _ in frames:
            yield given[0]


def test_a_methods_own_way_comes_first():
    frames, labels = moving([100])
    assert all((found == labels[0]).all() for found in followed(Own(), frames, {0: labels[0]}))
