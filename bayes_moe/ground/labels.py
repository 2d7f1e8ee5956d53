"""Class labels, any hashables: checked, and turned into positions among the declared classes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from bayes_moe.ground.tables import as_labels, sequence


def check_classes(classes: Sequence[Hashable] | None, count: int) -> tuple[Hashable, ...]:
    """Check declared class labels; 0, 1, ... where none are declared."""
    if classes is None:
        return tuple(range(count))
    given = sequence("classes", classes, f"a list of {count} labels")
    labels = tuple(c.item() if isinstance(c, np.generic) else c for c in given)
    if not all(map(_hashable, labels)):
        raise ValueError(f"classes must be hashable labels, got {list(labels)}.")
    if len(labels) != count:
        raise ValueError(f"classes must name the {count} classes of the model, got {len(labels)}: {list(labels)}.")
    if len(set(labels)) != count:
        raise ValueError(f"classes must be distinct, got {list(labels)}.")
    return labels


def encode_labels(y: object, classes: Sequence[Hashable], n: int | None = None) -> np.ndarray:
    """Positions of labels among the declared classes.

    Parameters
    ----------
    y : array-like, shape (n,)
        Labels: any hashables.
    classes : sequence of hashable
        The declared classes, in the model's order.
    n : int, optional
        How many labels there must be.

    Returns
    -------
    ndarray of int32, shape (n,)

    Raises
    ------
    ValueError
        If y is not one-dimensional, has another length, or holds a label that was not declared.
    """
    array = check_labels("y", y, n)
    if array.dtype.kind in "iub" and tuple(classes) == tuple(range(len(classes))):
        codes = array.astype(np.int64)
        unknown = (codes < 0) | (codes >= len(classes))
    else:
        position = {label: code for code, label in enumerate(classes)}
        codes = np.array([position.get(label, -1) if _hashable(label) else -1 for label in array.tolist()])
        unknown = codes < 0
    if unknown.any():
        strange = _distinct(array[unknown].tolist())[:5]
        raise ValueError(
            f"y holds labels that the model does not declare: {strange}. Its classes are {list(classes)}; "
            "declare others, in the order of the frozen expert's rows, with classes=[...]."
        )
    return codes.astype(np.int32)


def _hashable(label: object) -> bool:
    """Whether a label has a hash; a tuple of lists says so and has none."""
    try:
        hash(label)
    except TypeError:
        return False
    return True


def _distinct(labels: list) -> list:
    return list(dict.fromkeys(label if _hashable(label) else repr(label) for label in labels))


def label_array(classes: Sequence[Hashable]) -> np.ndarray:
    """Class labels as an array: of their own dtype where they share one, else of objects."""
    plain = np.asarray(classes) if len({type(label) for label in classes}) == 1 else None
    if plain is not None and plain.ndim == 1:
        return plain
    array = np.empty(len(classes), dtype=object)
    array[:] = classes
    return array


def check_labels(name: str, labels: object, n: int | None = None) -> np.ndarray:
    """Labels, any hashables, as an array (n,): of objects where NumPy would change what they are."""
    array = as_labels(name, labels)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, a label for each row of x, got shape {array.shape}.")
    if n is not None and len(array) != n:
        raise ValueError(f"{name} must have one label for each row of x: x has {n} rows, {name} has {len(array)}.")
    return array
