from typing import NamedTuple

import pytest
import torch

from shared.errors import UserError
from shared.gpu.micro_batch import MicroBatch, batch_size, is_out_of_memory, take


class Pair(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


def fake_device(limit, seen):
    """An `attempt` on a device that holds `limit` samples: the weighted mean of the batch's x."""

    def attempt(pieces):
        total = 0.0
        for batch, weight in pieces:
            seen.append(len(batch.x))
            if len(batch.x) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate much")
            total += weight * batch.x.mean()
        return total

    return attempt


def pair(count):
    x = torch.arange(count, dtype=torch.float64)
    return Pair(x, -x)


@pytest.mark.parametrize(("count", "limit"), [(8, 8), (8, 3), (10, 3), (7, 1), (9, 4)])
def test_weighted_pieces_give_the_mean_of_the_whole(count, limit):
    seen = []
    value = MicroBatch().run(pair(count), fake_device(limit, seen))
    torch.testing.assert_close(value, pair(count).x.mean())
    assert max(seen) == count  # the whole batch is tried first
    while seen and seen[0] > limit:  # refused; what follows is one pass over the batch
        seen.pop(0)
    assert sum(seen) == count


def test_size_is_remembered_and_kept_in_a_checkpoint(capsys):
    micro, seen = MicroBatch(), []
    micro.run(pair(16), fake_device(4, seen))
    assert seen == [16, 8, 4, 4, 4, 4]
    seen.clear()
    micro.run(pair(16), fake_device(4, seen))
    assert seen == [4, 4, 4, 4]
    again = MicroBatch()
    again.load_state_dict(micro.state_dict())
    assert again.size == 4
    assert "batches of 16 now run as micro-batches of 8" in capsys.readouterr().err


def test_other_errors_pass_untouched_and_are_tried_once():
    calls = []

    def attempt(pieces):
        calls.append(len(pieces))
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        MicroBatch().run(pair(8), attempt)
    assert calls == [1]


def test_a_single_sample_that_does_not_fit_is_advice():
    with pytest.raises(UserError, match=r"out of memory with a single sample .*smaller model"):
        MicroBatch().run(pair(8), fake_device(0, []))


def test_without_retry_the_first_refusal_is_final():
    with pytest.raises(UserError, match=r"8 samples per process.*set a smaller micro_batch"):
        MicroBatch(retry=False).run(pair(8), fake_device(4, []))


def test_activations_are_free_before_the_next_attempt():
    alive = []

    class Activation:
        def __init__(self):
            alive.append(self)

        def __del__(self):
            freed.append(True)

    freed = []

    def attempt(pieces):
        held = Activation()
        alive.clear()
        if len(pieces) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert freed, "the failed attempt still holds its activations"
        return held

    MicroBatch().run(pair(2), attempt)


def test_out_of_memory_is_recognised():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert is_out_of_memory(RuntimeError("error: CUBLAS_STATUS_ALLOC_FAILED when calling"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_batches_of_every_container_are_cut():
    x = torch.arange(6)
    batch = {
        "pair": Pair(x, x + 1),
        "list": [x, x],
        "words": list("abcdef"),
        "scale": 2,
        "none": None,
    }
    part = take(batch, 1, 3)
    assert isinstance(part["pair"], Pair)
    assert part["pair"].y.tolist() == [2, 3]
    assert [t.tolist() for t in part["list"]] == [[1, 2], [1, 2]]
    assert part["words"] == ["b", "c"]
    assert part["scale"] == 2
    assert part["none"] is None
    assert batch_size(batch) == 6


def test_batches_that_cannot_be_cut():
    with pytest.raises(ValueError, match=r"tensors of \[2, 3\] samples"):
        batch_size((torch.zeros(2), torch.zeros(3)))
    with pytest.raises(ValueError, match="no tensor"):
        batch_size({"words": ["a"]})
