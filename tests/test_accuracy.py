"""Maximal errors in ULP over the classes of rows that other libraries get wrong.

The table of limits is helpers.LIMITS. Rows are of 2 to 262144 classes: normal logits of scale 1, 10 and 100, confident
rows, ties, offsets, impossible classes, wide ranges and subnormal results. The oracle is checked against mpmath in test_reference.py.
"""

import functools

import crossent
import numpy as np
import pytest
import reference
from cases import assert_index_gradient
from helpers import FLOAT32, FLOAT64, assert_ulps, limit, normal, spacing, widen

pytestmark = pytest.mark.usefixtures("simd")

LEADS = [5, 10, 17.3, 30.1234 - 0.1, 50, 100]


def normal_rows(dtype):
    for scale in (1, 10, 100):
        for classes in (2, 3, 10, 100, 1000, 32000, 262144):
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
            yield (normal((1, classes), FLOAT64, 10) + offset).astype(dtype)


def impossible_rows(dtype):
    for classes in (4, 100, 10000):
        row = normal((1, classes), dtype)
        row[0, ::3] = -np.inf
        yield row


def wide_rows(dtype):
    yield np.linspace(-1e4, 1e4, 1000).astype(dtype)[None]
    yield np.random.default_rng(0).uniform(-1e4, 1e4, (1, 10000)).astype(dtype)
    subnormal = (-104, -86) if dtype == FLOAT32 else (-745.2, -707)
    row = np.linspace(*subnormal, 5000).astype(dtype)[None]
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
every_kind = pytest.mark.parametrize("kind", ROWS)


@functools.cache
def rows_of(kind, dtype):
    return list(ROWS[kind](dtype))


@functools.cache
def expected(name, kind, dtype):
    """The oracle's results, computed once for all instruction sets."""
    return [getattr(reference, name)(rows) for rows in rows_of(kind, dtype)]


def targets_of(rows):
    """The most probable, the first and the last class: one target row each."""
    count, classes = rows.shape
    return [rows.argmax(axis=1), np.zeros(count, int), np.full(count, classes - 1)]


@functools.cache
def expected_losses(kind, dtype, smoothing=0.0):
    """(rows, target, losses, (gradient, scale)) of every row and target."""
    solved = []
    for rows in rows_of(kind, dtype):
        for target in targets_of(rows)[: 1 if rows.size > 20000 else 3]:
            options = {"reduction": "none", "label_smoothing": smoothing}
            losses = reference.cross_entropy(rows, target, **options)
            gradient = reference.cross_entropy_backward(np.ones(len(rows)), rows, target, **options)
            solved.append((rows, target, losses, gradient))
    return solved


@every_kind
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_array_functions(name, kind, wider_dtype):
    for rows, exact in zip(rows_of(kind, wider_dtype), expected(name, kind, wider_dtype), strict=True):
        note = f"{kind} {rows.shape}"
        assert_ulps(getattr(crossent, name)(rows), exact, limit(name, wider_dtype), note=note)
        columns = getattr(crossent, name)(np.ascontiguousarray(rows.T), axis=0)
        assert_ulps(columns.T, exact, limit(name, wider_dtype), note=f"{note} along axis 0")


@every_kind
def test_logsumexp(kind, wider_dtype):
    for rows, exact in zip(rows_of(kind, wider_dtype), expected("logsumexp", kind, wider_dtype), strict=True):
        scale = reference.logsumexp_scale(rows)
        assert_ulps(crossent.logsumexp(rows), exact, limit("logsumexp", wider_dtype), scale, kind)


@every_kind
def test_cross_entropy_and_its_gradient(kind, wider_dtype):
    for rows, target, exact_losses, (exact, _) in expected_losses(kind, wider_dtype):
        losses, gradient = crossent.cross_entropy_value_and_grad(rows, target, reduction="none")
        note = f"{kind} {rows.shape} target {target}"
        assert_ulps(losses, exact_losses, limit("loss", wider_dtype), note=note)
        assert_index_gradient(gradient, exact, target, note)


@every_kind
@pytest.mark.parametrize("smoothing", [0.1, 1.0])
def test_smoothed_cross_entropy_and_its_gradient(kind, smoothing, wider_dtype):
    for rows, target, exact_losses, (exact, scale) in expected_losses(kind, wider_dtype, smoothing):
        losses, gradient = crossent.cross_entropy_value_and_grad(
            rows, target, reduction="none", label_smoothing=smoothing
        )
        assert_ulps(losses, exact_losses, limit("loss", wider_dtype), note=f"{kind} {rows.shape}")
        assert_ulps(gradient, exact, limit("mixed gradient", wider_dtype), scale, f"{kind} {rows.shape}")


def test_gradients_of_a_row_sum_to_0(wider_dtype):
    allowed = 2e-7 if wider_dtype == FLOAT32 else 5e-16
    for kind in ("normal", "confident", "tied"):
        for rows, target, _, _ in expected_losses(kind, wider_dtype):
            _, gradient = crossent.cross_entropy_value_and_grad(rows, target, reduction="none")
            sums, sizes = widen(gradient).sum(axis=1), abs(widen(gradient)).sum(axis=1)
            subnormal = gradient.shape[1] * spacing(0, wider_dtype)  # what the roundings of subnormals may add up to
            assert (abs(sums) <= allowed * sizes + subnormal).all(), (kind, rows.shape)


def test_confident_losses_keep_their_relative_accuracy(wider_dtype):
    allowed = 3e-7 if wider_dtype == FLOAT32 else 7e-16
    for rows, target, exact, _ in expected_losses("confident", wider_dtype):
        losses = widen(crossent.cross_entropy(rows, target, reduction="none"))
        normal_range = exact > np.finfo(wider_dtype).tiny
        assert (abs(losses - exact) <= allowed * exact)[normal_range].all(), rows.shape


def test_reduced_losses(wider_dtype):
    for count, classes in ((2, 3), (1000, 10), (50000, 4), (300, 1000)):
        rows = normal((count, classes), wider_dtype)
        target = np.arange(count) % classes
        for reduction in ("mean", "sum"):
            exact = reference.cross_entropy(rows, target, reduction=reduction)
            loss = crossent.cross_entropy(rows, target, reduction=reduction)
            assert_ulps(loss, exact, limit("reduced loss", wider_dtype), note=f"{reduction} {rows.shape}")


def test_one_large_and_many_tiny_terms(wider_dtype):
    """Each tiny term alone would vanish beside the largest; together they do not."""
    for classes in (1000, 262144):
        row = np.full((1, classes), -20 if wider_dtype == FLOAT32 else -40, wider_dtype)
        row[0, 3] = 0
        loss, gradient = crossent.cross_entropy_value_and_grad(row, [3])
        assert_ulps(loss, reference.cross_entropy(row, np.array([3])), limit("loss", wider_dtype))
        exact, _ = reference.cross_entropy_backward(1.0, row, np.array([3]))
        assert_index_gradient(gradient, exact, [3])


@pytest.mark.slow
def test_sums_of_2_to_the_25_classes(dtype):
    row = np.zeros(2**25, dtype)
    assert_ulps(crossent.logsumexp(row), 25 * np.log(np.longdouble(2)), limit("logsumexp", dtype))
    assert (crossent.softmax(row) == dtype.type(2.0**-25)).all()
    columns = crossent.logsumexp(np.zeros((2**25, 1), dtype), axis=0)
    assert_ulps(columns, np.full(1, 25 * np.log(np.longdouble(2))), limit("logsumexp", dtype))
