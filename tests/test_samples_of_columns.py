"""Axis 1 of (samples, classes, rows), as in images and sequences: the rows of many samples are taken together.

Every function gives each of those rows the bits that it has as a contiguous one, wherever a sample ends, and writes nothing
beside them.
"""

import crossent
import numpy as np
import pytest
from cases import target_probabilities
from helpers import accumulator, assert_same_bits, normal

pytestmark = pytest.mark.usefixtures("simd")

# As many rows in a sample as vectors have lanes, or a multiple, or one more or less; (samples, classes, rows).
SHAPES = [
    (41, 4, 16),
    (19, 2, 32),
    (30, 3, 17),
    (23, 10, 49),
    (9, 21, 130),
    (60, 37, 5),
    (50, 5, 4),
    (50, 3, 4),
    (60, 2, 5),
    (33, 70, 15),
    (7, 200, 33),
    (3, 5, 700),
]


def last(columns):
    return np.ascontiguousarray(np.moveaxis(columns, 1, -1))


def results_along(x, other, axis):
    """{name: result} of every function that takes logits x (and others beside them), classes along `axis`."""
    classes = x.shape[axis]
    rows = np.delete(x.shape, axis)
    target = np.arange(rows.prod()).reshape(rows) * 7 % classes
    ignoring = np.where(target % 5 == 1, -100, target)
    weight = (np.arange(classes) % 3 + 0.5).astype(accumulator(x.dtype))
    probabilities = np.moveaxis(target_probabilities(last(x).shape if axis == 1 else x.shape, -1, x.dtype), -1, axis)
    loss = {"axis": axis, "reduction": "none"}
    results = {name: getattr(crossent, name)(x, axis) for name in ("softmax", "log_softmax", "logsumexp")}
    for name in ("softmax", "log_softmax"):
        results[f"{name}_backward"] = getattr(crossent, f"{name}_backward")(other, results[name], axis)
    for name, options in {
        "index": {"target": target},
        "ignoring": {"target": ignoring, "weight": weight},
        "smoothed": {"target": target, "label_smoothing": 0.1, "weight": weight},
        "probabilities": {"target": probabilities},
    }.items():
        results[f"{name} loss alone"] = crossent.cross_entropy(x, **options, **loss)
        results[f"{name} loss"], results[f"{name} gradient"] = crossent.cross_entropy_value_and_grad(
            x, **options, **loss
        )
    results["token_log_probs"] = crossent.token_log_probs(x, target, axis)
    stats = crossent.logit_stats(x, target, axis, top_k=2)._asdict()
    results["divergence"], results["divergence gradient"] = crossent.kl_divergence_value_and_grad(x, other, **loss)
    return results | stats


def assert_columns_are_rows(columns, rows, note=""):
    for name, expected in rows.items():
        if expected is None:
            continue
        actual = columns[name]
        has_classes = actual.shape != expected.shape
        assert_same_bits(last(actual) if has_classes else actual, expected, f"{name}{note}")


@pytest.mark.parametrize("shape", SHAPES)
def test_every_function_gives_the_bits_of_contiguous_rows(shape, dtype):
    x, other = normal(shape, dtype), normal(shape, dtype, seed=1)
    assert_columns_are_rows(results_along(x, other, 1), results_along(last(x), last(other), -1))


@pytest.mark.parametrize("shape", SHAPES)
def test_samples_may_lie_anywhere(shape, dtype):
    """Backwards, every other one, at odd addresses, and elsewhere in each operand."""
    x, other = normal(shape, dtype), normal(shape, dtype, seed=1)
    expected = results_along(last(x), last(other), -1)
    wide = np.zeros((2 * shape[0], shape[1] + 1, shape[2] + 3), dtype)[::-2, 1:, 2:-1]
    wide[...] = x
    assert_columns_are_rows(results_along(wide, other, 1), expected, " of samples backwards")
    swapped = np.ascontiguousarray(other.transpose(1, 0, 2)).transpose(1, 0, 2)
    assert_columns_are_rows(results_along(x, swapped, 1), expected, " beside others in another order")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_out_is_written_and_nothing_beside_it(name, shape, dtype):
    function, x = getattr(crossent, name), normal(shape, dtype)
    expected = function(last(x))
    for source in ("elsewhere", "in place"):
        around = np.full((shape[0] + 2, shape[1] + 2, shape[2] + 7), 7, dtype)
        out = around[1:-1, 1:-1, 3:-4]
        out[...] = x
        function(x if source == "elsewhere" else out, 1, out=out)
        assert_same_bits(last(out), expected, source)
        out[...] = 7
        assert (around == np.asarray(7, dtype)).all(), source


def test_samples_along_two_axes(dtype):
    """That are not one to memory, backwards along one of them; more than a block of each."""
    x = normal((14, 8, 10, 48), dtype)[:, 6:0:-1]
    rows = np.ascontiguousarray(np.moveaxis(x, 2, -1))
    for name in ("softmax", "log_softmax"):
        result = getattr(crossent, name)(x, 2)
        assert_same_bits(np.ascontiguousarray(np.moveaxis(result, 2, -1)), getattr(crossent, name)(rows), name)
    assert_same_bits(crossent.logsumexp(x, 2), crossent.logsumexp(rows))


def test_operands_in_different_layouts(dtype):
    """One sample's gradient for all, rows beside columns, and a result in another order: each as it lies."""
    y = crossent.softmax(normal((50, 6, 20), dtype), 1)
    grad = np.broadcast_to(normal((1, 6, 20), dtype, seed=1), y.shape)
    expected = crossent.softmax_backward(last(grad), last(y))
    out = np.zeros((6, 20, 50), dtype).transpose(2, 0, 1)
    for given in (grad, np.moveaxis(last(grad), -1, 1)):
        assert_same_bits(last(crossent.softmax_backward(given, y, 1)), expected)
        assert_same_bits(last(crossent.softmax_backward(given, y, 1, out=out)), expected)


@pytest.mark.parametrize("shape", [(700, 10, 49), (5000, 2, 16), (400, 33, 130), (130, 1000, 17)])
def test_many_samples_on_threads(shape, dtype):
    """More than one block and one thread: blocks end in the middle of samples, and memory is asked for ahead."""
    x = normal(shape, dtype)
    rows = last(x)
    target = np.arange(shape[0] * shape[2]).reshape(shape[0], shape[2]) % shape[1]
    expected = crossent.cross_entropy_value_and_grad(rows, target, axis=-1)
    threads = crossent.get_num_threads()
    try:
        for n in (1, 2, 3):
            crossent.set_num_threads(n)
            assert_same_bits(last(crossent.softmax(x, 1)), crossent.softmax(rows))
            assert_same_bits(crossent.logsumexp(x, 1), crossent.logsumexp(rows))
            loss, gradient = crossent.cross_entropy_value_and_grad(x, target)
            assert_same_bits(last(gradient), expected[1])
            assert abs(loss - expected[0]) <= 4 * np.spacing(np.abs(expected[0]))
    finally:
        crossent.set_num_threads(threads)
