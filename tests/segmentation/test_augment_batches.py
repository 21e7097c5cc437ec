"""Batches of an epoch depend on the generator alone."""

import threading

import numpy as np
import pytest
import torch

from shared.segmentation.augment.batches import AugmentedBatches


def drawn(index, rng):
    return index, float(rng.random())


def batches(threads=1, seed=0, make=drawn, num=11, batch=4):
    return AugmentedBatches(num, batch, make, list, torch.Generator().manual_seed(seed), threads)


def test_one_pass_over_all_images_in_random_order():
    found = list(batches())
    assert [len(batch) for batch in found] == [4, 4, 3]
    assert len(batches()) == 3
    order = [index for batch in found for index, _ in batch]
    assert sorted(order) == list(range(11))
    assert order != sorted(order)
    assert len({value for batch in found for _, value in batch}) == 11


def test_threads_change_nothing_but_the_time():
    assert list(batches()) == list(batches(threads=3))
    assert list(batches()) != list(batches(seed=1))


@pytest.mark.parametrize("threads", [1, 3])
def test_skipped_batches_are_not_made(threads):
    made = []

    def make(index, rng):
        made.append(index)
        return drawn(index, rng)

    whole = list(batches())
    some = batches(threads, make=make)
    some.skip(2)
    assert list(some) == whole[2:]
    assert sorted(made) == sorted(index for index, _ in whole[2])


def test_a_second_epoch_of_the_same_generator_is_another_one():
    generator = torch.Generator().manual_seed(0)
    first, second = (list(AugmentedBatches(6, 3, drawn, list, generator)) for _ in range(2))
    assert first != second


def test_an_error_of_one_image_arrives_where_its_batch_is_asked_for():
    bad = list(batches())[1][2][0]

    def make(index, rng):
        if index == bad:
            raise KeyError(f"image {index}")
        return drawn(index, rng)

    for threads in (1, 2):
        some = batches(threads, make=make)
        next(some)
        with pytest.raises(KeyError, match=f"image {bad}"):
            next(some)


def test_threads_end_with_the_epoch():
    before = set(threading.enumerate())
    list(batches(threads=3, num=40))
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_items_are_made_from_numpy_generators():
    kinds = {type(value) for batch in batches(make=lambda _, rng: rng) for value in batch}
    assert kinds == {np.random.Generator}
