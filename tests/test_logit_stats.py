"""logit_stats against the oracle: every field, on all dtypes, layouts and special values, and its errors."""

import re

import crossent
import numpy as np
import pytest
import reference
from helpers import FLOAT32, FLOAT64, accumulator, assert_same_bits, assert_ulps, layouts, limit, normal, widen
from test_accuracy import rows_of
from test_token_log_probs import SHAPES, choose

pytestmark = pytest.mark.usefixtures("simd")

KINDS = {"max": None, "log_sum": "loss", "entropy": "entropy", "target_log_prob": "token log-prob"}
KINDS |= {"argmax": None, "target_rank": None, "top_indices": None, "top_log_probs": "token log-prob"}
INF, NAN = np.inf, np.nan


def assert_stats(stats, logits, target=None, axis=-1, top_k=0, note=""):
    """Assert every field: exact, or within the ULP of its kind."""
    expected = reference.logit_stats(logits, target, axis, top_k)
    for name, kind in KINDS.items():
        actual = getattr(stats, name)
        if name not in expected:
            assert actual is None, name
        elif kind is None:
            np.testing.assert_array_equal(widen(actual), expected[name], err_msg=f"{name} {note}")
        else:
            assert_ulps(actual, expected[name], limit(kind, logits.dtype), note=f"{name} {note}")
        integers = name in ("argmax", "target_rank", "top_indices")
        assert actual is None or np.asarray(actual).dtype == (np.int64 if integers else accumulator(logits.dtype))


def assert_same_stats(actual, expected, note="", rows=slice(None)):
    for name, field in expected._asdict().items():
        if field is not None:
            assert_same_bits(getattr(actual, name), field[rows], f"{name} {note}")


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("top_k", [0, 1, 5, "all"])
@pytest.mark.parametrize("with_target", [False, True])
def test_every_field(shape, axis, top_k, with_target, dtype):
    logits = normal(shape, dtype)
    top_k = shape[axis] if top_k == "all" else top_k
    target = choose(logits, axis) if with_target else None
    assert_stats(crossent.logit_stats(logits, target, axis, top_k=top_k), logits, target, axis, top_k)


@pytest.mark.parametrize("kind", ["normal", "confident", "tied", "shifted", "impossible", "wide"])
def test_accuracy(kind, wider_dtype):
    for rows in rows_of(kind, wider_dtype):
        if rows.size > 100_000:
            continue  # longer rows are those of the test below
        target = rows.argmin(axis=1)
        stats = crossent.logit_stats(rows, target, top_k=2)
        assert_stats(stats, rows, target, top_k=2, note=f"{kind} {rows.shape}")


def test_a_growing_maximum_keeps_the_sums(wider_dtype):
    """Each block of a long row beats the ones before, by little, by much, and by more than exp can span."""
    for step in (0.1, 3, 50, 500):
        row = np.concatenate([normal(4096, wider_dtype) + wider_dtype.type(step * i) for i in range(4)])
        for logits in (row, row[::-1].copy()):
            stats = crossent.logit_stats(logits, 4095, top_k=3)
            assert_stats(stats, logits, np.array(4095), top_k=3, note=f"step {step}")


@pytest.mark.parametrize("classes", [2, 16, 17, 49, 100, 4097, 9000])
def test_top_k_of_every_size(classes, dtype):
    logits = normal((3, classes), dtype)
    for top_k in (1, 2, 8, 16, 17, classes - 1, classes):
        if 0 < top_k <= classes:
            assert_stats(crossent.logit_stats(logits, top_k=top_k), logits, top_k=top_k, note=f"top {top_k}")


