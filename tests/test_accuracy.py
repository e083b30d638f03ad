"""Maximal errors in ULP over the families of rows that other libraries get wrong (families.py), on every instruction set.

The table of limits is helpers.LIMITS; bench/accuracy.py measures the maxima, beside those of other libraries. The oracle is
checked against mpmath in test_reference.py.
"""

import crossent
import numpy as np
import pytest
import reference
from cases import assert_index_gradient
from families import (
    LONG,
    MIXTURES,
    ROWS,
    SUBNORMAL,
    expected,
    expected_losses,
    expected_mixed_losses,
    expected_reductions,
    rows_of,
)
from helpers import (
    FLOAT32,
    FLOAT64,
    accumulator,
    assert_same_bits,
    assert_ulps,
    is_narrow,
    limit,
    normal,
    round_to,
    spacing,
    widen,
)

pytestmark = pytest.mark.usefixtures("simd")

every_kind = pytest.mark.parametrize("kind", ROWS)


@every_kind
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_array_functions(name, kind, dtype):
    for rows, exact in zip(rows_of(kind, dtype), expected(name, kind, dtype), strict=True):
        note = f"{kind} {rows.shape}"
        result = getattr(crossent, name)(rows)
        assert_ulps(result, exact, limit(name, dtype), note=note)
        columns = getattr(crossent, name)(np.ascontiguousarray(rows.T), axis=0)
        assert_ulps(columns.T, exact, limit(name, dtype), note=f"{note} along axis 0")
        in_place = rows.copy()
        assert_same_bits(getattr(crossent, name)(in_place, out=in_place), result, f"{note} in place")


@every_kind
def test_logsumexp(kind, dtype):
    for rows, exact in zip(rows_of(kind, dtype), expected("logsumexp", kind, dtype), strict=True):
        scale = reference.logsumexp_scale(rows)
        assert_ulps(crossent.logsumexp(rows), exact, limit("logsumexp", dtype), scale, kind)
        columns = crossent.logsumexp(np.ascontiguousarray(rows.T), axis=0)
        assert_ulps(columns, exact, limit("logsumexp", dtype), scale, f"{kind} along axis 0")


def columns_of(rows):
    """The same rows, side by side in memory."""
    return np.ascontiguousarray(rows.T).T


@every_kind
def test_cross_entropy_and_its_gradient(kind, dtype):
    for rows, target, _, exact_losses, exact, _ in expected_losses(kind, dtype):
        losses, gradient = crossent.cross_entropy_value_and_grad(rows, target, reduction="none")
        note = f"{kind} {rows.shape} target {target}"
        assert_ulps(losses, exact_losses, limit("loss", dtype), note=note)
        assert_same_bits(crossent.cross_entropy(rows, target, reduction="none"), losses, note)
        assert_index_gradient(gradient, exact, target, note)
        in_place = rows.copy()
        crossent.cross_entropy_value_and_grad(in_place, target, reduction="none", out=in_place)
        assert_same_bits(in_place, gradient, f"{note} in place")
        losses, gradient = crossent.cross_entropy_value_and_grad(columns_of(rows), target, reduction="none")
        assert_ulps(losses, exact_losses, limit("loss", dtype), note=f"{note} in columns")
        assert_index_gradient(gradient, exact, target, f"{note} in columns")


def assert_mixed(solved, kind):
    """A loss that mixes the classes, and its gradient: within the limits, in place and in columns, with rows that sum to 0."""
    rows, target, options, exact_losses, exact, scale = solved
    dtype, options = rows.dtype, {**options, "reduction": "none"}
    note = f"{kind} {rows.shape} {options}"
    layouts = {"rows": (rows, target)}
    if rows.size <= LONG:  # longer ones are gathered into rows
        layouts["columns"] = columns_of(rows), columns_of(target) if target.ndim == 2 else target
    for layout, arguments in layouts.items():
        losses, gradient = crossent.cross_entropy_value_and_grad(*arguments, **options)
        assert_ulps(losses, exact_losses, limit("loss", dtype), note=f"{note} {layout}")
        assert_ulps(gradient, exact, limit("mixed gradient", dtype), scale, f"{note} {layout}")
        in_place = arguments[0].copy()
        crossent.cross_entropy_value_and_grad(in_place, target, **options, out=in_place)
        assert_same_bits(in_place, gradient, f"{note} {layout} in place")
        if not is_narrow(dtype):
            assert_sums_to_0(gradient, scale.sum(axis=1), f"{note} {layout}")


