"""kl_divergence and its gradient: against the oracle, on all dtypes, layouts and special values, and their errors."""

import re

import crossent
import numpy as np
import pytest
import reference
from helpers import (
    FLOAT16,
    FLOAT32,
    FLOAT64,
    FORMATS,
    WIDE_IS_WIDER,
    accumulator,
    assert_same_bits,
    assert_ulps,
    layouts,
    limit,
    normal,
    outs,
    round_to,
    widen,
)
from test_token_log_probs import SHAPES

pytestmark = pytest.mark.usefixtures("simd")

INF, NAN = np.inf, np.nan
TEMPERATURES = [1.0, 2.0, 0.7]


def pair(shape, dtype, distance=1.0):
    """Logits, and the same with some noise."""
    p = normal(shape, dtype)
    return p, round_to(widen(p) + widen(normal(shape, FLOAT64, distance, seed=1)), dtype)


def check(p, q, axis=-1, temperature=1.0, note="", **options):
    """Assert divergence and gradient of every row, and that both calls give the same bits."""
    options = {"temperature": temperature, "reduction": "none"} | options
    values = crossent.kl_divergence(p, q, axis, **options)
    again, gradient = crossent.kl_divergence_value_and_grad(p, q, axis, **options)
    expected = reference.kl_divergence(p, q, axis, temperature)
    dtype = np.asarray(p).dtype
    assert np.asarray(values).dtype == accumulator(dtype)
    assert gradient.dtype == dtype
    assert_same_bits(again, values, note)
    assert_ulps(values, expected.values, limit("divergence", dtype), expected.scale, note)
    assert_ulps(gradient, expected.gradient, limit("mixed gradient", dtype) + 1, expected.gradient_scale, note)
    return values


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_every_shape_and_temperature(shape, axis, temperature, dtype):
    check(*pair(shape, dtype), axis, temperature)


@pytest.mark.parametrize("distance", [1e-3, 0.1, 10])
@pytest.mark.parametrize("classes", [2, 100, 9000])
def test_near_and_far_rows(distance, classes, dtype):
    for scale in (1, 30):
        p = normal((3, classes), dtype, scale)
        q = round_to(widen(p) + widen(normal((3, classes), FLOAT64, distance)), dtype)
        check(p, q, note=f"scale {scale}")
        check(q, p, note=f"scale {scale}, swapped")


def test_growing_maxima_keep_the_sums(wider_dtype):
    """Each block of a long row beats the ones before, in p, in q or in both."""
    blocks = [normal(4096, wider_dtype, seed=i) for i in range(4)]
    level = np.concatenate(blocks[::-1])
    for step in (0.1, 3, 500):
        rising = np.concatenate([b + wider_dtype.type(step * i) for i, b in enumerate(blocks)])
        for p, q in ((rising, level), (level, rising), (rising, rising[::-1].copy()), (rising, rising + level)):
            for temperature in TEMPERATURES[:2]:
                check(p, q, temperature=temperature, note=f"step {step}")


