"""Any strides work, for inputs, targets, weights and out, and a row's bits do not depend on where it lies.

Values are compared with the oracle once per layout; then bits are compared: alone and in a batch of any size, at every
alignment, in every place of the batch, and between layouts.
"""

import crossent
import numpy as np
import pytest
import reference
from cases import KINDS, assert_gradient, assert_losses, make_case, target_indices
from helpers import (
    WRITEABLE_LAYOUTS,
    accumulator,
    assert_same_bits,
    assert_ulps,
    available_dtypes,
    layouts,
    limit,
    normal,
    outs,
)

pytestmark = pytest.mark.usefixtures("simd")

FUNCTIONS = ["softmax", "log_softmax", "logsumexp"]
SHAPE = (3, 4, 9)
# Rows are taken in tiles, several together, one by one, and by blocks, the longer they are.
CLASS_COUNTS = [*range(1, 71), 100, 112, 145, 200, 257, 320, 321, 1000, *range(4095, 4101), 9000, 50257]


def loss_and_gradient(x, target, **options):
    return crossent.cross_entropy_value_and_grad(x, target, reduction="none", axis=-1, **options)


def row_results(x):
    """{name: result} of every function over the last axis of x, which has any number of classes."""
    target = np.arange(x[..., 0].size).reshape(x.shape[:-1]) * 7 % x.shape[-1]
    loss, gradient = loss_and_gradient(x, target)
    smooth_loss, smooth_gradient = loss_and_gradient(x, target, label_smoothing=0.1)
    results = {name: getattr(crossent, name)(x) for name in FUNCTIONS}
    return results | {
        "loss": loss,
        "gradient": gradient,
        "smooth loss": smooth_loss,
        "smooth gradient": smooth_gradient,
        "softmax_backward": crossent.softmax_backward(x[..., ::-1], results["softmax"]),
        "log_softmax_backward": crossent.log_softmax_backward(x[..., ::-1], results["log_softmax"]),
    }


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2, (0, 2), (2, 1), None])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_layout_of_the_input(name, axis, dtype):
    x = normal(SHAPE, dtype)
    expected = getattr(reference, name)(x, axis)
    scale = reference.logsumexp_scale(x, axis) if name == "logsumexp" else None
    for layout, arranged in layouts(x):
        result = getattr(crossent, name)(arranged, axis)
        assert result.dtype.isnative
        assert_ulps(result, expected, limit(name, dtype), scale, note=layout)


@pytest.mark.parametrize("axis", [0, 1, 2, (0, 2), None])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_layout_of_out(name, axis, dtype):
    x = normal(SHAPE, dtype)
    expected = getattr(crossent, name)(x, axis)
    for layout, out in outs(expected.shape or (1,), expected.dtype):
        target = out if expected.shape else out.reshape(())
        assert getattr(crossent, name)(x, axis, out=target) is target
        assert_same_bits(target, expected, layout)


@pytest.mark.parametrize("axis", [0, 1, 2, (0, 2), None])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_every_layout_in_place(name, axis, dtype):
    x = normal(SHAPE, dtype)
    expected = getattr(reference, name)(x, axis)
    for layout, arrange in WRITEABLE_LAYOUTS.items():
        arranged = arrange(x)
        getattr(crossent, name)(arranged, axis, out=arranged)
        assert_ulps(arranged, expected, limit(name, dtype), note=layout)


@pytest.mark.parametrize("step", [2, -2, 3])
def test_writing_to_a_slice_touches_nothing_else(step, dtype):
    x = normal((5, 7), dtype)
    store = np.full((20, 30), 77, dtype)
    mask = np.ones(store.shape, bool)
    where = (slice(2, 12, 2), slice(4, 4 + 7 * step, step) if step > 0 else slice(25, 25 + 7 * step, step))
    mask[where] = False
    crossent.softmax(x, out=store[where])
    crossent.cross_entropy_value_and_grad(x, np.zeros(5, int), out=store[where])
    crossent.log_softmax(x.T, 0, out=store[where].T)
    assert (store[mask] == 77).all()