@every_kind
def test_smoothed_cross_entropy_and_its_gradient(kind, dtype):
    for solved in expected_losses(kind, dtype, 0.1):
        assert_mixed(solved, kind)


@every_kind
@pytest.mark.parametrize("mixture", MIXTURES)
def test_cross_entropy_of_mixed_classes_and_its_gradient(mixture, kind, dtype):
    for solved in expected_mixed_losses(kind, dtype, mixture):
        assert_mixed(solved, kind)


def test_smoothed_gradients_at_a_target_of_weight_0_and_subnormal_probability(wider_dtype):
    """All of such a gradient is a probability times the sum of weights, which once multiplied what was rounded already."""
    lowest, highest = SUBNORMAL[wider_dtype.name]
    x = np.zeros((200, 3), wider_dtype)
    x[:, 1] = np.linspace(lowest, highest, len(x))
    weight = np.array([14, 0, 3], wider_dtype)
    target = np.ones(len(x), int)
    options = {"weight": weight, "label_smoothing": 0.9, "reduction": "none"}
    exact, scale = reference.cross_entropy_backward(np.ones(len(x)), x, target, **options)
    _, gradient = crossent.cross_entropy_value_and_grad(x, target, **options)
    assert_ulps(gradient, exact, limit("mixed gradient", wider_dtype), scale)


@pytest.mark.parametrize("samples", [3, 7, 49])
def test_gradients_of_impossible_classes_are_their_targets_over_the_samples(samples):
    """-q / samples in float32, but 1 / samples in float64: gcc 12 once took for 0 what rounding that to float32 leaves."""
    x = np.full((samples, 64), -np.inf, FLOAT32)
    x[:, 0] = 0
    q = np.random.default_rng(0).uniform(1, 2, x.shape).astype(FLOAT32)
    gradient = crossent.cross_entropy_backward(1, x, q)
    assert_ulps(gradient[:, 1:], -widen(q[:, 1:]) / samples, 1.01)


@every_kind
def test_float32_results_of_16_bit_rows_are_not_rounded(kind, narrow_dtype):
    for name in ("softmax", "log_softmax"):
        for rows, exact in zip(rows_of(kind, narrow_dtype), expected(name, kind, narrow_dtype), strict=True):
            result = getattr(crossent, name)(rows, out=np.empty(rows.shape, FLOAT32))
            assert_ulps(result, exact, limit(name, FLOAT32), note=f"{name} {kind} {rows.shape}")
    for rows, target, _, _, exact, _ in expected_losses(kind, narrow_dtype):
        gradient = np.empty(rows.shape, FLOAT32)
        crossent.cross_entropy_value_and_grad(rows, target, reduction="none", out=gradient)
        assert_index_gradient(gradient, exact, target, f"{kind} {rows.shape}")


def assert_sums_to_0(gradient, sizes, note):
    sums = widen(gradient).sum(axis=1)
    subnormal = gradient.shape[1] * spacing(0, gradient.dtype)  # what the roundings of subnormals may add up to
    possible = np.isfinite(sizes)
    assert (abs(sums) <= limit("gradient sum", gradient.dtype) * sizes + subnormal)[possible].all(), note


@every_kind
def test_gradients_of_a_row_sum_to_0(kind, wider_dtype):
    for rows, target, *_ in expected_losses(kind, wider_dtype):
        _, gradient = crossent.cross_entropy_value_and_grad(rows, target, reduction="none")
        assert_sums_to_0(gradient, abs(widen(gradient)).sum(axis=1), f"{kind} {rows.shape}")


def test_confident_losses_keep_their_relative_accuracy(wider_dtype):
    for rows, target, _, exact, *_ in expected_losses("confident", wider_dtype):
        losses = widen(crossent.cross_entropy(rows, target, reduction="none"))
        normal_range = exact > np.finfo(wider_dtype).tiny
        assert (abs(losses - exact) <= limit("confident", wider_dtype) * exact)[normal_range].all(), rows.shape


def test_reduced_losses(dtype):
    for logits, target, exact in expected_reductions(dtype):
        for reduction in exact:
            loss = crossent.cross_entropy(logits, target, reduction=reduction)
            assert_ulps(loss, exact[reduction], limit("reduced loss", dtype), note=f"{reduction} {logits.shape}")


# --- sums over classes ------------------------------------------------------------------------------------------------

TINY = {"float16": -8, "bfloat16": -16, "float32": -20, "float64": -40}  # exp of it vanishes beside 1 in that dtype


