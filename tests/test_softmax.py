"""softmax, log_softmax and logsumexp: values, every kind of axis, keepdims, 0-d and empty arrays, out.

Special values are in test_special_values.py, memory layouts in test_layouts.py.
"""

import crossent
import numpy as np
import pytest
import reference
from helpers import FLOAT32, accumulator, assert_same_bits, assert_ulps, limit, normal

pytestmark = pytest.mark.usefixtures("simd")

AXES = {  # by rank: each single axis from both ends, tuples in any order, all axes
    1: [0, -1, None, (0,)],
    2: [0, 1, -1, -2, (0, 1), (1, 0), (-1,), None],
    3: [0, 1, 2, -3, (0, 2), (2, 0), (1, -1), (0, 1), (2, 1, 0), None],
    4: [1, (0, 3), (1, 2), (3, 1, 0)],
    5: [2, -1, (0, 2, 4), (1, 3), None],
}
SHAPES = {1: (11,), 2: (5, 7), 3: (3, 4, 5), 4: (2, 3, 4, 3), 5: (2, 3, 1, 4, 2)}
ARRAY_FUNCTIONS = ["softmax", "log_softmax"]
both_functions = pytest.mark.parametrize("name", ARRAY_FUNCTIONS)


def check(name, x, axis=-1, **options):
    """Compare one of the three functions with the oracle; return its result."""
    result = getattr(crossent, name)(x, axis, **options)
    expected = getattr(reference, name)(x, axis, **{k: v for k, v in options.items() if k != "out"})
    scale = reference.logsumexp_scale(x, axis, options.get("keepdims", False)) if name == "logsumexp" else None
    assert_ulps(result, expected, limit(name, x.dtype), scale, note=f"{name} {x.shape} axis={axis}")
    return result


@both_functions
@pytest.mark.parametrize("rank", AXES)
def test_every_axis(name, rank, dtype):
    for axis in AXES[rank]:
        result = check(name, normal(SHAPES[rank], dtype), axis)
        assert result.dtype == dtype


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("rank", AXES)
def test_every_axis_of_logsumexp(rank, keepdims, dtype):
    for axis in AXES[rank]:
        result = check("logsumexp", normal(SHAPES[rank], dtype), axis, keepdims=keepdims)
        assert result.dtype == accumulator(dtype)


@pytest.mark.parametrize("scale", [0.01, 1, 10, 100])
def test_every_class_count_and_scale(scale, dtype):
    for classes in [*range(1, 71), 100, 1000]:
        x = normal((3, classes), dtype, scale)
        for name in (*ARRAY_FUNCTIONS, "logsumexp"):
            check(name, x)


@both_functions
def test_default_axis_is_the_last(name, dtype):
    x = normal((3, 4, 5), dtype)
    assert_same_bits(getattr(crossent, name)(x), getattr(crossent, name)(x, axis=2))


def test_default_axis_of_logsumexp_is_the_last(dtype):
    x = normal((3, 4, 5), dtype)
    assert_same_bits(crossent.logsumexp(x), crossent.logsumexp(x, axis=2))


@pytest.mark.parametrize("axis", [0, -1, None])
def test_zero_dimensions_are_one_class(axis, dtype):
    x = np.array(2.5, dtype)
    assert np.asarray(crossent.softmax(x, axis)) == 1
    assert np.asarray(crossent.log_softmax(x, axis)) == 0
    assert np.asarray(crossent.logsumexp(x, axis)) == 2.5
    for name in (*ARRAY_FUNCTIONS, "logsumexp"):
        assert np.shape(getattr(crossent, name)(x, axis)) == ()


@pytest.mark.parametrize("keepdims", [False, True])
def test_one_class_is_certain(keepdims, dtype):
    x = normal((6, 1), dtype)
    assert (crossent.softmax(x) == 1).all()
    assert (crossent.log_softmax(x) == 0).all()
    result = crossent.logsumexp(x, keepdims=keepdims)
    np.testing.assert_array_equal(result, x.astype(result.dtype).reshape(result.shape))


@both_functions
@pytest.mark.parametrize(("shape", "axis"), [((0,), 0), ((3, 0), 1), ((0, 3), 0), ((2, 0, 3), (0, 1)), ((0, 0), None)])
@pytest.mark.no_kernel
def test_an_empty_axis_gives_an_empty_result(name, shape, axis, dtype):
    result = getattr(crossent, name)(np.zeros(shape, dtype), axis)
    assert result.shape == shape
    assert result.dtype == dtype