@pytest.mark.parametrize(("classes", "rows"), [(2, 16), (5, 17), (21, 130), (70, 33)])
def test_fields_of_records_are_read_and_written_as_other_columns(classes, rows, dtype):
    # From one class to the next it is no multiple of an element's size.
    fields = np.dtype([("x", dtype, (rows,)), ("out", dtype, (rows,)), ("other", np.int8)])
    records = np.zeros(classes, fields)
    records["x"] = normal((classes, rows), dtype)
    target, _ = target_indices(rows, classes)
    x = np.ascontiguousarray(records["x"])

    def gradient(logits, out=None):
        return crossent.cross_entropy_value_and_grad(logits, target, axis=0, out=out)[1]

    def divergence_gradient(logits, out=None):
        return crossent.kl_divergence_value_and_grad(logits, x[::-1], axis=0, out=out)[1]

    def softmax_backward(logits, out=None):
        return crossent.softmax_backward(logits, x, axis=0, out=out)

    def function(name):
        return lambda logits, out=None: getattr(crossent, name)(logits, axis=0, out=out)

    for call in (function("softmax"), function("log_softmax"), gradient, divergence_gradient, softmax_backward):
        records["other"] = 7
        call(records["x"], out=records["out"])
        assert_same_bits(records["out"], call(x))
        assert (records["other"] == 7).all()
        assert_same_bits(np.ascontiguousarray(records["x"]), x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", [2, 3, 4])
def test_every_layout_of_every_argument_of_a_loss(rank, kind, dtype):
    case = make_case(rank, dtype, kind, weighted=True, ignoring="default", smoothing=0.1, reduction="none")
    loss = reference.cross_entropy(case.logits, case.target, **case.all_options)
    gradient = reference.cross_entropy_backward(case.grad, case.logits, case.target, **case.all_options)
    arguments = [case.logits, case.target, case.options["weight"], case.grad]
    for moving in range(4):
        for layout, arranged in layouts(arguments[moving]):
            logits, target, weight, grad = (arranged if i == moving else a for i, a in enumerate(arguments))
            options = {**case.all_options, "weight": weight}
            assert_losses(crossent.cross_entropy(logits, target, **options), loss, case, note=layout)
            result = crossent.cross_entropy_backward(grad, logits, target, **options)
            assert_gradient(result, gradient, case, note=layout)


def test_every_layout_of_the_gradient(dtype):
    case = make_case(3, dtype, "indices", weighted=True, ignoring="default", smoothing=0.1, reduction="mean")
    _, expected = crossent.cross_entropy_value_and_grad(case.logits, case.target, **case.all_options)
    for layout, out in outs(case.logits.shape, dtype):
        crossent.cross_entropy_value_and_grad(case.logits, case.target, **case.all_options, out=out)
        assert_same_bits(out, expected, layout)
        out[...] = 77
        crossent.cross_entropy_backward(1.0, case.logits, case.target, **case.all_options, out=out)
        assert_same_bits(out, expected, layout)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_broadcast_inputs(name, dtype):
    for small, axis in (((1, 1, 9), -1), ((3, 1, 1), -1), ((1, 4, 1), 1), ((3, 1, 9), (0, 2)), ((1, 1, 1), None)):
        x = np.broadcast_to(normal(small, dtype), SHAPE)
        scale = reference.logsumexp_scale(x, axis) if name == "logsumexp" else None
        expected = getattr(reference, name)(x, axis)
        assert_ulps(getattr(crossent, name)(x, axis), expected, limit(name, dtype), scale)


def test_broadcast_arguments_of_a_loss(dtype):
    logits = np.broadcast_to(normal((1, 9), dtype), (6, 9))
    weight = np.broadcast_to(np.ones(1, accumulator(dtype)) * 2, (9,))
    for target in (np.broadcast_to(np.int32(3), (6,)), np.broadcast_to(np.full(1, 1 / 9).astype(dtype), (6, 9))):
        for out in (None, np.zeros((6, 9), dtype)):
            loss, gradient = crossent.cross_entropy_value_and_grad(
                logits, target, weight=weight, reduction="none", out=out
            )
            options = {"weight": weight, "reduction": "none"}
            assert_ulps(loss, reference.cross_entropy(logits, target, **options), limit("loss", dtype))
            expected, scale = reference.cross_entropy_backward(np.ones(6), logits, target, **options)
            assert_ulps(gradient, expected, limit("mixed gradient", dtype), scale)


# --- bits -------------------------------------------------------------------------------------------------------------


def assert_rows_keep_their_bits(results, expected, note, rows=slice(None)):
    for name, result in results.items():
        assert_same_bits(result, expected[name][rows], f"{name} {note}")


@pytest.mark.parametrize("classes", [1, 2, 3, 5, 8, 10, 16, 17, 33, 100, 112, 200])
def test_a_row_has_the_same_bits_in_a_batch_of_any_size(classes, dtype):
    x = normal((40, classes), dtype)
    target = np.arange(40) * 7 % classes
    expected = {name: getattr(crossent, name)(x) for name in FUNCTIONS}
    losses, gradients = loss_and_gradient(x, target)
    for size in range(1, 41):
        first = (40 - size) // 2
        part = slice(first, first + size)
        for name in FUNCTIONS:
            assert_same_bits(getattr(crossent, name)(x[part]), expected[name][part], f"{name} batch of {size}")
        loss, gradient = loss_and_gradient(x[part], target[part])
        assert_same_bits(loss, losses[part], f"batch of {size}")
        assert_same_bits(gradient, gradients[part], f"batch of {size}")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_column_has_the_same_bits_in_a_batch_of_any_size(name, dtype):
    """The class axis first: the rows lie side by side."""
    for classes in (3, 10, 33):
        x = normal((classes, 40), dtype)
        expected = getattr(crossent, name)(x, 0)
        for size in range(1, 41):
            part = np.ascontiguousarray(x[:, 40 - size :])
            result = getattr(crossent, name)(part, 0)
            assert_same_bits(result, np.ascontiguousarray(expected[..., 40 - size :]), f"{classes}, batch of {size}")


def test_the_order_of_the_rows_does_not_matter(dtype):
    for classes in (3, 10, 50, 112, 200):
        x = normal((33, classes), dtype)
        order = np.random.default_rng(0).permutation(33)
        for axis, result in ((1, crossent.softmax(x)), (0, crossent.softmax(np.ascontiguousarray(x.T), 0).T)):
            shuffled = x[order] if axis else np.ascontiguousarray(x[order].T)
            again = crossent.softmax(shuffled, axis)
            assert_same_bits(again if axis else again.T, result[order])


def scores_and_losses(x):
    """Results of the functions that look at exponentials, of rows whose target is the first class."""
    target = np.zeros(x.shape[0], int)
    loss, gradient = loss_and_gradient(x, target)
    results = {name: getattr(crossent, name)(x) for name in FUNCTIONS}
    return results | {
        "loss": loss,
        "gradient": gradient,
        "smooth gradient": loss_and_gradient(x, target, label_smoothing=0.1)[1],
        "token_log_probs": crossent.token_log_probs(x, target),
        **crossent.logit_stats(x, target, top_k=1)._asdict(),
    }


@pytest.mark.parametrize("classes", [1, 2, 5, 16, 40, 150, 200, 400, 1000, 5000])
def test_rows_of_other_magnitudes_do_not_change_their_neighbours(classes, dtype):
    """NaN, infinities, and maxima beyond those that the exponential's short way takes."""
    x = normal((37, classes), dtype)
    for row, value in {3: np.nan, 8: np.inf, 17: -np.inf, 20: 20000, 30: -20000, 36: 60000}.items():
        x[row] = value if np.isinf(value) else x[row] + dtype.type(value)
    alone = [scores_and_losses(x[row : row + 1]) for row in range(37)]
    for layout, arranged in (("rows", x), ("columns", np.asfortranarray(x)), ("far apart", np.repeat(x, 2, 1)[:, ::2])):
        results = scores_and_losses(arranged)
        for row, expected in enumerate(alone):
            part = {name: result[row : row + 1] for name, result in results.items()}
            assert_rows_keep_their_bits(part, expected, f"{layout}, row {row}")


@pytest.mark.parametrize("classes", [2, 10, 100, 256, 1000])
def test_ignored_rows_do_not_change_their_neighbours(classes, dtype):
    """Whatever they hold: they are not read, while others in the same vector, group or block are."""
    x, (target, _) = normal((150, classes), dtype), target_indices((150,), classes)
    expected_loss, expected = loss_and_gradient(x, target)
    for share in (0.1, 0.5, 0.95):
        ignored = np.random.default_rng(classes).random(len(x)) < share
        x[ignored] = np.asarray([np.nan, np.inf, -np.inf, 1e4], dtype)[np.flatnonzero(ignored) % 4, None]
        loss, gradient = loss_and_gradient(x, np.where(ignored, -100, target))
        assert_same_bits(loss[~ignored], expected_loss[~ignored], f"loss, {share} ignored")
        assert_same_bits(gradient[~ignored], expected[~ignored], f"gradient, {share} ignored")
        assert not loss[ignored].any()
        assert not gradient[ignored].any()


@pytest.mark.parametrize(("dtype", "bias"), [(np.float32, 64), (np.float64, 128)])
def test_subnormal_gradients_of_huge_factors_do_not_depend_on_their_neighbours(dtype, bias):
    """Their exponentials are nearly subnormal themselves, and those of the first row exactly 0."""
    rng = np.random.default_rng(0)
    smallest = {np.float32: 126, np.float64: 1022}[dtype]
    for classes in [*range(2, 7)] * 60:
        below = (smallest + bias + rng.uniform(0, 0.5, 8)) * np.log(2)
        x = np.zeros((8, classes), dtype)
        x[:, -1] = -below
        factor = rng.uniform(1, 4) * 2.0**bias * (classes - 1)
        beside = x.copy()
        beside[0, -1] = -3000
        target = np.zeros(8, np.int64)
        alone = crossent.cross_entropy_backward(factor, x, target, reduction="sum")
        together = crossent.cross_entropy_backward(factor, beside, target, reduction="sum")
        assert alone[1:].tobytes() == together[1:].tobytes()


def test_every_class_count_alone_and_in_a_batch():
    """Each count's row alone, and in the middle of a batch of four."""
    for dtype in available_dtypes():
        for classes in CLASS_COUNTS:
            x = normal((4, classes), dtype)
            batch = {name: getattr(crossent, name)(x) for name in FUNCTIONS}
            losses, gradients = loss_and_gradient(x, [0, classes // 2, classes - 1, 0])
            for row, label in ((1, classes // 2), (2, classes - 1)):
                for name in FUNCTIONS:
                    assert_same_bits(getattr(crossent, name)(x[row]), batch[name][row], f"{name} {dtype} {classes}")
                loss, gradient = loss_and_gradient(x[row], label)
                assert_same_bits(loss, losses[row], f"loss {dtype} {classes}")
                assert_same_bits(gradient, gradients[row], f"gradient {dtype} {classes}")


@pytest.mark.parametrize("classes", [5, 16, 37, 112, 130, 200, 1001])
def test_alignment_does_not_change_bits(classes, dtype):
    x = normal((3, classes), dtype)
    expected = row_results(x)
    raw = np.zeros(x.nbytes + 64, np.uint8)
    for offset in range(64):
        view = raw[offset : offset + x.nbytes].view(dtype).reshape(x.shape)
        view[...] = x
        assert_rows_keep_their_bits(row_results(view), expected, f"byte offset {offset}")


# From 256 float32 classes on, rows are written in whole cache lines but for their ends.
@pytest.mark.parametrize("classes", [5, 33, 112, 130, 200, 256, 257, 263, 1001, 4097])
def test_alignment_of_out_does_not_change_bits(classes, dtype):
    """Nor what lies beside it; in place too."""
    x, target = normal((3, classes), dtype), np.arange(3) % classes
    functions = {
        "softmax": lambda x, out: crossent.softmax(x, out=out),
        "log_softmax": lambda x, out: crossent.log_softmax(x, out=out),
        "log_softmax_backward": lambda x, out: crossent.log_softmax_backward(x, x, out=out),
        "gradient": lambda x, out: crossent.cross_entropy_value_and_grad(x, target, reduction="sum", out=out),
    }
    expected = {name: np.empty_like(x) for name in functions}
    for name, function in functions.items():
        function(x, expected[name])
    raw = np.empty(x.nbytes + 192, np.uint8)
    start = 64 - raw.ctypes.data % 64
    for offset in [*range(0, 64, 12 if classes > 200 else 4), 1, 2, 63]:
        begin = start + offset
        raw.fill(0xA5)
        out = raw[begin : begin + x.nbytes].view(dtype).reshape(x.shape)
        for name, function in functions.items():
            for source in (x, out):
                out[...] = x
                function(source, out)
                assert_same_bits(out, expected[name], f"{name} at byte offset {offset}, in place: {source is out}")
                assert (raw[:begin] == 0xA5).all() and (raw[begin + x.nbytes :] == 0xA5).all(), (name, offset)


@pytest.mark.parametrize("shape", [(3, 4, 9), (5, 2, 70), (2, 3, 300)])
def test_every_layout_gives_the_same_bits(shape, dtype):
    x = normal(shape, dtype)
    expected = row_results(x)
    for layout, arranged in layouts(x):
        assert_rows_keep_their_bits(row_results(arranged), expected, layout)


@pytest.mark.parametrize(
    ("classes", "behind"), [(100, 1), (100, 4), (100, 5), (100, 15), (100, 16), (9, 14), (9, 15), (3, 7)]
)
def test_few_numbers_behind_the_class_axis_change_no_bit(classes, behind, dtype):
    """Few rows that are neighbours in memory are taken together or, with few classes, one from each sample."""
    x = normal((37, classes, behind), dtype)
    rows, target = np.ascontiguousarray(np.moveaxis(x, 1, -1)), np.arange(37 * behind).reshape(37, behind) % classes
    for name in ("softmax", "log_softmax"):
        function = getattr(crossent, name)
        assert_same_bits(np.ascontiguousarray(np.moveaxis(function(x, 1), 1, -1)), function(rows), name)
    losses, gradient = crossent.cross_entropy_value_and_grad(x, target, reduction="none")
    expected, expected_gradient = crossent.cross_entropy_value_and_grad(rows, target, axis=-1, reduction="none")
    assert_same_bits(losses, expected)
    assert_same_bits(np.ascontiguousarray(np.moveaxis(gradient, 1, -1)), expected_gradient)


@pytest.mark.parametrize("rows", [1, 2, 16, 67])
def test_columns_that_are_gathered_have_the_bits_of_rows(rows, dtype):
    """More than 4096 classes, the class axis first: whole blocks of rows and classes, and what is left of them."""
    for classes in (4099, 4112):
        x = normal((rows, classes), dtype)
        columns = np.zeros((classes, rows + 3), dtype)[:, 1 : rows + 1]
        columns[...] = x.T
        out = np.zeros((classes, rows + 5), dtype)[:, 2 : rows + 2]
        for name in ("softmax", "log_softmax"):
            expected = getattr(crossent, name)(x)
            getattr(crossent, name)(columns, 0, out=out)
            assert_same_bits(np.ascontiguousarray(out.T), expected, f"{name} of {classes} classes")
            beside = out.base[:, [0, 1, -3, -2, -1]]
            assert (beside.astype(np.float32) == 0).all()
        assert_same_bits(crossent.logsumexp(columns, 0), crossent.logsumexp(x), f"logsumexp of {classes} classes")


def test_every_layout_of_targets_and_weights_gives_the_same_bits(dtype):
    x, (target, _) = normal((4, 6, 9), dtype), target_indices((4, 6), 9, "default")
    weight = normal(9, accumulator(dtype)) ** 2
    expected_loss, expected = loss_and_gradient(x, target, weight=weight)
    for moved_target, moved_weight in [(t, weight) for _, t in layouts(target)] + [
        (target, w) for _, w in layouts(weight)
    ]:
        loss, gradient = loss_and_gradient(x, moved_target, weight=moved_weight)
        assert_same_bits(loss, expected_loss)
        assert_same_bits(gradient, expected)


@pytest.mark.parametrize("classes", [1, 10, 33, 120, 500])
def test_more_rows_than_any_block(classes, dtype):
    """A batch that is split into blocks, and fits no second-level cache: the last rows are those of a small batch."""
    count = 600_000 // classes
    x = np.tile(normal((50, classes), dtype), (count // 50, 1))
    expected = row_results(x[:50])
    results = {name: getattr(crossent, name)(x) for name in FUNCTIONS}
    for name, result in results.items():
        for first in (0, 50, len(x) - 50):
            assert_same_bits(result[first : first + 50], expected[name], f"{name} {classes}")
