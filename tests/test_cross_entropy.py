"""cross_entropy, its backward and the fused call: the full cross product of options against the oracle; axes; out.

The same cross product against PyTorch is in test_against_torch.py, special values in test_special_values.py.
"""

import functools

import crossent
import numpy as np
import pytest
import reference
from cases import KINDS, all_cases, assert_gradient, assert_losses, make_case, target_indices, target_probabilities
from helpers import FLOAT32, accumulator, assert_same_bits, assert_ulps, limit, normal

pytestmark = pytest.mark.usefixtures("simd")
kinds = pytest.mark.parametrize("kind", KINDS)


@functools.cache
def solved_cases(rank, dtype, kind):
    """All cases with the oracle's loss, gradient for case.grad, and gradient for the fused call (grad = 1)."""
    return [
        (case, solve(case), gradient_of(case, case.grad), gradient_of(case, ones(case)))
        for case in all_cases(rank, dtype, kind)
    ]


def ones(case):
    return np.ones_like(case.grad)


def solve(case):
    return reference.cross_entropy(case.logits, case.target, **case.all_options)


def gradient_of(case, grad):
    return reference.cross_entropy_backward(grad, case.logits, case.target, **case.all_options)


@kinds
@pytest.mark.parametrize("rank", range(1, 6))
def test_loss_and_gradient_of_every_combination(rank, kind, dtype):
    for case, loss, gradient, _ in solved_cases(rank, dtype, kind):
        arguments = case.logits, case.target
        assert_losses(crossent.cross_entropy(*arguments, **case.all_options), loss, case)
        assert_gradient(crossent.cross_entropy_backward(case.grad, *arguments, **case.all_options), gradient, case)


@kinds
@pytest.mark.parametrize("rank", range(1, 6))
def test_fused_call_of_every_combination(rank, kind, dtype):
    for case, loss, _, gradient in solved_cases(rank, dtype, kind):
        fused = crossent.cross_entropy_value_and_grad(case.logits, case.target, **case.all_options)
        assert isinstance(fused, tuple)
        assert_losses(fused[0], loss, case)
        assert_gradient(fused[1], gradient, case)


@kinds
@pytest.mark.parametrize("rank", range(1, 6))
def test_fused_call_equals_separate_calls(rank, kind, dtype):
    for case, *_ in solved_cases(rank, dtype, kind):
        arguments = case.logits, case.target
        loss, gradient = crossent.cross_entropy_value_and_grad(*arguments, **case.all_options)
        assert_same_bits(loss, crossent.cross_entropy(*arguments, **case.all_options), case.name)
        grad = np.ones_like(loss)
        assert_same_bits(gradient, crossent.cross_entropy_backward(grad, *arguments, **case.all_options), case.name)


@kinds
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_any_class_axis(axis, kind, dtype):
    logits = normal((4, 5, 6), dtype)
    batch = np.delete(logits.shape, axis)
    target = (
        target_indices(batch, logits.shape[axis])[0]
        if kind == "indices"
        else target_probabilities(logits.shape, axis, dtype)
    )
    for smoothing in (0.0, 0.2):
        options = {"axis": axis, "reduction": "none", "label_smoothing": smoothing}
        losses, gradient = crossent.cross_entropy_value_and_grad(logits, target, **options)
        assert losses.shape == tuple(batch)
        assert_ulps(losses, reference.cross_entropy(logits, target, **options), limit("loss", dtype))
        expected, scale = reference.cross_entropy_backward(np.ones(batch), logits, target, **options)
        assert_ulps(gradient, expected, limit("mixed gradient", dtype), scale)


def test_axis_none_is_pytorchs_rule(dtype):
    for shape, axis in [((5,), 0), ((4, 5), 1), ((4, 5, 3), 1), ((4, 5, 3, 2), 1)]:
        logits = normal(shape, dtype)
        target, _ = target_indices(np.delete(shape, axis), 5)
        assert_same_bits(crossent.cross_entropy(logits, target), crossent.cross_entropy(logits, target, axis=axis))


