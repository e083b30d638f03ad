"""Dtypes that are refused, axes out of range, and arguments of absurd kinds: exceptions, never a crash."""

import inspect

import crossent
import numpy as np
import pytest
from helpers import FLOAT32, normal
from numpy.exceptions import AxisError

pytestmark = [pytest.mark.usefixtures("simd"), pytest.mark.no_kernel]

X = normal((4, 5), FLOAT32)
TARGET = np.array([0, 4, 2, 2])
UNARY = {name: getattr(crossent, name) for name in ("softmax", "log_softmax", "logsumexp")}
BACKWARD = {
    "softmax_backward": lambda x, **options: crossent.softmax_backward(x, x, **options),
    "log_softmax_backward": lambda x, **options: crossent.log_softmax_backward(x, x, **options),
}
LOSSES = {
    "nll_loss": lambda x, **options: crossent.nll_loss(x, TARGET, **options),
    "cross_entropy": lambda x, **options: crossent.cross_entropy(x, TARGET, **options),
    "nll_loss_backward": lambda x, **options: crossent.nll_loss_backward(1.0, x, TARGET, **options),
    "cross_entropy_backward": lambda x, **options: crossent.cross_entropy_backward(1.0, x, TARGET, **options),
    "value_and_grad": lambda x, **options: crossent.cross_entropy_value_and_grad(x, TARGET, **options),
}
ARRAYS = {**UNARY, **BACKWARD}
EVERYTHING = {**ARRAYS, **LOSSES}


def name_of(value):
    """The same in every run, as an address is not."""
    return "object" if type(value) is object else repr(value)


def functions(table):
    return pytest.mark.parametrize("function", table.values(), ids=table)


REFUSED = {
    "complex": X.astype(np.complex64),
    "complex double": X.astype(complex),
    "longdouble": X.astype(np.longdouble),
    "object": X.astype(object),
    "text": X.astype(str),
    "bytes": X.astype("S"),
    "dates": np.zeros((4, 5), "datetime64[s]"),
    "times": np.zeros((4, 5), "timedelta64[s]"),
    "records": np.zeros((4, 5), [("a", "f4"), ("b", "f4")]),
    "void": np.zeros((4, 5), "V4"),
}
refused = pytest.mark.parametrize("bad", REFUSED.values(), ids=REFUSED)


@functions(EVERYTHING)
@refused
def test_dtypes_that_are_refused(function, bad):
    with pytest.raises(TypeError):
        function(bad)


@refused
def test_targets_weights_and_grads_of_refused_dtypes(bad):
    row, column = bad[0], bad[:, 0]
    with pytest.raises(TypeError):
        crossent.cross_entropy(X, bad)
    with pytest.raises(TypeError):
        crossent.cross_entropy(X, column)
    with pytest.raises(TypeError):
        crossent.nll_loss(X, column)
    with pytest.raises(TypeError):
        crossent.cross_entropy(X, TARGET, weight=row)
    with pytest.raises(TypeError):
        crossent.cross_entropy_backward(column, X, TARGET, reduction="none")
    with pytest.raises(TypeError):
        crossent.softmax_backward(bad, X)


@pytest.mark.parametrize("bad", [None, "text", b"bytes", {}, {1, 2}, object(), [None], ["a"], [1j], lambda: 0, type])
def test_things_that_are_no_arrays(bad):
    for function in EVERYTHING.values():
        with pytest.raises(TypeError):
            function(bad)
    with pytest.raises(TypeError):
        crossent.cross_entropy(X, bad)
    with pytest.raises(TypeError):
        crossent.cross_entropy_backward(bad, X, TARGET)
    if bad is not None:
        with pytest.raises(TypeError):
            crossent.cross_entropy(X, TARGET, weight=bad)


@functions(EVERYTHING)
def test_ragged_lists(function):
    with pytest.raises((ValueError, TypeError)):
        function([[1.0, 2.0], [3.0]])


@functions(EVERYTHING)
@pytest.mark.parametrize("axis", [2, -3, 5, 2**31, -(2**31) - 1, 2**40, 2**63, 2**70, -(2**70)])
def test_an_axis_out_of_range(function, axis):
    with pytest.raises(AxisError):
        function(X, axis=axis)


@functions(ARRAYS)
def test_a_tuple_with_an_axis_out_of_range_or_twice(function):
    for axis in ((0, 2), (-3, 1), (0, 2**70)):
        with pytest.raises(AxisError):
            function(X, axis=axis)
    for axis in ((0, 0), (1, -1), (0, 1, 0)):
        with pytest.raises(ValueError, match="(?i)duplicate|repeat|twice|axis"):
            function(X, axis=axis)


@functions(ARRAYS)
def test_axis_of_zero_dimensions_is_0_or_minus_1(function):
    for axis in (1, -2, (0, 1)):
        with pytest.raises((AxisError, ValueError)):
            function(np.float32(1), axis=axis)


