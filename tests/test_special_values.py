"""Infinities, NaNs, impossible classes, confident rows, subnormal and huge numbers: the section Meaning of the interface."""

import crossent
import numpy as np
import pytest
import reference
from cases import assert_index_gradient
from helpers import FLOAT32, FORMATS, accumulator, assert_same_bits, assert_ulps, available_dtypes, limit, normal, widen

pytestmark = pytest.mark.usefixtures("simd")

INF, NAN = np.inf, np.nan
SIZES = [1, 2, 3, 7, 8, 16, 17, 33, 100]  # a special value must be seen in every part of a vector loop
ROW_FUNCTIONS = ["softmax", "log_softmax"]


def all_row_results(row):
    """Everything that is NaN when a row cannot be normalized."""
    target = np.zeros(1, int)
    uniform = np.full((1, row.size), 1 / row.size)
    loss, gradient = crossent.cross_entropy_value_and_grad(row[None], target)
    soft_loss, soft_gradient = crossent.cross_entropy_value_and_grad(row[None], uniform, label_smoothing=0.1)
    backward = crossent.cross_entropy_backward(1.0, row[None], target)
    only_loss = crossent.cross_entropy(row[None], target)
    arrays = [crossent.softmax(row), crossent.log_softmax(row), loss, gradient, soft_loss, soft_gradient]
    return [widen(a) for a in (*arrays, backward, only_loss)]


@pytest.mark.parametrize("special", [NAN, INF])
def test_a_row_with_nan_or_infinity_is_nan_wherever_it_stands(special, dtype):
    for size in SIZES:
        for position in range(size):
            row = normal(size, dtype)
            row[position] = special
            assert np.isnan(crossent.softmax(row)).all(), (size, position)
            assert np.isnan(crossent.log_softmax(row)).all(), (size, position)
            np.testing.assert_array_equal(crossent.logsumexp(row), special)