@pytest.mark.parametrize("classes", [*range(2, 40), 100, 1000, 4097])
def test_every_class_count(classes, dtype):
    logits = normal((3, classes), dtype)
    target = np.array([0, classes // 2, classes - 1])
    losses, gradient = crossent.cross_entropy_value_and_grad(logits, target, reduction="none")
    assert_ulps(losses, reference.cross_entropy(logits, target, reduction="none"), limit("loss", dtype))
    expected, _ = reference.cross_entropy_backward(np.ones(3), logits, target, reduction="none")
    assert_ulps(gradient, expected, limit("mixed gradient", dtype))


def test_one_hot_probabilities_are_class_indices(dtype):
    logits, target = normal((6, 7), dtype), np.array([0, 6, 3, 3, 1, 2])
    for smoothing in (0.0, 0.3):
        options = {"reduction": "none", "label_smoothing": smoothing}
        losses, gradient = crossent.cross_entropy_value_and_grad(logits, np.eye(7)[target].astype(dtype), **options)
        assert_ulps(losses, reference.cross_entropy(logits, target, **options), limit("loss", dtype))
        expected, _ = reference.cross_entropy_backward(np.ones(6), logits, target, **options)
        assert_ulps(gradient, expected, limit("mixed gradient", dtype), scale=np.ones((6, 7)))


@kinds
def test_out_of_the_gradient_fresh_or_in_place(kind, dtype):
    for case, *_ in solved_cases(3, dtype, kind):
        _, expected = crossent.cross_entropy_value_and_grad(case.logits, case.target, **case.all_options)
        for make_out in (lambda x: np.full_like(x, 77), lambda x: x):
            x = case.logits.copy()
            out = make_out(x)
            _, gradient = crossent.cross_entropy_value_and_grad(x, case.target, **case.all_options, out=out)
            assert gradient is out
            assert_same_bits(out, expected, case.name)
            x = case.logits.copy()
            out = make_out(x)
            grad = np.ones_like(case.grad)
            assert crossent.cross_entropy_backward(grad, x, case.target, **case.all_options, out=out) is out
            assert_same_bits(out, expected, case.name)


@pytest.mark.parametrize("classes", [5, 200, 1000, 5000])
def test_out_may_be_the_target_probabilities_themselves(classes, dtype):
    out_dtype = accumulator(dtype)
    logits, probabilities = normal((3, classes), dtype), target_probabilities((3, classes), 1, out_dtype)
    for options in ({}, {"label_smoothing": 0.1}, {"weight": np.linspace(0.5, 2, classes)}):
        expected = np.empty((3, classes), out_dtype)
        crossent.cross_entropy_value_and_grad(logits, probabilities, **options, out=expected)
        out = probabilities.copy()
        crossent.cross_entropy_value_and_grad(logits, out, **options, out=out)
        assert_same_bits(out, expected, str(options))


@kinds
def test_float32_gradient_of_narrow_input_is_not_rounded(kind, narrow_dtype):
    for reduction in ("none", "mean"):
        case = make_case(3, narrow_dtype, kind, weighted=True, ignoring="default", smoothing=0.1, reduction=reduction)
        out = np.full(case.logits.shape, 77, FLOAT32)
        crossent.cross_entropy_value_and_grad(case.logits, case.target, **case.all_options, out=out)
        gradient, scale = gradient_of(case, ones(case))
        assert_ulps(out, gradient, limit("mixed gradient", FLOAT32), scale)


@kinds
def test_inputs_are_left_alone(kind, dtype):
    case = make_case(3, dtype, kind, weighted=True, ignoring="default", smoothing=0.1, reduction="mean")
    arrays = [case.logits, case.target, case.options["weight"]]
    before = [array.copy() for array in arrays]
    crossent.cross_entropy_value_and_grad(case.logits, case.target, **case.all_options)
    for array, copy in zip(arrays, before, strict=True):
        assert_same_bits(array, copy)


@kinds
@pytest.mark.no_kernel
def test_empty_batches(kind, dtype):
    logits = np.zeros((0, 3), dtype)
    target = np.zeros(0, int) if kind == "indices" else np.zeros((0, 3), dtype)
    losses = crossent.cross_entropy(logits, target, reduction="none")
    assert losses.shape == (0,)
    assert losses.dtype == accumulator(dtype)
    assert crossent.cross_entropy(logits, target, reduction="sum") == 0
    loss, gradient = crossent.cross_entropy_value_and_grad(logits, target)
    assert np.isnan(loss)
    assert loss.dtype == accumulator(dtype)
    assert gradient.shape == (0, 3)
    assert crossent.cross_entropy_backward(1.0, logits, target).shape == (0, 3)


def test_nothing_left_to_average_is_nan_with_gradient_0(dtype):
    logits = normal((3, 4), dtype)
    weight = np.array([0, 1, 1, 1], FLOAT32)
    for target, options in (([-100] * 3, {}), ([2] * 3, {"ignore_index": 2}), ([0] * 3, {"weight": weight})):
        loss, gradient = crossent.cross_entropy_value_and_grad(logits, target, **options)
        assert np.isnan(loss), options
        assert not gradient.any(), options
        assert not crossent.cross_entropy_backward(1.0, logits, target, **options).any(), options


def test_ignore_index_holds_for_indices_alone(dtype):
    logits, target = normal((4, 5), dtype), target_probabilities((4, 5), 1, dtype)
    for ignore_index in (0, 1, -100, 4):
        loss = crossent.cross_entropy(logits, target, ignore_index=ignore_index)
        assert_same_bits(loss, crossent.cross_entropy(logits, target))


def test_gradient_is_the_derivative():
    step = 1e-6
    for kind in KINDS:
        case = make_case(
            2, np.dtype(np.float64), kind, weighted=True, ignoring="default", smoothing=0.1, reduction="mean"
        )
        logits = case.logits
        _, gradient = crossent.cross_entropy_value_and_grad(logits, case.target, **case.all_options)
        for i in np.ndindex(logits.shape):
            shift = np.zeros_like(logits)
            shift[i] = step
            up, down = (crossent.cross_entropy(logits + s, case.target, **case.all_options) for s in (shift, -shift))
            assert abs(gradient[i] - (up - down) / (2 * step)) < 1e-8, (kind, i)
