"""The cross product of loss arguments that test_cross_entropy, test_nll_loss and test_against_torch all run.

weight x ignore_index x label_smoothing x reduction x target kind x dtype x rank 1 to 5, on small shapes.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
from helpers import accumulator, assert_ulps, limit, normal, round_to

SHAPES = {1: (7,), 2: (5, 7), 3: (3, 7, 4), 4: (2, 7, 3, 2), 5: (2, 7, 2, 1, 3)}  # class axis: PyTorch's
CLASSES = 7
REDUCTIONS = ("none", "mean", "sum")
SMOOTHINGS = (0.0, 0.1, 1.0)
IGNORINGS = ("nothing", "default", "a class", "everything")
KINDS = ("indices", "probabilities")


class Case(NamedTuple):
    name: str
    logits: np.ndarray
    target: np.ndarray
    options: dict  # keyword arguments of every loss
    smoothing: dict  # {} or {"label_smoothing": …}: cross_entropy's own
    grad: object  # for backward: a number, or an array for reduction "none"

    @property
    def all_options(self):
        return {**self.options, **self.smoothing}


def target_indices(shape, classes, ignoring="nothing", seed=1):
    """(indices, keyword arguments): some or all of them ignored."""
    labels = np.random.default_rng(seed).integers(0, classes, shape)
    if ignoring == "everything":
        return np.full_like(labels, -100), {}
    if ignoring == "default":
        labels = np.where(np.arange(labels.size).reshape(labels.shape) % 3 == 1, -100, labels)
        return labels, {}
    return labels, {"ignore_index": int(labels.flat[0])} if ignoring == "a class" else {}


def target_probabilities(shape, class_axis, dtype, seed=2):
    """Rows that sum to about 1, one class in five exactly 0."""
    rng = np.random.default_rng(seed)
    p = rng.random(shape) * (rng.random(shape) > 0.2)
    return round_to(p / np.maximum(p.sum(axis=class_axis, keepdims=True), 0.1), dtype)


def class_weights(dtype, classes=CLASSES):
    """Positive weights, one of them 0."""
    weights = np.random.default_rng(3).uniform(0.25, 2, classes)
    weights[1] = 0
    return round_to(weights, dtype)


def make_case(rank, dtype, kind, *, weighted, ignoring, smoothing, reduction):
    shape = SHAPES[rank]
    class_axis = 1 if rank > 1 else 0
    batch = shape[:class_axis] + shape[class_axis + 1 :]
    options = {"reduction": reduction}
    if kind == "indices":
        target, extra = target_indices(batch, CLASSES, ignoring)
        options |= extra
    else:
        target = target_probabilities(shape, class_axis, dtype)
    if weighted:
        options["weight"] = class_weights(accumulator(dtype))
    grad = normal(batch, accumulator(dtype), seed=4) if reduction == "none" else 1.75
    name = f"{kind} weighted={weighted} ignoring={ignoring} smoothing={smoothing} {reduction}"
    own = {"label_smoothing": smoothing} if smoothing else {}
    return Case(name, normal(shape, dtype), target, options, own, grad)


def all_cases(rank, dtype, kind, smoothings=SMOOTHINGS, ignorings=IGNORINGS):
    """Every combination of weight, ignore_index, label_smoothing and reduction."""
    if kind == "probabilities":
        ignorings = ("nothing",)
    for weighted, ignoring, smoothing, reduction in product((False, True), ignorings, smoothings, REDUCTIONS):
        yield make_case(
            rank, dtype, kind, weighted=weighted, ignoring=ignoring, smoothing=smoothing, reduction=reduction
        )


def assert_losses(actual, expected, case, kind="loss", note=""):
    """Assert dtype, shape and accuracy of a loss of `case`."""
    reduced = case.options["reduction"] != "none"
    dtype = accumulator(case.logits.dtype)
    assert np.asarray(actual).dtype == dtype, case.name
    assert not reduced or isinstance(actual, np.generic), f"{case.name}: reduced losses are NumPy scalars"
    limit_ = limit("reduced loss" if reduced else kind, case.logits.dtype)
    assert_ulps(actual, expected, limit_, note=f"{note} {case.name}")


def assert_gradient(actual, expected, case, kind="mixed gradient", note=""):
    """Assert dtype and accuracy of a gradient of `case`."""
    gradient, scale = expected
    assert actual.dtype == case.logits.dtype, case.name
    assert_ulps(actual, gradient, limit(kind, case.logits.dtype), scale, f"{note} {case.name}")


def assert_index_gradient(gradient, expected, target, note=""):
    """Assert the accuracy of the gradient of a loss of class indices, (rows, classes): at the target and off it."""
    hit = np.arange(expected.shape[1]) == np.asarray(target)[:, None]
    assert_ulps(gradient[hit], expected[hit], limit("gradient at target", gradient.dtype), note=f"{note} at target")
    assert_ulps(gradient[~hit], expected[~hit], limit("gradient off target", gradient.dtype), note=f"{note} off target")