@pytest.mark.parametrize(("shape", "axis"), [((0,), 0), ((3, 0), 1), ((0, 3), 0), ((2, 0, 3), (0, 1)), ((2, 0), None)])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.no_kernel
def test_an_empty_axis_gives_logsumexp_minus_infinity(shape, axis, keepdims, dtype):
    result = np.asarray(crossent.logsumexp(np.zeros(shape, dtype), axis, keepdims=keepdims))
    assert result.shape == np.sum(np.zeros(shape), axis=axis, keepdims=keepdims).shape
    assert result.dtype == accumulator(dtype)
    assert (result == -np.inf).all()


@pytest.mark.parametrize(("shape", "axis"), [((0, 3), 1), ((3, 0, 2), 0), ((4, 5, 0), (0, 1))])
@pytest.mark.no_kernel
def test_an_empty_batch_is_ordinary(shape, axis, dtype):
    x = np.zeros(shape, dtype)
    assert crossent.softmax(x, axis).shape == shape
    assert crossent.log_softmax(x, axis).shape == shape
    assert crossent.logsumexp(x, axis).shape == x.sum(axis=axis).shape


@both_functions
@pytest.mark.parametrize("axis", [0, 1, (0, 2), None])
def test_out_receives_the_result_and_is_returned(name, axis, dtype):
    x = normal((3, 4, 5), dtype)
    out = np.full_like(x, 77)
    assert check(name, x, axis, out=out) is out
    assert_same_bits(out, getattr(crossent, name)(x, axis))


@both_functions
@pytest.mark.parametrize("axis", [0, -1, (0, 1), None])
def test_out_may_be_the_input(name, axis, dtype):
    for shape in [(3, 4, 5), (2, 3, 100)]:
        x = normal(shape, dtype)
        expected = getattr(crossent, name)(x, axis)
        assert getattr(crossent, name)(x, axis, out=x) is x
        assert_same_bits(x, expected)


@pytest.mark.parametrize("keepdims", [False, True])
def test_out_of_logsumexp(keepdims, dtype):
    x = normal((3, 4, 5), dtype)
    out = np.full((3, 1, 5) if keepdims else (3, 5), 77, accumulator(dtype))
    assert check("logsumexp", x, 1, keepdims=keepdims, out=out) is out


def test_out_of_zero_dimensions(dtype):
    x, out = normal((7,), dtype), np.array(77, accumulator(dtype))
    assert crossent.logsumexp(x, out=out) is out
    assert_same_bits(out, crossent.logsumexp(x))


@both_functions
@pytest.mark.parametrize("axis", [0, 1])
def test_float32_out_of_narrow_input_is_not_rounded(name, axis, narrow_dtype):
    x = normal((9, 33), narrow_dtype)
    out = np.full(x.shape, 77, FLOAT32)
    assert getattr(crossent, name)(x, axis, out=out) is out
    assert_ulps(out, getattr(reference, name)(x, axis), limit(name, FLOAT32))
    assert_same_bits(out.astype(narrow_dtype), getattr(crossent, name)(x, axis))


@both_functions
def test_the_input_is_left_alone(name, dtype):
    x = normal((4, 19), dtype)
    before = x.copy()
    getattr(crossent, name)(x)
    getattr(crossent, name)(x, axis=0)
    crossent.logsumexp(x)
    assert_same_bits(x, before)


def test_log_softmax_of_two_equal_logits_is_minus_log_2(dtype):
    finite = [0, 1, -1, 3.5, 1000, -1000, 6e4] + ([3e38, -3e38] if dtype.itemsize >= 4 else [])
    x = np.array([[c, c] for c in finite], dtype)
    assert_ulps(crossent.log_softmax(x), np.full(x.shape, -np.log(np.longdouble(2))), 1)
    assert (crossent.softmax(x) == 0.5).all()


# --- the same bits, whether vectors run along the classes or across the rows ------------------------------------------


@pytest.mark.parametrize("rows", [1, 3, 17])
def test_rows_have_the_bits_of_columns(rows, dtype):
    for classes in (*range(17, 200, 5), 82, 96, 225, 300):
        x = normal((rows, classes), dtype)
        columns = np.ascontiguousarray(x.T)
        for name in ("softmax", "log_softmax"):
            expected = np.ascontiguousarray(getattr(crossent, name)(columns, axis=0).T)
            assert_same_bits(getattr(crossent, name)(x), expected, f"{name} of {classes}")
        assert_same_bits(crossent.logsumexp(x), crossent.logsumexp(columns, axis=0), f"logsumexp of {classes}")


@pytest.mark.parametrize("places", [[0], [0, 200], [63, 64, 700], [0, 200, 1000, 1499]])
def test_maxima_anywhere_in_a_long_row(places, dtype):
    x = normal((17, 1500), dtype)
    x[:, places] = 20
    for name in ("softmax", "log_softmax", "logsumexp"):
        expected = getattr(crossent, name)(np.ascontiguousarray(x.T), axis=0).T
        assert_same_bits(getattr(crossent, name)(x), np.ascontiguousarray(expected), name)
