"""The section Errors of the interface: which exception, what its message says, and that `out` is untouched by it.

Hostile input ends in an exception that names the argument's fault, never in a crash.
"""

import re

import crossent
import numpy as np
import pytest
from helpers import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, accumulator, assert_same_bits, normal

pytestmark = [pytest.mark.usefixtures("simd"), pytest.mark.no_kernel]

X = normal((4, 5), FLOAT32)
TARGET = np.array([0, 4, 2, 2])


def out_functions():
    """(name, call(out)) of everything that takes an `out` of X's shape."""
    losses = {"reduction": "mean"}
    return {
        "softmax": lambda out, x=X: crossent.softmax(x, out=out),
        "log_softmax": lambda out, x=X: crossent.log_softmax(x, out=out),
        "softmax_backward": lambda out, x=X: crossent.softmax_backward(x, x, out=out),
        "log_softmax_backward": lambda out, x=X: crossent.log_softmax_backward(x, x, out=out),
        "nll_loss_backward": lambda out, x=X: crossent.nll_loss_backward(1.0, x, TARGET, **losses, out=out),
        "cross_entropy_backward": lambda out, x=X: crossent.cross_entropy_backward(1.0, x, TARGET, **losses, out=out),
        "value_and_grad": lambda out, x=X: crossent.cross_entropy_value_and_grad(x, TARGET, **losses, out=out),
    }


every_out = pytest.mark.parametrize("call", out_functions().values(), ids=out_functions())


def loss_functions(backward=True, nll=True):
    """call(logits, target, **options) for each loss and gradient; `out` is a sentinel array that must survive errors."""
    calls = [crossent.cross_entropy]
    if nll:
        calls.append(crossent.nll_loss)
    if backward:
        for function in [crossent.cross_entropy_backward] + [crossent.nll_loss_backward] * nll:
            calls.append(lambda x, t, function=function, **options: function(1.0, x, t, **options))
        calls.append(crossent.cross_entropy_value_and_grad)
    return calls


every_loss = pytest.mark.parametrize("loss", loss_functions())
every_cross_entropy = pytest.mark.parametrize("loss", loss_functions(nll=False))


def says(*parts):
    """A pattern for a message that holds every part, whatever their order."""
    return "(?s)" + "".join(f"(?=.*{part})" for part in parts)


def shape(*numbers):
    return re.escape(str(tuple(numbers)))


# --- out --------------------------------------------------------------------------------------------------------------


@every_out
@pytest.mark.parametrize("bad_shape", [(5, 4), (4,), (4, 5, 1), (1, 4, 5), (4, 6), (0,), ()])
def test_out_of_another_shape(call, bad_shape):
    out = np.full(bad_shape, 77, FLOAT32)
    with pytest.raises(ValueError, match=says(shape(*bad_shape), shape(4, 5))):
        call(out)
    assert (out == 77).all()


@every_out
@pytest.mark.parametrize("bad_dtype", ["float64", "float16", "int32", "complex64", "bool"])
def test_out_of_another_dtype(call, bad_dtype):
    out = np.ones((4, 5), bad_dtype)
    with pytest.raises(ValueError, match=says(bad_dtype, "float32")):
        call(out)
    assert (out == 1).all()


@every_out
def test_out_of_another_dtype_for_narrow_input(call):
    for x, bad_dtype in ((X.astype(FLOAT16), FLOAT64), (X.astype(FLOAT64), FLOAT32), (X.astype(FLOAT64), FLOAT16)):
        with pytest.raises(ValueError, match=str(bad_dtype)):
            call(np.zeros((4, 5), bad_dtype), x)
    if BFLOAT16 is not None:
        with pytest.raises(ValueError, match="bfloat16"):
            call(np.zeros((4, 5), BFLOAT16), X.astype(FLOAT16))


def test_out_of_logsumexp(dtype):
    x = normal((4, 5), dtype)
    for bad_shape in ((5,), (4, 1), (4, 5), ()):
        with pytest.raises(ValueError, match=says(re.escape(str(bad_shape)), shape(4))):
            crossent.logsumexp(x, out=np.zeros(bad_shape, accumulator(dtype)))
    with pytest.raises(ValueError, match=shape(4, 1)):
        crossent.logsumexp(x, keepdims=True, out=np.zeros(4, accumulator(dtype)))
    wrong = FLOAT64 if accumulator(dtype) == FLOAT32 else FLOAT32
    with pytest.raises(ValueError, match=str(wrong)):
        crossent.logsumexp(x, out=np.zeros(4, wrong))
    if dtype.itemsize == 2:
        with pytest.raises(ValueError, match="float32"):
            crossent.logsumexp(x, out=np.zeros(4, dtype))


