"""softmax_backward and log_softmax_backward: y (g - sum(g y)) and g - exp(y) sum(g), along every axis, and out."""

import crossent
import numpy as np
import pytest
import reference
from helpers import FLOAT32, FLOAT64, assert_same_bits, assert_ulps, bits, layouts, limit, normal, round_to

pytestmark = [
    pytest.mark.usefixtures("simd"),
    pytest.mark.parametrize("name", ["softmax", "log_softmax"]),
]


def forward(name, x, axis=-1):
    """y, from the oracle, so that an error of the forward function cannot hide one of the backward function."""
    return round_to(getattr(reference, name)(x, axis), x.dtype)


def backward(name):
    return getattr(crossent, f"{name}_backward")


def check(name, grad, y, axis=-1, **options):
    result = backward(name)(grad, y, axis, **options)
    gradient, scale = getattr(reference, f"{name}_backward")(grad, y, axis)
    assert_ulps(result, gradient, limit("mixed gradient", y.dtype), scale, note=f"{name} {y.shape} axis={axis}")
    return result


@pytest.mark.parametrize("shape", [(9,), (4, 7), (3, 4, 5), (2, 3, 4, 3), (2, 3, 1, 4, 2)])
def test_every_axis(name, shape, dtype):
    grad = normal(shape, dtype, seed=1)
    for axis in [*range(-len(shape), len(shape)), tuple(range(0, len(shape), 2)), None]:
        result = check(name, grad, forward(name, normal(shape, dtype), axis), axis)
        assert result.dtype == dtype


def test_every_class_count(name, dtype):
    for classes in [*range(1, 71), 100, 1000, 4097]:
        shape = (2, classes)
        check(name, normal(shape, dtype, seed=1), forward(name, normal(shape, dtype)))


def test_gradients_of_one_sign(name, dtype):
    grad = abs(normal((3, 50), dtype, seed=1))
    check(name, grad, forward(name, normal((3, 50), dtype)))


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((5, 21), -1), ((5, 21), 0), ((3, 2, 17), 1), ((3, 10, 49), 1)] + [((37, n), -1) for n in (10, 13, 40, 65, 300)],
)
def test_out_may_be_fresh_or_either_input(name, shape, axis, dtype):
    grad, y = normal(shape, dtype, seed=1), forward(name, normal(shape, dtype), axis)
    expected = check(name, grad, y, axis)
    for pick in (lambda _grad, _y: np.full(shape, 77, dtype), lambda grad, _y: grad, lambda _grad, y: y):
        inputs = grad.copy(), y.copy()
        out = pick(*inputs)
        assert backward(name)(*inputs, axis, out=out) is out
        assert_same_bits(out, expected)
        for array, before in zip(inputs, (grad, y), strict=True):
            assert array is out or bits(array) == bits(before)


# On both sides of every limit between the ways in which rows are taken, and between their last vectors.
@pytest.mark.parametrize("classes", [2, 4, 5, 8, 9, 11, 12, 16, 17, 29, 30, 33, 49, 64, 65, 130, 256, 257, 321])
def test_rows_have_the_bits_of_columns(name, classes, dtype):
    grad, y = normal((19, classes), dtype, seed=1), forward(name, normal((19, classes), dtype))
    expected = check(name, grad, y)
    columns = [np.ascontiguousarray(x.T) for x in (grad, y)]
    assert_same_bits(backward(name)(*columns, 0).T, expected)
    samples = [np.stack([x, x[:, ::-1]]) for x in columns]
    assert_same_bits(backward(name)(*samples, 1)[0].T, expected)
    wide = backward(name)(*(np.vstack([x, x]) for x in (grad, y)))
    assert_same_bits(wide, np.vstack([expected, expected]))


def test_one_array_may_be_both_inputs(name, dtype):
    y = forward(name, normal((4, 9), dtype))
    check(name, y, y)


def test_float32_out_of_narrow_input_is_not_rounded(name, narrow_dtype):
    grad, y = normal((4, 9), narrow_dtype, seed=1), forward(name, normal((4, 9), narrow_dtype))
    out = np.full(y.shape, 77, FLOAT32)
    assert backward(name)(grad, y, out=out) is out
    gradient, scale = getattr(reference, f"{name}_backward")(grad, y)
    assert_ulps(out, gradient, limit("mixed gradient", FLOAT32), scale)


def test_layouts_of_both_inputs(name, dtype):
    shape = (4, 3, 6)
    grad, y = normal(shape, dtype, seed=1), forward(name, normal(shape, dtype))
    for (layout, arranged_grad), (_, arranged_y) in zip(layouts(grad), reversed(list(layouts(y))), strict=True):
        result = backward(name)(arranged_grad, arranged_y)
        assert_ulps(result, *_limits(name, grad, y), note=layout)


def _limits(name, grad, y):
    gradient, scale = getattr(reference, f"{name}_backward")(grad, y)
    return gradient, limit("mixed gradient", y.dtype), scale


def test_a_broadcast_gradient(name, dtype):
    y = forward(name, normal((4, 9), dtype))
    for grad in (np.ones((1, 9), dtype), np.ones((4, 1), dtype), normal((1, 9), dtype)):
        check(name, np.broadcast_to(grad, y.shape), y)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
@pytest.mark.no_kernel
def test_empty_arrays(name, shape, dtype):
    assert backward(name)(np.zeros(shape, dtype), np.zeros(shape, dtype)).shape == shape


def test_zero_dimensions_are_one_class(name, dtype):
    y = np.array(1 if name == "softmax" else 0, dtype)
    result = backward(name)(np.array(2.5, dtype), y)
    assert np.shape(result) == ()
    assert np.asarray(result) == 0


def test_impossible_classes(name, dtype):
    """softmax: gradient 0 where y is 0; log_softmax: the formula, grad where y is -inf."""
    y = forward(name, np.array([[0.5, -np.inf, 1.5, -np.inf]], dtype))
    grad = np.array([[1, 2, 3, -4]], dtype)
    result = check(name, grad, y)
    np.testing.assert_array_equal(result[0, [1, 3]], [0, 0] if name == "softmax" else [2, -4])


def test_it_is_the_derivative(name):
    """Central differences of the forward function."""
    x, grad, step = normal((3, 6), FLOAT64, 1), normal((3, 6), FLOAT64, seed=1), 1e-6
    function = getattr(crossent, name)
    result = backward(name)(grad, function(x))
    for i in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[i] = step
        slope = ((function(x + shift) - function(x - shift)) * grad).sum() / (2 * step)
        assert abs(result[i] - slope) < 1e-8