@pytest.mark.parametrize("special", [NAN, INF])
@pytest.mark.parametrize("neighbour", [0, -INF, 300])
def test_a_row_with_nan_or_infinity_has_nan_loss_and_gradient(special, neighbour, dtype):
    for size in (1, 5, 40):
        for position in {0, size // 2, size - 1}:
            row = np.full(size, neighbour, dtype)
            row[position] = special
            for result in all_row_results(row):
                assert np.isnan(result).all(), (size, position)


def test_a_row_of_only_minus_infinity(dtype):
    for size in SIZES:
        row = np.full(size, -INF, dtype)
        assert crossent.logsumexp(row) == -INF
        for result in all_row_results(row):
            assert np.isnan(result).all(), size


def test_special_rows_do_not_disturb_their_neighbours(dtype):
    for classes in (3, 10, 40):
        x = normal((9, classes), dtype)
        clean = x.copy()
        x[1, 0], x[3, -1], x[5], x[7, 1] = NAN, INF, -INF, -INF
        others = [0, 2, 4, 6, 8]
        for axis, put in ((1, np.asarray), (0, np.transpose)):
            for name in (*ROW_FUNCTIONS, "logsumexp"):
                result = getattr(crossent, name)(np.ascontiguousarray(put(x)), axis)
                expected = getattr(crossent, name)(np.ascontiguousarray(put(clean)), axis)
                result, expected = (put(r) if name != "logsumexp" else r for r in (result, expected))
                assert_same_bits(result[others], expected[others], f"{name} axis={axis}")


@pytest.mark.parametrize("name", ROW_FUNCTIONS)
def test_a_minus_infinite_logit_is_an_impossible_class(name, dtype):
    for size in SIZES[1:]:
        row = normal(size, dtype)
        row[::2] = -INF
        result = getattr(crossent, name)(row)
        assert (result[::2] == (0 if name == "softmax" else -INF)).all()
        assert_ulps(result, getattr(reference, name)(row), limit(name, dtype))
        assert_ulps(crossent.logsumexp(row), reference.logsumexp(row), limit("logsumexp", dtype), abs(row[1]))


def test_one_possible_class_is_certain(dtype):
    for size in SIZES:
        row = np.full(size, -INF, dtype)
        row[-1] = 2.5
        np.testing.assert_array_equal(widen(crossent.softmax(row)), np.arange(size) == size - 1)
        assert crossent.log_softmax(row)[-1] == 0
        assert crossent.logsumexp(row) == 2.5
        loss, gradient = crossent.cross_entropy_value_and_grad(row, size - 1)
        assert loss == 0
        assert not gradient.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_an_impossible_target_has_infinite_loss_and_gradient_minus_q(smoothing, dtype):
    row = np.array([0.5, -INF, 1.5, -INF], dtype)
    loss, gradient = crossent.cross_entropy_value_and_grad(row, 1, label_smoothing=smoothing)
    assert loss == INF
    expected, scale = reference.cross_entropy_backward(1.0, row, np.array(1), label_smoothing=smoothing)
    assert_ulps(gradient, expected, limit("mixed gradient", dtype), scale)
    assert gradient[1] == np.asarray(-(1 - smoothing) - smoothing / 4).astype(dtype)
    assert gradient[3] == np.asarray(-smoothing / 4).astype(dtype)


def test_an_impossible_target_weighs_its_gradient(dtype):
    row, weight = np.array([[0.5, -INF], [0, 0]], dtype), np.array([1, 4], FLOAT32)
    losses, gradient = crossent.cross_entropy_value_and_grad(row, [1, 0], weight=weight, reduction="none")
    assert losses[0] == INF
    np.testing.assert_array_equal(widen(gradient[0]), [4, -4])
    halved = crossent.cross_entropy_backward([0.5, 1], row, [1, 0], weight=weight, reduction="none")
    np.testing.assert_array_equal(widen(halved), [[2, -2], [-0.5, 0.5]])


def test_smoothing_makes_an_impossible_class_infinite(dtype):
    """With label smoothing every class has a positive target probability, as in PyTorch."""
    row = np.array([0.5, -INF, 1.5], dtype)
    assert np.isfinite(crossent.cross_entropy(row, 0))
    assert crossent.cross_entropy(row, 0, label_smoothing=0.1) == INF


def test_zero_probability_times_minus_infinity_is_0(dtype):
    row, short = np.array([0.5, -INF, 1.5], dtype), np.array([0.5, 1.5], dtype)
    loss, gradient = crossent.cross_entropy_value_and_grad(row, np.array([0.25, 0, 0.75], dtype))
    q = np.array([0.25, 0.75], dtype)
    assert_ulps(loss, reference.cross_entropy(short, q), limit("loss", dtype))
    assert gradient[1] == 0
    expected, scale = reference.cross_entropy_backward(1.0, short, q)
    assert_ulps(gradient[[0, 2]], expected, limit("mixed gradient", dtype), scale)


def test_zero_weight_times_minus_infinity_is_0(dtype):
    row, weight = np.array([[0.5, -INF, 1.5]], dtype), np.array([1, 0, 2], FLOAT32)
    by_smoothing = crossent.cross_entropy_value_and_grad(row, [0], weight=weight, label_smoothing=0.5)
    uniform = np.full((1, 3), 1 / 3, FLOAT32)
    by_probability = crossent.cross_entropy_value_and_grad(row, uniform, weight=weight)
    for loss, gradient in (by_smoothing, by_probability):
        assert np.isfinite(loss)
        assert np.isfinite(widen(gradient)).all()
        assert gradient[0, 1] == 0
    assert crossent.cross_entropy(row, [1], weight=weight, reduction="sum") == 0


@pytest.mark.parametrize("content", [NAN, INF, -INF])
def test_ignored_rows_are_not_read(content, dtype):
    for classes in (1, 3, 40):
        x = normal((4, classes), dtype)
        target = np.array([0, -100, classes - 1, -100])
        expected_loss, expected = crossent.cross_entropy_value_and_grad(x[::2], target[::2])
        x[1::2] = content
        for smoothing in (0.0, 0.1):
            losses = crossent.cross_entropy(x, target, reduction="none", label_smoothing=smoothing)
            assert np.isfinite(losses).all()
            assert not losses[1::2].any()
        loss, gradient = crossent.cross_entropy_value_and_grad(x, target)
        assert_same_bits(loss, expected_loss)
        assert_same_bits(gradient[::2], expected)
        assert not gradient[1::2].any()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_special_losses_pass_through_reductions(reduction, dtype):
    possible, impossible, broken = [0, 0], [-INF, 0], [NAN, 0]
    for rows, expected in (([possible, impossible], INF), ([impossible, broken], NAN)):
        loss = crossent.cross_entropy(np.array(rows, dtype), [0, 0], reduction=reduction)
        np.testing.assert_array_equal(loss, expected)


@pytest.mark.parametrize("lead", [5, 10, 20, 30, 50, 80])
def test_confident_predictions_keep_their_relative_accuracy(lead, dtype):
    for classes in (2, 3, 17, 1000):
        row = np.zeros((1, classes), dtype)
        row[0, classes // 2] = lead
        target = np.array([classes // 2])
        loss, gradient = crossent.cross_entropy_value_and_grad(row, target)
        assert loss > 0
        assert_ulps(loss, reference.cross_entropy(row, target), limit("loss", dtype))
        expected, _ = reference.cross_entropy_backward(1.0, row, target)
        assert_index_gradient(gradient, expected, target, f"lead {lead}")
        assert_ulps(crossent.log_softmax(row), reference.log_softmax(row), limit("log_softmax", dtype))


def test_ties_at_the_maximum(dtype):
    for ties in (2, 3, 16, 17):
        row = np.full((1, 40), -50, dtype)
        row[0, :ties] = 3
        for name in ROW_FUNCTIONS:
            assert_ulps(getattr(crossent, name)(row), getattr(reference, name)(row), limit(name, dtype))
        losses = crossent.cross_entropy(row, [0])
        assert_ulps(losses, reference.cross_entropy(row, np.array([0])), limit("loss", dtype))


def test_subnormal_probabilities_are_not_flushed(dtype):
    lowest = {"float16": (-9, -17), "bfloat16": (-88, -92), "float32": (-88, -103), "float64": (-709, -744)}[dtype.name]
    row = np.concatenate([[0], np.linspace(*lowest, 60)]).astype(dtype)
    p = crossent.softmax(row)
    assert (p[1:-1] > 0).all()
    assert_ulps(p, reference.softmax(row), limit("softmax", dtype))
    _, gradient = crossent.cross_entropy_value_and_grad(row, 0)
    assert_ulps(gradient[1:], reference.softmax(row)[1:], limit("gradient off target", dtype))


def test_huge_ranges_do_not_overflow(wider_dtype):
    largest = float(np.finfo(wider_dtype).max)
    rows = np.array([[largest, -largest], [-largest, -largest], [largest, largest], [0, -largest]], wider_dtype)
    np.testing.assert_array_equal(crossent.softmax(rows), [[1, 0], [0.5, 0.5], [0.5, 0.5], [1, 0]])
    np.testing.assert_array_equal(crossent.logsumexp(rows)[[0, 3]], [largest, 0])
    log_p = crossent.log_softmax(rows)
    np.testing.assert_array_equal(log_p[[0, 3]], [[0, -INF], [0, -largest]])
    losses = crossent.cross_entropy(rows, [0, 0, 1, 1], reduction="none")
    assert_ulps(
        losses, reference.cross_entropy(rows, np.array([0, 0, 1, 1]), reduction="none"), limit("loss", wider_dtype)
    )


def test_float16_reductions_do_not_overflow(narrow_dtype):
    logits = np.zeros((4000, 2), narrow_dtype)
    logits[:, 1] = 60000
    target = np.zeros(4000, int)
    exact = float(logits[0, 1])
    assert crossent.cross_entropy(logits, target) == exact
    assert crossent.cross_entropy(logits, target, reduction="sum") == FLOAT32.type(4000 * exact)
    assert accumulator(narrow_dtype) == crossent.cross_entropy(logits, target).dtype


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
def test_means_of_huge_losses_do_not_overflow(name):
    """Each loss is the largest number of its dtype; their sum is beyond it."""
    dtype = {d.name: d for d in available_dtypes()}.get(name) or pytest.skip("needs ml_dtypes")
    digits, lowest = FORMATS[name]
    largest = (2 - 2.0 ** (1 - digits)) * 2.0 ** (1 - lowest)
    logits, target = np.tile(np.array([0, largest], dtype), (5000, 1)), np.zeros(5000, int)
    assert crossent.cross_entropy(logits, target) == np.float32(largest)
    assert crossent.nll_loss(-logits, np.ones(5000, int)) == np.float32(largest)
    in_thirds = crossent.cross_entropy(logits, np.full((5000, 2), 1 / 3))
    assert_ulps(in_thirds, np.longdouble(largest) * np.longdouble(1 / 3), limit("reduced loss", dtype))


def test_equal_logits_are_uniform(dtype):
    for classes in (512, 4096, 131072):
        row = np.full(classes, 3, dtype)
        assert (crossent.softmax(row) == 1 / classes).all()
        expected = 3 + np.log(np.longdouble(classes))
        assert_ulps(crossent.logsumexp(row), expected, limit("logsumexp", dtype))
        zero = np.zeros(classes, dtype)
        assert_ulps(crossent.logsumexp(zero), np.log(np.longdouble(classes)), limit("logsumexp", dtype))
