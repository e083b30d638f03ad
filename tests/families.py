"""The families of rows that accuracy is promised on, with the oracle's results: for test_accuracy.py and bench/accuracy.py.

Rows are of 2 to 262144 classes: normal logits of scale 1, 10 and 100, confident rows, ties, offsets, impossible classes,
wide ranges and subnormal results. Results are computed once, for all instruction sets and peers.
"""

import functools
from typing import NamedTuple

import numpy as np
import reference
from helpers import WIDE, accumulator, is_narrow, normal, round_to, widen

LONG = 20000  # elements in rows that are not solved for every target and option
LEADS = [5, 10, 17.3, 30.1234 - 0.1, 50, 100]
BATCHES = [(2, 3), (1000, 10), (50000, 4), (300, 1000)]  # shapes for reduced losses

# Distances to the maximum whose probabilities are subnormal, to where they vanish.
SUBNORMAL = {"float16": (-17.4, -9.5), "bfloat16": (-93, -86), "float32": (-104, -86), "float64": (-745.2, -707)}


def normal_rows(dtype):
    for scale in (1, 10, 100):
        for classes in (2, 3, 10, 100, 1000, 32000, 262144):
            if is_narrow(dtype) and classes > 1000 and scale != 1:
                continue  # half an ULP of 16 bits hides what longer rows of few different numbers would add
            yield normal((3 if classes < 1000 else 1, classes), dtype, scale)


def confident_rows(dtype):
    for lead in LEADS:
        for classes in (2, 3, 100, 32000):
            row = normal((1, classes), dtype, 0.5)
            row[0, classes // 3] = lead
            yield row
    yield np.array([[30.1234, 0.1]], dtype)
    yield np.array([[30.1234, 0.1, -0.7, 11.1]], dtype)


def tied_rows(dtype):
    for classes, ties in ((2, 2), (100, 2), (100, 50), (1000, 999), (262144, 262143)):
        row = np.full((1, classes), -1.25, dtype)
        row[0, :ties] = 2.7
        yield row


def shifted_rows(dtype):
    for offset in (1e4, -1e4, 1e6):
        for classes in (2, 100, 10000):
            rows = round_to(normal((1, classes), np.float64, 10) + offset, dtype)
            if np.isfinite(widen(rows)).all():  # 1e6 is no float16
                yield rows


def impossible_rows(dtype):
    for classes in (4, 100, 10000):
        row = normal((1, classes), dtype)
        row[0, ::3] = -np.inf
        yield row


def wide_rows(dtype):
    yield round_to(np.linspace(-1e4, 1e4, 1000), dtype)[None]
    yield round_to(np.random.default_rng(0).uniform(-1e4, 1e4, (1, 10000)), dtype)
    row = round_to(np.linspace(*SUBNORMAL[dtype.name], 5000), dtype)[None]
    row[0, 77] = 0
    yield row


ROWS = {
    "normal": normal_rows,
    "confident": confident_rows,
    "tied": tied_rows,
    "shifted": shifted_rows,
    "impossible": impossible_rows,
    "wide": wide_rows,
}


@functools.cache
def rows_of(kind, dtype):
    return list(ROWS[kind](dtype))


@functools.cache
def expected(name, kind, dtype):
    return [getattr(reference, name)(rows) for rows in rows_of(kind, dtype)]


def targets_of(rows):
    """The most probable, the last and the first class: one target row each; without the first for long rows."""
    count, classes = rows.shape
    targets = [widen(rows).argmax(axis=1), np.full(count, classes - 1), np.zeros(count, int)]
    return targets[: 2 if rows.size > LONG else 3]


def probabilities_of(rows):
    """Target probabilities in the rows' dtype that sum to about 1; one class in five, and each impossible one, has 0."""
    rng = np.random.default_rng(rows.shape)
    q = rng.random(rows.shape) * (rng.random(rows.shape) > 0.2) * np.isfinite(widen(rows))
    q[:, -1] += np.isfinite(widen(rows[:, -1]))  # so that no row is all 0
    return round_to(q / np.maximum(q.sum(axis=1, keepdims=True), 1), rows.dtype)


class Solved(NamedTuple):
    """A loss without reduction and its gradient, by the oracle."""

    rows: np.ndarray
    target: np.ndarray  # class indices or probabilities
    options: dict  # of the loss
    losses: np.ndarray
    gradient: np.ndarray
    scale: np.ndarray  # what the gradient's errors are measured against, beside itself


def _solve(rows, target, **options):
    losses = reference.cross_entropy(rows, target, reduction="none", **options)
    gradient = reference.cross_entropy_backward(np.ones(len(rows)), rows, target, reduction="none", **options)
    return Solved(rows, target, options, losses, *gradient)


def weights_of(rows):
    """Class weights, one in seven of them 0."""
    classes = rows.shape[1]
    weights = np.random.default_rng(classes).uniform(0.25, 3, classes) * (np.arange(classes) % 7 != 1)
    return round_to(weights, accumulator(rows.dtype))


@functools.cache
def expected_losses(kind, dtype, smoothing=0.0):
    """Every row with several target classes; long rows with smoothing with one."""
    return [
        _solve(rows, target, label_smoothing=smoothing)
        for rows in rows_of(kind, dtype)
        for target in targets_of(rows)[: 1 if smoothing and rows.size > LONG else None]
    ]


# Of options that mix the classes, beside smoothing alone: (target probabilities, class weights, smoothing).
MIXTURES = {
    "probabilities": (True, False, 0.0),
    "smoothed probabilities": (True, False, 0.1),
    "weighted probabilities": (True, True, 0.0),
    "weighted smoothed probabilities": (True, True, 0.1),
    "weighted smoothed indices": (False, True, 0.1),
    "uniform": (False, False, 1.0),
}


@functools.cache
def expected_mixed_losses(kind, dtype, mixture):
    """Every row with one target; long ones with probabilities alone."""
    of_probabilities, weighted, smoothing = MIXTURES[mixture]
    solved = []
    for rows in rows_of(kind, dtype):
        if rows.size > LONG and mixture != "probabilities":
            continue
        target = probabilities_of(rows) if of_probabilities else targets_of(rows)[0]
        weight = {"weight": weights_of(rows)} if weighted else {}
        solved.append(_solve(rows, target, label_smoothing=smoothing, **weight))
    return solved


@functools.cache
def expected_reductions(dtype):
    """(logits, target, {reduction: loss}) of batches of many samples."""
    solved = []
    for count, classes in BATCHES:
        logits, target = normal((count, classes), dtype), np.arange(count) % classes
        losses = reference.cross_entropy(logits, target, reduction="none")
        total = losses.sum()
        solved.append((logits, target, {"mean": total / WIDE(count), "sum": total}))
    return solved
