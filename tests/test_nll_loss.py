"""nll_loss and nll_loss_backward: the full cross product of options, dtypes and ranks against the oracle; out."""

import math

import crossent
import numpy as np
import pytest
import reference
from cases import all_cases, assert_gradient, assert_losses, make_case
from helpers import FLOAT32, assert_same_bits, assert_ulps, normal, outs, widen

# nll_loss reads one element a row and has no kernel; only the comparisons with log_softmax run one.
pytestmark = [pytest.mark.usefixtures("simd"), pytest.mark.no_kernel]


def log_probs_of(case):
    """Log-probabilities in the dtype of the logits."""
    return crossent.log_softmax(case.logits, axis=1 if case.logits.ndim > 1 else 0)


@pytest.mark.parametrize("rank", range(1, 6))
def test_loss_and_gradient_of_every_combination(rank, dtype):
    for case in all_cases(rank, dtype, "indices", smoothings=(0.0,)):
        log_probs = log_probs_of(case)
        loss = crossent.nll_loss(log_probs, case.target, **case.options)
        assert_losses(loss, reference.nll_loss(log_probs, case.target, **case.options), case, kind="product")
        gradient = crossent.nll_loss_backward(case.grad, log_probs, case.target, **case.options)
        expected = reference.nll_loss_backward(case.grad, log_probs, case.target, **case.options)
        assert_gradient(gradient, expected, case, kind="product")


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_any_class_axis(axis, dtype):
    log_probs = crossent.log_softmax(normal((4, 4, 4), dtype), axis)
    target = np.arange(16).reshape(4, 4) % 4
    losses = crossent.nll_loss(log_probs, target, reduction="none", axis=axis)
    picked = -np.take_along_axis(log_probs, np.expand_dims(target, axis), axis).squeeze(axis)
    np.testing.assert_array_equal(widen(losses), widen(picked))
    gradient = crossent.nll_loss_backward(np.ones((4, 4), losses.dtype), log_probs, target, reduction="none", axis=axis)
    one_hot = np.moveaxis(np.eye(4)[target], -1, axis)
    np.testing.assert_array_equal(widen(gradient), -one_hot)


def test_the_input_need_not_be_log_probabilities(dtype):
    """Positive and large entries are taken as they are, as in PyTorch."""
    x = np.array([[3, -2], [1000, 5]], dtype)
    np.testing.assert_array_equal(widen(crossent.nll_loss(x, [0, 0], reduction="none")), [-3, -1000])


def test_other_classes_are_not_read(dtype):
    x = np.array([[np.nan, -1], [np.inf, -2], [-np.inf, -3]], dtype)
    np.testing.assert_array_equal(crossent.nll_loss(x, [1, 1, 1], reduction="none"), [1, 2, 3])
    assert crossent.nll_loss(x, [1, 1, 1]) == 2


def test_ignored_samples_are_not_read(dtype):
    x = np.array([[np.nan, np.inf], [-1, -2]], dtype)
    np.testing.assert_array_equal(crossent.nll_loss(x, [-100, 1], reduction="none"), [0, 2])
    assert crossent.nll_loss(x, [-100, 1]) == 2
    gradient = crossent.nll_loss_backward(1.0, x, [-100, 1])
    np.testing.assert_array_equal(widen(gradient), [[0, 0], [0, -1]])


def test_special_log_probabilities_at_the_target(dtype):
    x = np.array([[-np.inf, 0], [np.nan, 0], [0, 0]], dtype)
    np.testing.assert_array_equal(crossent.nll_loss(x, [0, 0, 0], reduction="none"), [np.inf, np.nan, 0])
    np.testing.assert_array_equal(widen(crossent.nll_loss_backward(1.0, x[:1], [0])), [[-1, 0]])


def test_weight_0_times_minus_infinity_is_0(dtype):
    x = np.array([[-np.inf, -1], [-1, -2]], dtype)
    weight = np.array([0, 2], FLOAT32)
    np.testing.assert_array_equal(crossent.nll_loss(x, [0, 1], weight=weight, reduction="none"), [0, 4])
    assert crossent.nll_loss(x, [0, 1], weight=weight) == 2


def test_out_of_the_gradient_fresh_or_in_place(dtype):
    for case in all_cases(3, dtype, "indices", smoothings=(0.0,)):
        x = log_probs_of(case)
        expected = crossent.nll_loss_backward(case.grad, x, case.target, **case.options)
        for out in (np.full_like(x, 77), x):
            result = crossent.nll_loss_backward(case.grad, x, case.target, **case.options, out=out)
            assert result is out
            assert_same_bits(out, expected, case.name)


# Rows of some blocks: contiguous; in spans that are shorter than a block, as long, longer; and more than one dimension of them.
@pytest.mark.parametrize("shape", [(1300, 6), (40, 7, 49), (5, 3, 512), (2, 5, 700), (11, 3, 13, 7)])
def test_the_gradient_is_0_beside_the_targets_wherever_rows_lie(shape, dtype):
    target = np.arange(np.prod(shape) // shape[1]).reshape(shape[0], *shape[2:]) * 7 % shape[1]
    target[::9] = -100
    x = np.zeros(shape, dtype)
    classes = np.arange(shape[1]).reshape(-1, *[1] * (len(shape) - 2))
    expected = np.where(np.expand_dims(target, 1) == classes, -2.0, 0.0)
    for name, out in outs(shape, dtype):
        crossent.nll_loss_backward(2.0, x, target, reduction="sum", out=out)
        np.testing.assert_array_equal(widen(out), expected, name)


def test_threads_change_no_bit_of_the_loss():
    """More samples than one thread takes."""
    x = normal((150_000, 3), FLOAT32)
    target = np.arange(len(x)) % 3
    expected = -x[np.arange(len(x)), target]
    previous = crossent.get_num_threads()
    try:
        for threads in (1, 3):
            crossent.set_num_threads(threads)
            assert_same_bits(crossent.nll_loss(x, target, reduction="none"), expected)
            assert crossent.nll_loss(x, target) == np.float32(math.fsum(expected.tolist()) / len(x))
    finally:
        crossent.set_num_threads(previous)


def test_float32_gradient_of_narrow_input_is_not_rounded(narrow_dtype):
    case = make_case(3, narrow_dtype, "indices", weighted=True, ignoring="default", smoothing=0.0, reduction="mean")
    out = np.full(case.logits.shape, 77, FLOAT32)
    crossent.nll_loss_backward(case.grad, case.logits, case.target, **case.options, out=out)
    gradient, _ = reference.nll_loss_backward(case.grad, case.logits, case.target, **case.options)
    assert_ulps(out, gradient, 2)


@pytest.mark.no_kernel
def test_empty_batches(dtype):
    x, target = np.zeros((0, 3), dtype), np.zeros(0, int)
    assert crossent.nll_loss(x, target, reduction="none").shape == (0,)
    assert crossent.nll_loss(x, target, reduction="sum") == 0
    assert np.isnan(crossent.nll_loss(x, target))
    assert crossent.nll_loss_backward(1.0, x, target).shape == (0, 3)


@pytest.mark.no_kernel
def test_empty_samples(dtype):
    """Strides that say nothing, and a dimension of length 0 between others."""
    flat = np.ndarray((1, 3, 0), dtype, bytearray(8), strides=(0, 0, np.dtype(dtype).itemsize))
    for x in (flat, np.zeros((2, 3, 5, 24), dtype)[:, :, :0, :20]):
        target = np.zeros((x.shape[0], *x.shape[2:]), int)
        for out in (None, x):
            assert crossent.nll_loss_backward(1.0, x, target, out=out).shape == x.shape