@every_out
def test_out_that_is_read_only(call):
    out = np.full_like(X, 77)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="(?i)writ|read-only"):
        call(out)
    assert (out == 77).all()


@every_out
def test_out_that_is_no_array(call):
    for out in ([[0.0] * 5] * 4, "out", 1.0, object(), memoryview(bytearray(80))):
        with pytest.raises((TypeError, ValueError)):
            call(out)


@every_out
def test_out_that_overlaps_the_input_otherwise_than_element_for_element(call):
    store = np.arange(60, dtype=FLOAT32)
    x = store[20:40].reshape(4, 5)
    overlapping = {
        "shifted by one": store[21:41].reshape(4, 5),
        "shifted by a row": store[15:35].reshape(4, 5),
        "reversed": x[::-1],
        "reversed classes": x[:, ::-1],
        "Fortran": store[20:40].reshape(5, 4).T,
        "spread": store[20:60:2].reshape(4, 5),
        "shifted by a byte": store.view(np.uint8)[81:161].view(FLOAT32).reshape(4, 5),
    }
    before = store.copy()
    for name, out in overlapping.items():
        with pytest.raises(ValueError, match="(?i)overlap|memory"):
            call(out, x)
        assert_same_bits(store, before, name)


@every_out
def test_out_that_interleaves_with_the_input_but_shares_no_element(call):
    store = np.tile(np.arange(10, dtype=FLOAT32), (8, 1))
    expected = np.full((4, 5), 77, FLOAT32)
    call(expected, np.ascontiguousarray(store[:4, :5]))
    for pick_x, pick_out in (
        (lambda s: s[:4, :5], lambda s: s[:4, 5:]),
        (lambda s: s[::2, :5], lambda s: s[1::2, :5]),
    ):
        array = store.copy()
        call(pick_out(array), pick_x(array))
        assert_same_bits(pick_out(array), expected)


def strided(store, shape, *strides):
    """As `shape`, from the first element on, with strides in bytes."""
    return np.lib.stride_tricks.as_strided(store, shape, strides)


@every_out
@pytest.mark.parametrize(
    "strides", [(4, 4), (20, 0), (0, 4), (16, 4), (4, 12), (8, 8), (20, 2), (1, 4), (-4, 4), (16, -4)]
)
def test_out_that_overlaps_itself(call, strides):
    store = np.full(100, 77, FLOAT32)
    with pytest.raises(ValueError, match=says("out overlaps itself", shape(4, 5), shape(*strides))):
        call(strided(store[40:], (4, 5), *strides))
    assert (store == 77).all()


@every_out
def test_out_with_gaps_and_axes_in_any_order(call):
    expected = np.zeros((4, 5), FLOAT32)
    call(expected)
    for strides in ((20, 4), (4, 16), (-20, 4), (-4, -16), (24, 4), (4, 20), (80, 8), (21, 4), (5, 20)):
        store = np.full(200, 77, FLOAT32)
        out = strided(store[100:], (4, 5), *strides)
        call(out)
        assert_same_bits(np.ascontiguousarray(out), expected, str(strides))


def test_an_out_without_elements_overlaps_nothing():
    out = strided(np.zeros(4, FLOAT32), (3, 0, 5), 0, 4, 4)
    assert crossent.softmax(np.zeros((3, 0, 5), FLOAT32), out=out) is out


def test_float32_out_that_overlaps_a_narrow_input(narrow_dtype):
    store = np.ones(40, FLOAT32)
    for first in (0, 1, 20):
        x = store[first : first + 10].view(narrow_dtype).reshape(4, 5)
        with pytest.raises(ValueError, match="(?i)overlap|memory"):
            crossent.softmax(x, out=store[:20].reshape(4, 5) if first < 20 else store[15:35].reshape(4, 5))
    assert (store == 1).all()


