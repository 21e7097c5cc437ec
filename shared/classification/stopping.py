"""Stop rules for `context.fit(..., stop=...)`."""

from shared.metrics.accuracy import accuracy, predict
from shared.training.device_images import DeviceImages
from shared.training.loop import Stop
from shared.training.state import LoopState


def forgotten(data: DeviceImages, below: float | None) -> Stop | None:
    """Stop after the first epoch that leaves the accuracy on `data` (without augmentation, eval mode) under `below` %.

    below: over 0, or a model that gets nothing right would still go on. None: no rule, all epochs.
    """
    if below is None:
        return None
    limit = below

    def stop(state: LoopState) -> bool:
        return accuracy(predict(state.model, data)) < limit

    return stop
