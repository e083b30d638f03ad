"""token_log_probs: log_softmax at chosen classes, against the oracle, in every layout and dtype, and its errors."""

import re

import crossent
import numpy as np
import pytest
import reference
from helpers import (
    FLOAT32,
    FLOAT64,
    accumulator,
    assert_same_bits,
    assert_ulps,
    available_dtypes,
    layouts,
    limit,
    normal,
    outs,
)
from test_accuracy import rows_of

pytestmark = pytest.mark.usefixtures("simd")

INDEX_DTYPES = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
SHAPES = [((7,), -1), ((5, 9), -1), ((5, 9), 0), ((2, 9, 4), 1), ((2, 3, 4, 50), -1), ((2, 70, 3), 1), ((4, 5000), -1)]


def choose(logits, axis, classes=None, seed=0):
    """An index for each row, or `classes` of them."""
    shape = np.delete(logits.shape, axis)
    if classes is not None:
        shape = (*shape, classes)
    return np.random.default_rng(seed).integers(0, logits.shape[axis], tuple(int(n) for n in shape))


def assert_scores(actual, logits, index, axis=-1, note=""):
    expected = reference.token_log_probs(logits, index, axis)
    assert np.asarray(actual).dtype == accumulator(logits.dtype)
    assert_ulps(actual, expected, limit("token log-prob", logits.dtype), note=note)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("classes", [None, 1, 3])
def test_one_or_several_classes_of_each_row(shape, axis, classes, dtype):
    logits = normal(shape, dtype)
    index = choose(logits, axis, classes)
    assert_scores(crossent.token_log_probs(logits, index, axis), logits, index, axis)


