"""What is trained on, forgotten, retained and held out: indices into the data set (SalUn's protocol)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.classification.protocol import DataSpec, ForgetSpec
from shared.data.splits import forget_split, validation_split
from shared.errors import ConfigError

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Positions in the training file (train, forget, retain) and in the files of the unseen images.

    train: what the original is trained on; forget and retain: D_f and D_r, disjoint. With
    `split_seed_bug` they come from another split and reach into the original's validation images;
    otherwise their union is `train`. validation: positions in the file `validation_source`; test:
    positions in the test file; test_forgotten: test images of the forgotten class (empty for random
    forgetting). The last three serve evaluation only.
    """

    train: Indices
    forget: Indices
    retain: Indices
    validation: Indices
    validation_source: str
    test: Indices
    test_forgotten: Indices


def make_split(
    train_labels: Indices,
    test_labels: Indices,
    data: DataSpec,
    forget: ForgetSpec | None,
    seed: int,
) -> Split:
    """Split a data set for one row seed.

    forget None: the original's view (everything of the training part is retained). For class-wise
    forgetting the test and validation sets drop the class. Raises ConfigError for a class that is
    not there, or an empty side.
    """
    train, validation, test = _held_out(train_labels, test_labels, data)
    pool = _marked_pool(train_labels, train, data, forget, seed)
    chosen = _forgotten(train_labels[pool], data.name, forget, seed)
    retain = np.delete(pool, chosen)
    gone = np.empty(0, np.int64)
    if forget is not None and forget.rule == "class":
        gone = test[test_labels[test] == forget.class_index]
        test = test[test_labels[test] != forget.class_index]
        source_labels = train_labels if data.validation.source == "train" else test_labels
        validation = validation[source_labels[validation] != forget.class_index]
    if len(retain) == 0 or len(test) == 0:
        raise ConfigError(f"data '{data.name}': nothing is left to {'retain' if len(retain) == 0 else 'test on'}")
    return Split(train, pool[chosen], retain, validation, data.validation.source, test, gone)


def _held_out(train_labels: Indices, test_labels: Indices, data: DataSpec) -> tuple[Indices, Indices, Indices]:
    held_out = data.validation
    train, test = np.arange(len(train_labels)), np.arange(len(test_labels))
    if held_out.fraction == 0:
        return train, np.empty(0, np.int64), test
    labels = train_labels if held_out.source == "train" else test_labels
    rest, validation = validation_split(labels, held_out.fraction, held_out.seed)
    if len(validation) == 0:
        raise ConfigError(f"data '{data.name}': validation.fraction {held_out.fraction} holds out no image")
    return (rest, validation, test) if held_out.source == "train" else (train, validation, rest)


def _marked_pool(
    train_labels: Indices, train: Indices, data: DataSpec, forget: ForgetSpec | None, seed: int
) -> Indices:
    """The images that D_f and D_r are made of: the original's own, or (bug) another split's."""
    if forget is None or not forget.split_seed_bug:
        return train
    # The release draws this split with its --seed, seed + 1 here (default 2), not with the loader's
    # seed 1.
    marked, _ = validation_split(train_labels, data.validation.fraction, seed + 1)
    return marked


def _forgotten(labels: Indices, name: str, forget: ForgetSpec | None, seed: int) -> Indices:
    """Positions in the pool that are forgotten, in ascending order."""
    if forget is None:
        return np.empty(0, np.int64)
    if forget.rule == "class":
        chosen = np.flatnonzero(labels == forget.class_index)
        if len(chosen) < 2:
            present = ", ".join(map(str, np.unique(labels)))
            raise ConfigError(
                f"data '{name}': forget.class_index {forget.class_index} has {len(chosen)} "
                f"training images, needs 2; classes present: {present}"
            )
        return chosen
    num_forget = int(round(float(forget.fraction or 0) * len(labels), 6))
    if not 0 < num_forget < len(labels):
        raise ConfigError(f"data '{name}': forget.fraction {forget.fraction} of {len(labels)} images is {num_forget}")
    # The release's S is seed + 1; `forget_split` draws with RandomState(S - 1).
    return np.sort(forget_split(len(labels), num_forget, seed + 1)[0])
