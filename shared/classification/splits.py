"""What is trained on, forgotten, retained and held out: indices into the data set (SalUn's protocol)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.classification.task import DataSpec, ForgetSpec
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
    num_classes: int,
) -> Split:
    """Split a data set of `num_classes` classes for one row seed.

    forget None: the original's view (everything of the training part is retained). For class-wise
    forgetting the test and validation sets drop the class. Raises ConfigError for a class that is
    not there, or an empty side.
    """
    train, validation, test = _held_out(train_labels, test_labels, data)
    classes = forgotten_classes(data.name, forget, seed, num_classes)
    pool = _marked_pool(train_labels, train, data, forget, seed)
    chosen = _forgotten(train_labels[pool], data.name, forget, classes, seed)
    retain = np.delete(pool, chosen)
    hit = np.isin(test_labels[test], classes)
    test, gone = test[~hit], test[hit]
    source_labels = train_labels if data.validation.source == "train" else test_labels
    validation = validation[~np.isin(source_labels[validation], classes)]
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


def forgotten_classes(name: str, forget: ForgetSpec | None, seed: int, num_classes: int) -> list[int]:
    """The classes that row seed `seed` forgets, ascending; none for a random forget set. Raises ConfigError."""
    if forget is None or forget.rule == "random":
        return []
    named = forget.class_cycle or [forget.class_index or 0]
    beyond = next((index for index in named if index >= num_classes), None)
    if beyond is not None:
        raise ConfigError(f"data '{name}': forget class {beyond} does not exist, the last class is {num_classes - 1}")
    if forget.num_classes >= num_classes:
        raise ConfigError(
            f"data '{name}': forget.num_classes {forget.num_classes} leaves none of {num_classes} classes"
        )
    return forget.of_seed(seed).classes(num_classes)


def _forgotten(labels: Indices, name: str, forget: ForgetSpec | None, classes: list[int], seed: int) -> Indices:
    """Positions in the pool that are forgotten, in ascending order."""
    if forget is None:
        return np.empty(0, np.int64)
    if forget.rule == "class":
        for index in classes:
            # batch norm needs two images, and one would say nothing
            if (count := int((labels == index).sum())) < 2:
                present = ", ".join(map(str, np.unique(labels)))
                raise ConfigError(
                    f"data '{name}': forget class {index} has {count} training images, needs 2; "
                    f"classes present: {present}"
                )
        return np.flatnonzero(np.isin(labels, classes))
    num_forget = forget.num or int(round(float(forget.fraction or 0) * len(labels), 6))
    if not 0 < num_forget < len(labels):
        asked = f"num {forget.num}" if forget.num else f"fraction {forget.fraction}"
        raise ConfigError(f"data '{name}': forget.{asked} of {len(labels)} images is {num_forget}")
    # The release's S is seed + 1; `forget_split` draws with RandomState(S - 1).
    return np.sort(forget_split(len(labels), num_forget, seed + 1)[0])