@pytest.mark.parametrize("kind", ["normal", "confident", "tied", "shifted", "impossible", "wide"])
def test_accuracy(kind, wider_dtype):
    for rows in rows_of(kind, wider_dtype):
        classes = rows.shape[1]
        index = np.tile(np.unique([0, rows[0].argmax(), classes // 3, classes - 1]), (len(rows), 1))
        assert_scores(crossent.token_log_probs(rows, index), rows, index, note=f"{kind} {rows.shape}")


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES)
def test_every_integer_dtype_of_the_index(index_dtype):
    logits = normal((4, 6), FLOAT32)
    expected = crossent.token_log_probs(logits, [5, 0, 2, 1])
    assert_same_bits(crossent.token_log_probs(logits, np.array([5, 0, 2, 1], index_dtype)), expected)


def test_every_layout_gives_the_same_bits(dtype):
    for shape, axis in (((3, 4, 9), 1), ((2, 3, 70), 2), ((5, 3, 2), 0)):
        logits = normal(shape, dtype)
        index = choose(logits, axis, 2)
        expected = crossent.token_log_probs(logits, index, axis)
        for layout, arranged in layouts(logits):
            assert_same_bits(crossent.token_log_probs(arranged, index, axis), expected, layout)
        for layout, arranged in layouts(index):
            assert_same_bits(crossent.token_log_probs(logits, arranged, axis), expected, layout)
        for layout, out in outs(index.shape, accumulator(dtype)):
            assert crossent.token_log_probs(logits, index, axis, out=out) is out
            assert_same_bits(out, expected, layout)


def test_a_row_does_not_depend_on_the_others(dtype):
    for classes in (3, 40, 60, 5000):
        logits = normal((21, classes), dtype)
        index = choose(logits, 1)
        expected = crossent.token_log_probs(logits, index)
        for first, last in ((0, 1), (3, 12), (20, 21)):
            assert_same_bits(crossent.token_log_probs(logits[first:last], index[first:last]), expected[first:last])


def test_adding_a_constant_exactly_changes_no_bit():
    for dtype, constant in ((FLOAT32, 2.0**10), (FLOAT64, 2.0**20)):
        logits = np.round(normal((5, 300), dtype) * 64).astype(dtype) / dtype.type(64)
        index = choose(logits, 1, 4)
        shifted = crossent.token_log_probs(logits + dtype.type(constant), index)
        assert_same_bits(shifted, crossent.token_log_probs(logits, index))


def test_adding_a_constant_of_many_bits_exactly_changes_no_bit():
    """Where exponentials are taken relative to a maximum that is no multiple of what the constant is."""
    distances = np.round(np.random.default_rng(0).uniform(5, 28, 20000) * 2**15) / 2**15
    for first, constant in ((-3, 3 * 2.0**-12), (1 + 2.0**-11, 2.0**-10), (2.0**-9, 5 * 2.0**-13)):
        logits = np.stack([np.full(20000, first), first - distances], axis=1)
        for dtype in (FLOAT32, FLOAT64):
            assert (logits.astype(dtype) == logits).all() and (
                (logits + constant).astype(dtype) == logits + constant
            ).all()
            for function in (crossent.log_softmax, crossent.softmax, crossent.logit_stats):
                before, after = (function(x.astype(dtype)) for x in (logits, logits + constant))
                if function is crossent.logit_stats:
                    before, after = before.log_sum, after.log_sum
                assert_same_bits(after, before, f"{function.__name__} {constant}")


def test_in_place(wider_dtype):
    """`out` may be the logits, where there is an index for each class: a row is read before it is written."""
    for layout, logits in layouts(normal((6, 50), wider_dtype)):
        if not logits.flags.writeable or not logits.dtype.isnative:
            continue
        index = choose(logits, 1, 50)
        expected = crossent.token_log_probs(logits.copy(), index)
        crossent.token_log_probs(logits, index, out=logits)
        assert_same_bits(logits, expected, layout)


def test_special_values(dtype):
    for classes in (4, 100):
        rows = np.zeros((5, classes), dtype)
        rows[1, 1], rows[2], rows[3, 2], rows[4, 1] = np.nan, -np.inf, np.inf, -np.inf
        scores = crossent.token_log_probs(rows, [[0, 1, 2]] * 5)
        assert np.isnan(scores[1:4]).all()
        assert scores[4, 1] == -np.inf
        assert_scores(scores[[0, 4]], rows[[0, 4]], np.array([[0, 1, 2]] * 2))


def test_a_certain_class_has_log_probability_0(dtype):
    score = crossent.token_log_probs(np.array([-np.inf, 3], dtype), 1)
    assert score == 0 and not np.signbit(score)


@pytest.mark.no_kernel
def test_empty_batches_and_scalars(dtype):
    assert crossent.token_log_probs(np.zeros((0, 3), dtype), np.zeros(0, int)).shape == (0,)
    assert crossent.token_log_probs(np.zeros((2, 0, 3), dtype), np.zeros((2, 0, 4), int)).shape == (2, 0, 4)
    assert crossent.token_log_probs(np.zeros((2, 3), dtype), np.zeros((2, 0), int)).shape == (2, 0)
    assert crossent.token_log_probs(np.array(3, dtype), 0) == 0
    assert crossent.token_log_probs(np.array(3, dtype), [0, 0]).tolist() == [0, 0]
    assert isinstance(crossent.token_log_probs(np.zeros(3, dtype), 0), accumulator(dtype).type)


# --- errors -----------------------------------------------------------------------------------------------------------

LOGITS = normal((2, 3, 5), FLOAT32)
INDEX = np.zeros((2, 3), int)


@pytest.mark.no_kernel
@pytest.mark.parametrize("bad_shape", [(2,), (3, 2), (2, 3, 5, 1), (2, 4), (2, 5), ()])
def test_an_index_that_does_not_fit(bad_shape):
    out = np.full(bad_shape, 77, FLOAT32)
    message = rf"(?s){re.escape(str(bad_shape))}.*\(2, 3, 5\).*\(2, 3\).*\(2, 3, K\)"
    with pytest.raises(ValueError, match=message):
        crossent.token_log_probs(LOGITS, np.zeros(bad_shape, int), out=out)
    assert (out == 77).all()


@pytest.mark.no_kernel
@pytest.mark.parametrize("bad", [5, -1, -100, 2**40])
def test_an_index_out_of_range(bad):
    index, out = INDEX.copy(), np.full(INDEX.shape, 77, FLOAT32)
    index[1, 2] = bad
    with pytest.raises(IndexError, match=rf"index {bad} at position \(1, 2\).*C = 5"):
        crossent.token_log_probs(LOGITS, index, out=out)
    assert (out == 77).all()
    several = np.zeros((2, 3, 4), np.uint64)
    several[0, 1, 3] = 2**64 - 100
    with pytest.raises(IndexError, match=rf"index {2**64 - 100} at position \(0, 1, 3\)"):
        crossent.token_log_probs(LOGITS, several)


@pytest.mark.no_kernel
def test_wrong_dtypes_axes_and_outs():
    with pytest.raises(TypeError, match="index must .*integer"):
        crossent.token_log_probs(LOGITS, np.zeros((2, 3)))
    with pytest.raises(TypeError, match="logits .*complex"):
        crossent.token_log_probs(LOGITS.astype(complex), INDEX)
    with pytest.raises(np.exceptions.AxisError):
        crossent.token_log_probs(LOGITS, INDEX, 3)
    with pytest.raises(TypeError):
        crossent.token_log_probs(LOGITS, INDEX, (0, 1))
    with pytest.raises(ValueError, match=r"zero classes"):
        crossent.token_log_probs(np.zeros((2, 0)), [0, 0])
    with pytest.raises(ValueError, match=r"(?s)out has shape \(3, 2\).*\(2, 3\)"):
        crossent.token_log_probs(LOGITS, INDEX, out=np.zeros((3, 2), FLOAT32))
    with pytest.raises(ValueError, match="out has dtype float64.*float32"):
        crossent.token_log_probs(LOGITS, INDEX, out=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="overlaps logits"):
        crossent.token_log_probs(LOGITS, INDEX, out=LOGITS[:, :, 0])


def test_the_answer_fits_the_loss():
    for dtype in available_dtypes():
        logits = normal((8, 30), dtype)
        index = choose(logits, 1)
        loss = crossent.cross_entropy(logits, index, reduction="none")
        assert_ulps(-crossent.token_log_probs(logits, index), loss, 1)