@functions(EVERYTHING)
@pytest.mark.parametrize("axis", [1.0, "0", "last", [0.5], (0.0,), np.nan, object()])
def test_an_axis_that_is_no_integer(function, axis):
    with pytest.raises((TypeError, ValueError)):
        function(X, axis=axis)


@functions(LOSSES)
def test_losses_have_one_class_axis(function):
    for axis in ((0, 1), ()):
        with pytest.raises((TypeError, ValueError)):
            function(X, axis=axis)


@functions(EVERYTHING)
def test_unknown_and_positional_arguments(function):
    with pytest.raises(TypeError):
        function(X, dim=1)


def test_options_are_keyword_only():
    for call in (
        lambda: crossent.softmax(X, -1, None),
        lambda: crossent.logsumexp(X, -1, False),
        lambda: crossent.softmax_backward(X, X, -1, None),
        lambda: crossent.cross_entropy(X, TARGET, None),
        lambda: crossent.nll_loss(X, TARGET, None),
        lambda: crossent.cross_entropy_backward(1.0, X, TARGET, None),
    ):
        with pytest.raises(TypeError):
            call()


VALID = {
    "x": X, "y": X, "grad": X, "logits": X, "log_probs": X, "p_logits": X, "q_logits": X,
    "target": TARGET, "index": TARGET, "n": 1,
}  # fmt: skip
ARGUMENTS = [
    (name, argument)
    for name in crossent.__all__
    if callable(getattr(crossent, name)) and name not in ("LogitStats", "Evaluation")
    for argument in inspect.signature(getattr(crossent, name)).parameters
]


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
@pytest.mark.parametrize("absurd", ["x", [], {}, ("x",), 1j, b"x", object(), max], ids=name_of)
def test_absurd_arguments_are_taken_or_refused_in_a_sentence(name, argument, absurd):
    """Not by a list of the compiled function's signatures."""
    function = getattr(crossent, name)
    parameters = inspect.signature(function).parameters
    valid = {key: VALID[key] for key, parameter in parameters.items() if parameter.default is parameter.empty}
    if name.endswith("loss_backward") or name == "cross_entropy_backward":
        valid["grad"] = 1.0
    message = ""
    try:
        function(**valid | {argument: absurd})
    except (TypeError, ValueError, IndexError) as error:
        message = str(error)
    assert "\n" not in message
    assert "arguments" not in message


@pytest.mark.parametrize("absurd", ["x", "", [], (), {}, object(), b"1"], ids=name_of)
def test_keepdims_that_is_no_truth_value(absurd):
    with pytest.raises(TypeError, match="keepdims must be True or False, not "):
        crossent.logsumexp(X, keepdims=absurd)


def test_keepdims_may_be_a_boolean_of_numpy_or_a_number():
    for yes, no in ((True, False), (np.True_, np.False_), (1, 0)):
        assert crossent.logsumexp(X, keepdims=yes).shape == (4, 1)
        assert crossent.logsumexp(X, keepdims=no).shape == (4,)


INDICES_ALONE = {
    "nll_loss": lambda target: crossent.nll_loss(X, target),
    "nll_loss_backward": lambda target: crossent.nll_loss_backward(1.0, X, target),
    "token_log_probs": lambda target: crossent.token_log_probs(X, target),
    "logit_stats": lambda target: crossent.logit_stats(X, target),
    "Evaluator": lambda target: crossent.Evaluator().update(X, target),
}


@functions(INDICES_ALONE)
def test_where_only_indices_are_taken_no_message_speaks_of_probabilities(function):
    for bad in (np.zeros(4, bool), [True] * 4, X.astype(complex), ["x"] * 4):
        with pytest.raises(TypeError, match="must hold class indices") as caught:
            function(bad)
        assert "probabilities" not in str(caught.value)


def test_a_bool_target_is_refused_or_counts_as_0_and_1():
    """Not promised either way; it must not be anything else."""
    target = np.array([True, False, False, True])
    try:
        loss = crossent.cross_entropy(X, target)
    except (TypeError, ValueError):
        return
    assert loss == crossent.cross_entropy(X, target.astype(int))


def test_an_array_interface_that_lies_is_numpys_to_refuse():
    class Liar:
        __array_interface__ = {"shape": (4, 5), "typestr": "<f4", "version": 3, "data": "nonsense"}  # noqa: RUF012

    with pytest.raises((TypeError, ValueError, AttributeError)):
        crossent.softmax(Liar())


def test_an_exception_in_array_passes_through():
    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("no array today")

    for function in EVERYTHING.values():
        with pytest.raises(RuntimeError, match="no array today"):
            function(Broken())


def test_failure_does_not_spoil_the_next_call():
    expected = crossent.softmax(X)
    for _ in range(100):
        with pytest.raises(IndexError):
            crossent.cross_entropy(X, [0, 1, 2, 99])
        with pytest.raises(TypeError):
            crossent.softmax("text")
    np.testing.assert_array_equal(crossent.softmax(X), expected)