def assert_first_and_rest(result, exact_first, exact_rest, ulps, note):
    """`result` must have exact_first in its first place and exact_rest in all others, of which the extremes are compared."""
    first, rest = result.ravel()[:1], result.ravel()[1:]
    assert_ulps(first, [exact_first], ulps[0], note=f"{note}, first class")
    assert_ulps(np.array([rest.min(), rest.max()]), [exact_rest] * 2, ulps[1], note=f"{note}, the other classes")


def assert_large_row(classes, dtype, arrange, axis):
    """All functions of a row of equal logits, and of one large and many tiny terms, laid out by `arrange`."""
    for gap in (0, TINY[dtype.name]):
        power = np.exp(np.longdouble(gap))
        rest = (classes - 1) * power
        log_rest, note = np.log1p(rest), f"{classes} classes {gap} below the first along {axis}"
        row = arrange(np.full(classes, gap, dtype))
        row[(0,) * row.ndim] = 0
        assert_ulps(np.ravel(crossent.logsumexp(row, axis)), [log_rest], limit("logsumexp", dtype), note=note)
        both = 2 * [limit("log_softmax", dtype)]
        assert_first_and_rest(crossent.log_softmax(row, axis), -log_rest, gap - log_rest, both, f"log_softmax {note}")
        p = crossent.softmax(row, axis)
        assert_first_and_rest(p, 1 / (1 + rest), power / (1 + rest), 2 * [limit("softmax", dtype)], f"softmax {note}")
        loss, gradient = crossent.cross_entropy_value_and_grad(row.reshape(1, -1), [0])
        assert_ulps(loss, log_rest, limit("loss", dtype), note=note)
        ulps = limit("gradient at target", dtype), limit("gradient off target", dtype)
        assert_first_and_rest(gradient, -rest / (1 + rest), power / (1 + rest), ulps, f"gradient {note}")


ARRANGEMENTS = {
    "last": (lambda row: row[None], -1),
    "first": (lambda row: row[:, None], 0),
    "middle": (lambda row: row.reshape(4, -1, 1), (0, 1)),
    "all": (lambda row: row.reshape(2, -1, 2), None),
}


@pytest.mark.parametrize("place", ARRANGEMENTS)
def test_one_large_and_many_tiny_or_only_equal_terms(place, dtype):
    """Each tiny term alone would vanish beside the largest; together they do not."""
    for classes in (1000, 2**18):
        assert_large_row(classes, dtype, *ARRANGEMENTS[place])


@pytest.mark.slow
@pytest.mark.parametrize("place", ARRANGEMENTS)
def test_sums_of_2_to_the_25_classes(place, dtype):
    assert_large_row(2**25, dtype, *ARRANGEMENTS[place])


MANY_CLASSES = pytest.mark.parametrize("classes", [1000, 2**18, pytest.param(2**25, marks=pytest.mark.slow)])


@MANY_CLASSES
def test_columns_of_many_classes(classes, dtype):
    """Two rows that lie side by side: one large and many tiny terms, and equal logits."""
    gap = TINY[dtype.name]
    x = np.zeros((classes, 2), dtype)
    x[1:, 1] = gap
    power, rest = np.exp(np.longdouble(gap)), np.array([classes - 1, (classes - 1) * np.exp(np.longdouble(gap))])
    exact = np.log1p(rest)
    assert_ulps(crossent.logsumexp(x, axis=0), exact, limit("logsumexp", dtype))
    both = 2 * [limit("softmax", dtype)]
    p = crossent.softmax(x, axis=0)
    for column, own in ((0, 1), (1, power)):
        assert_first_and_rest(p[:, column], 1 / (1 + rest[column]), own / (1 + rest[column]), both, f"column {column}")
    log_p = crossent.log_softmax(x, axis=0)
    for column, distance in ((0, 0), (1, gap)):
        both = 2 * [limit("log_softmax", dtype)]
        assert_first_and_rest(log_p[:, column], -exact[column], distance - exact[column], both, f"column {column}")
    losses, gradient = crossent.cross_entropy_value_and_grad(x, [0, 0], axis=0, reduction="none")
    assert_ulps(losses, exact, limit("loss", dtype))
    ulps = limit("gradient at target", dtype), limit("gradient off target", dtype)
    for column, own in ((0, 1), (1, power)):
        at_target = -rest[column] / (1 + rest[column])
        assert_first_and_rest(gradient[:, column], at_target, own / (1 + rest[column]), ulps, f"column {column}")