@pytest.mark.parametrize("classes", [1, 2, 10, 60, 5000])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_equal_logits_have_no_divergence_and_no_gradient(classes, temperature, dtype):
    p = normal((20, classes), dtype)
    p[3, classes // 2] = -INF if classes > 1 else 0
    for q in (p, p.copy(), np.asfortranarray(p)):
        values, gradient = crossent.kl_divergence_value_and_grad(p, q, temperature=temperature, reduction="none")
        assert (values == 0).all() and not np.signbit(values).any()
        assert not widen(gradient).any()


def test_it_is_never_negative(dtype):
    for classes in (2, 10, 100, 5000):
        p = normal((200, classes) if classes < 5000 else (10, classes), dtype)
        for size in (1e-7, 1e-4, 1e-2):
            q = round_to(widen(p) * (1 + size * widen(normal(p.shape, FLOAT64))), dtype)
            assert (crossent.kl_divergence(p, q, reduction="none") >= 0).all()


def test_impossible_classes(dtype):
    for classes in (4, 60, 5000):
        p, q = (np.zeros((4, classes), dtype) for _ in range(2))
        p[0, 1] = q[0, 1] = -INF  # excluded by both: adds nothing
        p[1, 1] = -INF  # by p alone: adds nothing
        q[2, 1] = -INF  # by q alone: infinite
        p[3, 0], p[3, 1], q[3, 1] = 3, -9999, -INF  # so small in p that it underflows: infinite all the same
        values = check(p, q)
        assert values[0] == 0
        assert 0 < values[1] < 1
        assert values[2] == values[3] == INF
        _, gradient = crossent.kl_divergence_value_and_grad(p, q, reduction="sum")
        assert np.isfinite(widen(gradient)).all()


def test_an_impossible_class_in_an_early_block_is_not_forgotten():
    p = np.zeros(20_000, FLOAT32)
    q = p.copy()
    q[5] = -INF
    for step in (0, 1, 1000):
        p[15_000:] = step
        assert crossent.kl_divergence(p, q) == INF
    q[:5000], p[:5000] = -INF, -INF
    check(p, q)


@pytest.mark.parametrize("classes", [3, 60, 5000])
@pytest.mark.parametrize("special", [NAN, INF, -INF])
def test_rows_that_cannot_be_normalized(classes, special, dtype):
    p, q = pair((5, classes), dtype)
    expected, expected_gradient = crossent.kl_divergence_value_and_grad(p, q, reduction="none")
    if special == -INF:
        p[1], q[3] = special, special
    else:
        p[1, -1], q[3, 0] = special, special
    values, gradient = crossent.kl_divergence_value_and_grad(p, q, reduction="none")
    assert np.isnan(values[[1, 3]]).all()
    assert np.isnan(widen(gradient[[1, 3]])).all()
    assert_same_bits(values[[0, 2, 4]], expected[[0, 2, 4]])
    assert_same_bits(gradient[[0, 2, 4]], expected_gradient[[0, 2, 4]])


def needs_wide(dtype):
    """The oracle has to have a larger range than the dtype."""
    if dtype == FLOAT64 and not WIDE_IS_WIDER:
        pytest.skip("long double is no wider than double here")


def test_huge_ranges_do_not_overflow(wider_dtype):
    largest = float(np.finfo(wider_dtype).max)
    p = np.array([[largest, -largest], [0, -largest]], wider_dtype)
    assert crossent.kl_divergence(p, p) == 0
    assert crossent.kl_divergence(p, p[::-1].copy(), reduction="sum") == 0


@pytest.mark.parametrize(
    ("classes", "place", "temperature"), [(2, 0, 1.0), (60, 59, 0.25), (1000, 500, 1.0), (5000, 4999, 4.0)]
)
def test_log_ratios_of_every_size_are_weighed(classes, place, temperature, dtype):
    """Also where a sum of exponentials times log-ratios leaves the range of the dtype, but the divergence does not."""
    needs_wide(dtype)
    last = 1 - FORMATS[dtype.name][1]  # exponent of the largest number
    confidences, exponents = (-90, -20, 0, 20), range(3, last, max(1, last // 7))
    rows = len(confidences) * len(exponents)
    p, q = normal((rows, classes), dtype), normal((rows, classes), dtype, seed=1)
    p[:, place] = np.repeat(confidences, len(exponents))  # in p a class all but impossible, ordinary or all but sure
    q[:, place] = np.tile([-(2.0**exponent) for exponent in exponents], len(confidences))
    check(p, q, temperature=temperature)


@pytest.mark.parametrize("classes", [2, 60, 1000, 9000])
def test_rows_that_span_the_range_of_the_dtype(classes, wider_dtype):
    needs_wide(wider_dtype)
    largest = float(np.finfo(wider_dtype).max)
    rng = np.random.default_rng(0)
    p = normal((6, classes), wider_dtype)
    q = (rng.uniform(-1, 1, p.shape) * largest).astype(wider_dtype)
    p[1] *= wider_dtype.type(largest / 100)
    p[2], q[2] = q[0], p[0]  # p has all its probability in one class
    p[3], q[3] = 0, np.where(np.arange(classes) == 0, -largest, largest)  # more than the range apart
    p[4, 0], q[4] = 40, np.where(np.arange(classes) == 0, -largest / 4, largest / 4)
    p[5, :-1], p[5, -1], q[5, 0], q[5, 1:] = -60, 60, -largest, largest
    check(p, q)
    check(p, p)
    p[0, 0], q[1, -1] = -INF, -INF
    check(p, q)


def test_adding_constants_exactly_changes_no_bit():
    for dtype, constant in ((FLOAT32, 2.0**10), (FLOAT64, 2.0**20)):
        p, q = (np.round(normal((5, 300), dtype, seed=i) * 64).astype(dtype) / dtype.type(64) for i in range(2))
        expected = crossent.kl_divergence_value_and_grad(p, q, reduction="none")
        shifted = crossent.kl_divergence_value_and_grad(p + dtype.type(constant), q, reduction="none")
        for result, alone in zip(shifted, expected, strict=True):
            assert_same_bits(result, alone)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reductions(reduction, dtype):
    p, q = pair((7, 30), dtype)
    values = crossent.kl_divergence(p, q, reduction="none")
    out = np.empty(p.shape, accumulator(dtype))  # not rounded to 16 bits
    total, _ = crossent.kl_divergence_value_and_grad(p, q, reduction=reduction, out=out)
    divisor = 7 if reduction == "mean" else 1
    assert isinstance(total, accumulator(dtype).type)
    assert_ulps(total, widen(values).sum() / divisor, 2)
    assert crossent.kl_divergence(p, q, reduction=reduction) == total
    expected = reference.kl_divergence(p, q)
    gradient, scale = expected.gradient / divisor, expected.gradient_scale / divisor
    assert_ulps(out, gradient, limit("mixed gradient", accumulator(dtype)) + 1, scale)


@pytest.mark.parametrize("count", [2, 1000])
def test_mean_is_finite_where_the_sum_of_float64_divergences_is_beyond_the_largest_number(count):
    p, q = np.tile([-1e308, 0], (count, 1)), np.tile([0, -1.7e308], (count, 1))
    assert crossent.kl_divergence(p, q, reduction="sum") == INF
    for mean in (crossent.kl_divergence(p, q), crossent.kl_divergence_value_and_grad(p, q)[0]):
        assert_ulps(mean, np.float64(1.7e308), 1)


@pytest.mark.no_kernel
def test_the_mean_of_no_rows_is_nan(dtype):
    p = np.zeros((0, 3), dtype)
    assert np.isnan(crossent.kl_divergence(p, p))
    assert crossent.kl_divergence(p, p, reduction="sum") == 0
    value, gradient = crossent.kl_divergence_value_and_grad(p, p, reduction="none")
    assert value.shape == (0,) and gradient.shape == (0, 3)
    assert crossent.kl_divergence(np.array(3, dtype), np.array(5, dtype)) == 0


def test_every_layout_gives_the_same_bits(dtype):
    for shape, axis in (((3, 4, 9), 1), ((2, 3, 70), 2), ((2, 60, 3), 1)):
        p, q = pair(shape, dtype)
        value, gradient = crossent.kl_divergence_value_and_grad(p, q, axis, reduction="none")
        for layout, moved in layouts(p):
            result = crossent.kl_divergence_value_and_grad(moved, q, axis, reduction="none")
            assert_same_bits(result[0], value, layout)
            assert_same_bits(result[1], gradient, layout)
        for layout, moved in layouts(q):
            assert_same_bits(crossent.kl_divergence(p, moved, axis, reduction="none"), value, layout)
        for layout, out in outs(shape, dtype):
            assert crossent.kl_divergence_value_and_grad(p, q, axis, reduction="sum", out=out)[1] is out
            assert_same_bits(out, gradient, layout)


def test_the_gradient_may_take_the_place_of_either_array(dtype):
    for shape in ((5, 9), (3, 100), (2, 5000)):
        p, q = pair(shape, dtype)
        value, gradient = crossent.kl_divergence_value_and_grad(p, q)
        for which in (0, 1):
            arrays = [p.copy(), q.copy()]
            again, _ = crossent.kl_divergence_value_and_grad(*arrays, out=arrays[which])
            assert_same_bits(again, value)
            assert_same_bits(arrays[which], gradient)


def test_a_float32_gradient_of_narrow_logits(narrow_dtype):
    p, q = pair((4, 300), narrow_dtype)
    out = np.empty(p.shape, FLOAT32)
    crossent.kl_divergence_value_and_grad(p, q, reduction="sum", out=out)
    expected = reference.kl_divergence(p, q)
    assert_ulps(out, expected.gradient, limit("mixed gradient", FLOAT32) + 1, expected.gradient_scale)


def test_mixed_dtypes_are_promoted():
    p, q = pair((4, 30), FLOAT16)
    value = crossent.kl_divergence(p, q.astype(FLOAT32))
    assert value == crossent.kl_divergence(p.astype(FLOAT32), q.astype(FLOAT32))
    assert crossent.kl_divergence(p, q.astype(FLOAT64)).dtype == FLOAT64


# --- errors -----------------------------------------------------------------------------------------------------------

P = normal((4, 5), FLOAT32)
CALLS = [crossent.kl_divergence, crossent.kl_divergence_value_and_grad]


@pytest.mark.no_kernel
@pytest.mark.parametrize("call", CALLS)
def test_arguments_that_do_not_fit(call):
    for bad in ((5, 4), (4,), (4, 5, 1), ()):
        with pytest.raises(ValueError, match=rf"(?s)q_logits .*{re.escape(str(bad))}.*\(4, 5\)"):
            call(P, np.zeros(bad, FLOAT32))
    for temperature in (0, -1.0, NAN, INF, 1e-40):
        with pytest.raises(ValueError, match="temperature"):
            call(P, P, temperature=temperature)
    with pytest.raises(TypeError, match="temperature"):
        call(P, P, temperature="hot")
    with pytest.raises(ValueError, match="reduction"):
        call(P, P, reduction="batchmean")
    with pytest.raises(ValueError, match="zero classes"):
        call(P[:, :0], P[:, :0])
    with pytest.raises(TypeError, match="q_logits .*complex"):
        call(P, P.astype(complex))
    with pytest.raises(np.exceptions.AxisError):
        call(P, P, 2)


@pytest.mark.no_kernel
def test_an_out_that_does_not_fit():
    for out in (np.full((5, 4), 77, FLOAT32), np.full((4, 5), 77.0)):
        with pytest.raises(ValueError, match="out has"):
            crossent.kl_divergence_value_and_grad(P, P, out=out)
        assert (out == 77).all()
    store = np.zeros((5, 5), FLOAT32)
    with pytest.raises(ValueError, match="overlaps q_logits"):
        crossent.kl_divergence_value_and_grad(P, store[:4], out=store[1:])