def test_out_that_overlaps_weight_target_or_grad():
    store = np.ones((4, 5), FLOAT32)
    with pytest.raises(ValueError, match="(?i)overlap|memory"):
        crossent.cross_entropy_backward(1.0, X, TARGET, weight=store[1], out=store)
    with pytest.raises(ValueError, match="(?i)overlap|memory"):
        crossent.cross_entropy_backward(1.0, X[0], TARGET[0], weight=store[1], out=store[1])
    with pytest.raises(ValueError, match="(?i)overlap|memory"):
        crossent.cross_entropy_backward(1.0, X, store.view(np.int32)[:, 0], out=store, ignore_index=0x3F800000)
    with pytest.raises(ValueError, match="(?i)overlap|memory"):
        crossent.cross_entropy_backward(store[:, 2], X, TARGET, reduction="none", out=store)
    with pytest.raises(ValueError, match="(?i)overlap|memory"):
        crossent.cross_entropy_value_and_grad(X, store[::-1], out=store)
    assert (store == 1).all()


# --- targets ----------------------------------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("bad", [31, 977, -1, -99, -101, 2**31, 2**32, 2**62, -(2**63)])
def test_a_target_out_of_range_names_value_position_and_classes(loss, bad):
    target = np.zeros(19, np.int64)
    target[13] = bad
    with pytest.raises(IndexError, match=says(rf"(?<!\d){bad}(?!\d)", r"(?<!\d)13(?!\d)", r"(?<!\d)31(?!\d)")):
        loss(np.zeros((19, 31), FLOAT32), target)


@every_loss
def test_the_position_is_that_of_the_target_array(loss):
    target = np.zeros((17, 23), np.int16)
    target[14, 21] = 58
    for x, axis in ((np.zeros((17, 29, 23)), None), (np.zeros((17, 23, 29)), -1), (np.zeros((29, 17, 23)), 0)):
        with pytest.raises(IndexError, match=says("58", r"14,\s*21", "29")):
            loss(x, target, axis=axis)


@every_loss
def test_a_single_target_out_of_range(loss):
    with pytest.raises(IndexError, match=says("12", "7")):
        loss(np.zeros(7), 12)


@every_loss
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.uint64, np.int8])
def test_targets_do_not_wrap_around(loss, kind):
    bad = int(np.iinfo(kind).max) - (99 if np.iinfo(kind).min == 0 else 0)  # unsigned: the bits of -100
    with pytest.raises(IndexError, match=says(rf"(?<!\d){bad}(?!\d)", "5")):
        loss(X, np.array([0, bad, 1, 2], kind))


@every_loss
def test_ignore_index_is_the_only_exception(loss):
    with pytest.raises(IndexError, match="-100"):
        loss(X, [0, -100, 1, 2], ignore_index=-1)
    with pytest.raises(IndexError, match="-1"):
        loss(X, [0, -100, -1, 2])
    loss(X, [0, 70, 1, 2], ignore_index=70)