@MANY_CLASSES
def test_mixed_losses_of_many_classes(classes, dtype):
    """Equal logits, smoothed and with uniform probabilities: each class has the same share and probability."""
    x, uniform = np.zeros((1, classes), dtype), np.full((1, classes), 1 / classes, accumulator(dtype))
    share = widen(uniform[0, 0])
    for target, smoothing, total in (([7], 1.0, np.longdouble(1)), (uniform, 0.0, classes * share)):
        options = {"label_smoothing": smoothing, "reduction": "none"}
        losses, gradient = crossent.cross_entropy_value_and_grad(x, target, **options)
        assert_ulps(
            losses, [total * np.log(np.longdouble(classes))], limit("loss", dtype), note=f"smoothing {smoothing}"
        )
        extremes = np.array([gradient.min(), gradient.max()])
        assert_ulps(extremes, 2 * [total / classes - share], limit("mixed gradient", dtype), [share] * 2)


def test_equal_16_bit_logits(narrow_dtype):
    assert crossent.logsumexp(np.zeros(131072, narrow_dtype)) == np.float32(np.log(131072))
    assert (crossent.softmax(np.full(512, -2.5, narrow_dtype)) == narrow_dtype.type(1 / 512)).all()


# --- constants added to all logits ------------------------------------------------------------------------------------


def results_that_keep_their_bits(x, target):
    """{function: result}: what a constant added to all logits must not change."""
    losses, gradient = crossent.cross_entropy_value_and_grad(x, target, reduction="none")
    results = {
        "softmax": crossent.softmax(x),
        "log_softmax": crossent.log_softmax(x),
        "loss": crossent.cross_entropy(x, target, reduction="none"),
        "fused loss": losses,
        "gradient": gradient,
        "token log-probabilities": np.take_along_axis(crossent.log_softmax(x), target[:, None], axis=1),
    }
    for name, of_classes in (("smoothed", target), ("probabilities", np.full(x.shape, 1 / x.shape[1], np.float32))):
        options = {"reduction": "none", "label_smoothing": 0.125}
        results[f"{name} loss"], results[f"{name} gradient"] = crossent.cross_entropy_value_and_grad(
            x, of_classes, **options
        )
    return results


# Numbers of steps of 1 / the first, and constants whose sums with them are exact; of 16 bits, and of more.
EXACT_SUMS_16_BITS = [(4, (1, -8, 16))]
EXACT_SUMS = [(1024, (1, -0.75, 64, -1000, 4096)), (4096, (3 / 4096, -999.75)), (2**18, (3 / 4096, -7 / 2**18, 0.25))]


@pytest.mark.parametrize("axis", [1, 0])
@pytest.mark.parametrize("classes", [2, 3, 16, 33, 1000, 50257])
def test_results_keep_their_bits_when_a_constant_is_added_exactly(classes, axis, dtype):
    target = np.array([0, 1, classes - 1, classes // 2, classes // 3])

    def results(logits):
        rounded = round_to(logits, dtype)
        assert (widen(rounded) == logits).all(), "the test's own sums must be exact"
        laid_out = rounded if axis == 1 else np.ascontiguousarray(rounded.T).T
        return results_that_keep_their_bits(laid_out, target)

    for steps, constants in EXACT_SUMS_16_BITS if is_narrow(dtype) else EXACT_SUMS:
        x = np.round(np.clip(normal((5, classes), FLOAT64), -7, 7) * steps) / steps
        x[0, 0] = 7.5  # a confident row
        before = results(x)
        for constant in constants:
            for name, after in results(x + constant).items():
                assert_same_bits(after, before[name], f"{name} {constant}")


def random_finite(dtype, count):
    """Finite numbers with random bits: every magnitude that the dtype has."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    if is_narrow(dtype):
        values = np.arange(65536, dtype=unsigned).view(dtype)
    else:
        values = np.random.default_rng(0).integers(0, np.iinfo(unsigned).max, count, unsigned).view(dtype)
    return values[np.isfinite(widen(values))]


def test_log_softmax_of_two_equal_logits_is_minus_log_2(dtype):
    pairs = np.repeat(random_finite(dtype, 100_000)[:, None], 2, axis=1)
    assert_ulps(crossent.log_softmax(pairs), np.full(pairs.shape, -np.log(np.longdouble(2))), 1)
    losses = crossent.cross_entropy(pairs, np.zeros(len(pairs), int), reduction="none")
    assert_ulps(losses, np.full(len(pairs), np.log(np.longdouble(2))), 1)
    assert (widen(crossent.softmax(pairs)) == 0.5).all()