@pytest.mark.parametrize("distinct", [1, 2, 5])
@pytest.mark.parametrize("classes", [3, 40, 100, 5000])
def test_ties_go_to_the_lower_class(distinct, classes, dtype):
    """Whole numbers in random order, with -inf as the lowest."""
    values = np.arange(distinct, dtype=np.float32) - 1
    values[0] = -INF if distinct > 1 else 3
    rows = 17 if classes < 1000 else 3
    logits = np.random.default_rng(0).choice(values, (rows, classes)).astype(dtype)
    logits[:, classes // 2] = 3
    target = choose(logits, 1)
    for axis, arranged in ((1, logits), (0, np.asfortranarray(logits).T)):
        top_k = min(classes, 20)
        stats = crossent.logit_stats(arranged, target, axis, top_k=top_k)
        assert_stats(stats, arranged, target, axis, top_k)


def test_fewer_possible_classes_than_k(dtype):
    for classes in (5, 60, 10_000):
        logits = np.full((2, classes), -INF, dtype)
        logits[0, classes - 2] = 1
        assert_stats(crossent.logit_stats(logits, [1, 1], top_k=4), logits, np.array([1, 1]), top_k=4)


@pytest.mark.parametrize("classes", [1, 5, 60, 5000])
def test_rows_that_cannot_be_normalized(classes, dtype):
    rows = [normal(classes, dtype) for _ in range(5)]
    rows[1][:] = -INF
    rows[2][classes // 2] = INF
    rows[3][classes // 2] = NAN
    rows[3][-1] = NAN
    rows[4][0] = INF
    rows[4][classes // 3] = NAN
    logits, target = np.stack(rows), np.full(5, classes - 1)
    stats = crossent.logit_stats(logits, target, top_k=min(classes, 3))
    assert_stats(stats, logits, target, top_k=min(classes, 3))
    assert stats.log_sum[1:3].tolist() == [0, 0]
    assert stats.max[1] == -INF and stats.max[2] == INF and np.isnan(stats.max[3:]).all()
    assert np.isnan([stats.entropy[1:], stats.target_log_prob[1:], stats.top_log_probs[1:, 0]]).all()
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(stats.argmax, np.argmax(widen(logits), axis=1))


def test_impossible_classes_add_nothing_to_the_entropy(dtype):
    logits = np.array([[0, 0, -INF, -INF], [3, -INF, -INF, -INF], [0, 0, 0, 0]], dtype)
    entropy = crossent.logit_stats(logits).entropy
    assert_ulps(entropy, np.log(np.array([2, 1, 4], np.longdouble)), 1)
    assert entropy[1] == 0


def test_the_scores_agree_with_the_other_functions(dtype):
    for classes in (7, 100, 20_000):
        logits = normal((4, classes), dtype)
        target = choose(logits, 1)
        stats = crossent.logit_stats(logits, target, top_k=3)
        assert_ulps(stats.target_log_prob, widen(crossent.token_log_probs(logits, target)), 2)
        assert_ulps(stats.top_log_probs, widen(crossent.token_log_probs(logits, stats.top_indices)), 2)
        sums = widen(stats.max) + widen(stats.log_sum)
        assert_ulps(crossent.logsumexp(logits), sums, limit("logsumexp", dtype), widen(stats.max))


def test_every_layout_gives_the_same_bits(dtype):
    for shape, axis in (((3, 4, 9), 1), ((2, 3, 70), 2), ((5, 3, 2), 0), ((2, 60, 3), 1)):
        logits = normal(shape, dtype)
        target = choose(logits, axis)
        expected = crossent.logit_stats(logits, target, axis, top_k=2)
        for layout, arranged in layouts(logits):
            assert_same_stats(crossent.logit_stats(arranged, target, axis, top_k=2), expected, layout)
        for layout, arranged in layouts(target):
            assert_same_stats(crossent.logit_stats(logits, arranged, axis, top_k=2), expected, layout)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_special_rows_give_the_same_in_every_layout(classes, dtype):
    """NaN and infinities at any place, among as many rows as a tile takes and more."""
    logits = normal((40, classes), dtype)
    for place in range(classes):
        for row, special in enumerate((np.nan, np.inf, -np.inf)):
            logits[3 * place + row, place] = special
    logits[-1], logits[-2] = np.nan, -np.inf
    expected = crossent.logit_stats(logits, np.arange(40) % classes, top_k=2)
    for layout, arranged in layouts(logits):
        stats = crossent.logit_stats(arranged, np.arange(40) % classes, top_k=2)
        for name, value in stats._asdict().items():
            np.testing.assert_array_equal(value, getattr(expected, name), f"{name} {layout}")


@pytest.mark.parametrize("classes", [3, 40, 60, 4097])
def test_a_row_does_not_depend_on_the_others_or_on_what_is_asked(classes, dtype):
    logits = normal((37, classes), dtype)
    target = choose(logits, 1)
    expected = crossent.logit_stats(logits, target, top_k=3)
    for first, last in ((0, 1), (3, 12), (20, 37)):
        rows = slice(first, last)
        assert_same_stats(crossent.logit_stats(logits[rows], target[rows], top_k=3), expected, rows=rows)
    bare = crossent.logit_stats(logits)
    for name in ("max", "log_sum", "argmax", "entropy"):
        assert_same_bits(getattr(bare, name), getattr(expected, name))


def test_adding_a_constant_exactly_changes_no_bit():
    for dtype, constant in ((FLOAT32, 2.0**10), (FLOAT64, 2.0**20)):
        logits = np.round(normal((5, 300), dtype) * 64).astype(dtype) / dtype.type(64)
        target = choose(logits, 1)
        shifted = crossent.logit_stats(logits + dtype.type(constant), target, top_k=4)
        expected = crossent.logit_stats(logits, target, top_k=4)
        assert_same_stats(shifted._replace(max=expected.max), expected)


def test_a_maximum_of_zeros_of_both_signs_is_positive(dtype):
    for classes in (8, 40, 300):
        logits = np.where(np.random.default_rng(0).random((31, classes)) < 0.5, 0.0, -0.0).astype(dtype)
        for arranged in (logits, np.asfortranarray(logits), logits[:1], -logits):
            assert not np.signbit(crossent.logit_stats(arranged).max).any()


@pytest.mark.no_kernel
def test_one_row_gives_scalars_and_no_rows_empty_arrays(dtype):
    one = crossent.logit_stats(np.array([1, 3, 2], dtype), 0, top_k=2)
    assert isinstance(one.max, accumulator(dtype).type)
    assert isinstance(one.argmax, np.int64)
    assert (one.argmax, one.target_rank, one.top_indices.tolist()) == (1, 2, [1, 2])
    certain = crossent.logit_stats(np.array(2, dtype), top_k=1)
    assert (certain.max, certain.log_sum, certain.entropy, certain.top_log_probs.tolist()) == (2, 0, 0, [0])
    none = crossent.logit_stats(np.zeros((2, 0, 3), dtype), np.zeros((2, 0), int), top_k=2)
    assert none.entropy.shape == (2, 0) and none.top_indices.shape == (2, 0, 2)


# --- errors -----------------------------------------------------------------------------------------------------------

LOGITS = normal((2, 3, 5), FLOAT32)


@pytest.mark.no_kernel
@pytest.mark.parametrize("bad_shape", [(2,), (3, 2), (2, 3, 5), (2, 5), ()])
def test_a_target_that_does_not_fit(bad_shape):
    with pytest.raises(ValueError, match=rf"(?s){re.escape(str(bad_shape))}.*\(2, 3, 5\).*class axis 2.*\(2, 3\)"):
        crossent.logit_stats(LOGITS, np.zeros(bad_shape, int))


@pytest.mark.no_kernel
@pytest.mark.parametrize("bad", [5, -1, -100])
def test_a_target_out_of_range(bad):
    target = np.zeros((2, 3), int)
    target[1, 0] = bad
    with pytest.raises(IndexError, match=rf"target {bad} at position \(1, 0\).*C = 5"):
        crossent.logit_stats(LOGITS, target)


@pytest.mark.no_kernel
@pytest.mark.parametrize("bad", [6, 2**40, 2**63, -1])
def test_a_top_k_out_of_range(bad):
    with pytest.raises(ValueError, match="top_k"):
        crossent.logit_stats(LOGITS, top_k=bad)


@pytest.mark.no_kernel
def test_wrong_dtypes_and_axes():
    with pytest.raises(TypeError, match="target .*integer"):
        crossent.logit_stats(LOGITS, np.zeros((2, 3)))
    with pytest.raises(TypeError, match="logits .*complex"):
        crossent.logit_stats(LOGITS.astype(complex))
    with pytest.raises(TypeError):
        crossent.logit_stats(LOGITS, top_k=1.5)
    with pytest.raises(np.exceptions.AxisError):
        crossent.logit_stats(LOGITS, axis=3)
    with pytest.raises(ValueError, match="zero classes"):
        crossent.logit_stats(np.zeros((2, 0)))