@every_loss
@pytest.mark.parametrize(
    ("logits", "target"),
    [((4, 5), (5,)), ((4, 5), (3,)), ((4, 5), ()), ((4, 5), (4, 1)), ((2, 3, 4), (2, 3)), ((5,), (5,)), ((5,), (1,)),
     ((2, 3, 4), (2, 4, 3)), ((0, 3), (1,)), ((2, 3, 4, 5), (2, 3, 4))],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_both_named(loss, logits, target):
    with pytest.raises(ValueError, match=says(re.escape(str(logits)), re.escape(str(target)))):
        loss(np.zeros(logits), np.zeros(target, int))


@every_loss
def test_batch_time_vocab_is_told_to_name_the_last_axis(loss):
    with pytest.raises(ValueError, match=says(shape(2, 3, 7), shape(2, 3), "axis=-1")):
        loss(np.zeros((2, 3, 7)), np.zeros((2, 3), int))


@every_cross_entropy
def test_probabilities_of_another_shape(loss):
    for bad in ((4,), (5, 4), (4, 1), (1, 5), (4, 5, 1)):
        with pytest.raises(ValueError, match=says(shape(4, 5), re.escape(str(bad)))):
            loss(X, np.zeros(bad))


@every_loss
def test_an_integer_target_in_the_shape_of_the_logits(loss):
    with pytest.raises(ValueError, match=shape(4, 5)):
        loss(X, np.eye(4, 5, dtype=int))


def test_nll_loss_takes_no_float_target():
    for target in (TARGET.astype(float), np.full((4, 5), 0.2), np.full((4, 5), 0.2, np.float16)):
        with pytest.raises(TypeError, match="(?i)target|float"):
            crossent.nll_loss(X, target)
        with pytest.raises(TypeError, match="(?i)target|float"):
            crossent.nll_loss_backward(1.0, X, target)


# --- other arguments --------------------------------------------------------------------------------------------------


@every_loss
def test_weights_of_another_shape(loss):
    for bad in ((4,), (6,), (1,), (), (1, 5), (5, 1), (0,)):
        with pytest.raises(ValueError, match=says("weight", re.escape(str(bad)), "5")):
            loss(X, TARGET, weight=np.ones(bad))


@every_loss
@pytest.mark.parametrize("bad", ["average", "", "MEAN", "mean ", "batchmean"])
def test_an_unknown_reduction_is_named_with_the_choices(loss, bad):
    with pytest.raises(ValueError, match=says(re.escape(bad), "none", "mean", "sum")):
        loss(X, TARGET, reduction=bad)


@every_loss
@pytest.mark.parametrize("bad", [True, None, 1, b"mean", ["mean"]])
def test_a_reduction_that_is_no_string(loss, bad):
    with pytest.raises((TypeError, ValueError)):
        loss(X, TARGET, reduction=bad)


@every_cross_entropy
@pytest.mark.parametrize("bad", [-0.1, 1.0001, -1e-300, 2, np.inf, -np.inf, np.nan])
def test_label_smoothing_outside_0_to_1(loss, bad):
    for target in (TARGET, np.full((4, 5), 0.2)):
        with pytest.raises(ValueError, match=says("label_smoothing", re.escape(f"not {bad:.9g}"))):
            loss(X, target, label_smoothing=bad)


@every_cross_entropy
@pytest.mark.parametrize("bad", ["0.1", None, [0.1, 0.2], 1j])
def test_label_smoothing_that_is_no_number(loss, bad):
    with pytest.raises((TypeError, ValueError)):
        loss(X, TARGET, label_smoothing=bad)


@every_loss
@pytest.mark.parametrize("bad", [1.5, "0", None, [0], np.nan])
def test_an_ignore_index_that_is_no_integer(loss, bad):
    with pytest.raises((TypeError, ValueError)):
        loss(X, TARGET, ignore_index=bad)


@every_loss
@pytest.mark.parametrize(("logits", "target"), [((4, 0), (4,)), ((0,), ()), ((2, 0, 3), (2, 3)), ((0, 0), (0,))])
def test_zero_classes(loss, logits, target):
    with pytest.raises(ValueError, match=says("class", re.escape(str(logits)))):
        loss(np.zeros(logits), np.full(target, -100))


@pytest.mark.parametrize("name", ["cross_entropy_backward", "nll_loss_backward"])
def test_grad_of_a_loss_has_the_shape_of_the_loss(name):
    backward, out = getattr(crossent, name), np.full_like(X, 77)
    for reduction, bad in (
        ("mean", (4,)),
        ("sum", (1,)),
        ("none", ()),
        ("none", (5,)),
        ("none", (4, 1)),
        ("mean", (4, 5)),
    ):
        with pytest.raises(ValueError, match=says("grad", re.escape(str(bad)))):
            backward(np.ones(bad, FLOAT32), X, TARGET, reduction=reduction, out=out)
    assert (out == 77).all()


@pytest.mark.parametrize("name", ["softmax_backward", "log_softmax_backward"])
def test_grad_has_the_shape_of_y(name):
    for bad in ((5, 4), (5,), (1, 5), (4, 1), ()):
        with pytest.raises(ValueError, match=says(re.escape(str(bad)), shape(4, 5))):
            getattr(crossent, name)(np.ones(bad, FLOAT32), X)


def test_out_is_untouched_by_every_error_of_a_gradient():
    out = np.full_like(X, 77)
    late = np.array([0, 0, 0, 5])
    mistakes = [
        (X, late, {}), (X, TARGET[:3], {}), (X, TARGET, {"weight": np.ones(4)}), (X, TARGET, {"reduction": "avg"}),
        (X, TARGET, {"axis": 2}), (X, TARGET, {"label_smoothing": 2.0}), (X, TARGET.astype(object), {}),
        (X.astype(object), TARGET, {}), (X, late, {"axis": 0}), (X, TARGET, {"weight": np.ones(5, complex)}),
    ]  # fmt: skip
    for x, target, options in mistakes:
        with pytest.raises((ValueError, IndexError, TypeError)):
            crossent.cross_entropy_value_and_grad(x, target, **options, out=out)
        with pytest.raises((ValueError, IndexError, TypeError)):
            crossent.cross_entropy_backward(1.0, x, target, **options, out=out)
        assert (out == 77).all(), options


def test_an_error_in_place_leaves_the_input():
    x = X.copy()
    with pytest.raises(IndexError):
        crossent.cross_entropy_value_and_grad(x, [0, 1, 2, 9], out=x)
    assert_same_bits(x, X)
