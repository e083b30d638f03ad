"""Negative log-likelihood and cross-entropy, forward and backward. All checks, and all work, happen in C++."""

from __future__ import annotations

from typing import Literal, overload

from ._core import cross_entropy as _cross_entropy
from ._core import cross_entropy_backward as _cross_entropy_backward
from ._core import cross_entropy_value_and_grad as _cross_entropy_value_and_grad
from ._core import nll_loss as _nll_loss
from ._core import nll_loss_backward as _nll_loss_backward
from ._typing import ArrayLike, FloatArray, FloatScalar, Reduction

__all__ = [
    "cross_entropy",
    "cross_entropy_backward",
    "cross_entropy_value_and_grad",
    "nll_loss",
    "nll_loss_backward",
]


@overload
def nll_loss(
    log_probs: ArrayLike,
    target: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Literal["mean", "sum"] = "mean",
    axis: int | None = None,
) -> FloatScalar: ...
@overload
def nll_loss(
    log_probs: ArrayLike,
    target: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Literal["none"],
    axis: int | None = None,
) -> FloatArray: ...
def nll_loss(
    log_probs: ArrayLike,
    target: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    axis: int | None = None,
) -> FloatScalar | FloatArray:
    """Negative log-likelihood of class indices: ``-weight[target] * log_probs[target]``, in nats.

    Parameters
    ----------
    log_probs : array_like
        Log-probabilities, shape (C,), (N, C), (N, C, d1, ...), or any other with `axis` given; dtypes as the logits of
        `cross_entropy`. Only the entries at the targets are read, so that -inf and NaN elsewhere do not matter.
    target : array_like of integers
        Class indices, of the shape of `log_probs` without its class axis.
    weight, ignore_index, reduction, axis
        As in `cross_entropy`.

    Returns
    -------
    NumPy scalar or ndarray
        As in `cross_entropy`.

    Raises
    ------
    TypeError
        If `target` is not of an integer dtype; else as in `cross_entropy`.
    ValueError, IndexError, numpy.exceptions.AxisError
        As in `cross_entropy`.

    Notes
    -----
    No extra memory worth naming. The function is ``torch.nn.functional.nll_loss``.

    Examples
    --------
    >>> import crossent
    >>> print(round(crossent.nll_loss([-1.6563, -1.7563, -1.5563], 2), 4))
    1.5563
    """
    return _nll_loss(log_probs, target, weight, ignore_index, reduction, axis)  # type: ignore[no-any-return]


def nll_loss_backward(
    grad: ArrayLike,
    log_probs: ArrayLike,
    target: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    axis: int | None = None,
    out: FloatArray | None = None,
) -> FloatArray:
    """Gradient of `nll_loss` with respect to `log_probs`: ``-weight[target] * grad`` at the target, else 0.

    Parameters
    ----------
    grad : array_like
        Gradient with respect to the loss: a scalar for the reductions "mean" and "sum", an array of target's shape for
        "none".
    log_probs, target, weight, ignore_index, reduction, axis
        As given to `nll_loss`. Of `log_probs` only shape and dtype matter.
    out : ndarray, optional
        As in `cross_entropy_value_and_grad`.

    Returns
    -------
    ndarray
        Of log_probs' shape and dtype, or `out`. All 0 where nothing is left to average.

    Raises
    ------
    TypeError, ValueError, IndexError, numpy.exceptions.AxisError
        As in `nll_loss`; ValueError also for `grad` or `out` that do not fit.

    Notes
    -----
    No extra memory worth naming. The function is the backward of ``torch.nn.functional.nll_loss``.

    Examples
    --------
    >>> import crossent
    >>> crossent.nll_loss_backward(1.0, [[-1.5, -0.25], [-0.5, -1.0]], [1, 0])
    array([[ 0. , -0.5],
           [-0.5,  0. ]])
    """
    return _nll_loss_backward(  # type: ignore[no-any-return]
        grad, log_probs, target, weight, ignore_index, reduction, axis, out
    )


@overload
def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Literal["mean", "sum"] = "mean",
    axis: int | None = None,
    label_smoothing: float = 0.0,
) -> FloatScalar: ...
@overload
def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Literal["none"],
    axis: int | None = None,
    label_smoothing: float = 0.0,
) -> FloatArray: ...
def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    axis: int | None = None,
    label_smoothing: float = 0.0,
) -> FloatScalar | FloatArray:
    """Cross-entropy of logits and class indices or class probabilities, in nats.

    The loss of one sample is ``-sum(weight * q * log_softmax(logits))`` over the classes, where q is the target
    distribution: 1 at a class index, or the given probabilities, then ``(1 - label_smoothing) * q + label_smoothing / C``.

    Parameters
    ----------
    logits : array_like
        Shape (C,), (N, C), (N, C, d1, ...), or any other with `axis` given; any strides. float32, float64, float16 and
        bfloat16 are computed as they are, the 16-bit ones accumulated in float32; booleans and integers become float64.
    target : array_like
        Class indices: any integer dtype, the shape of `logits` without its class axis. Or class probabilities: floating,
        the shape of `logits`; a one-hot target is of this kind and must be floating.
    weight : array_like, shape (C,), optional
        A factor for each class.
    ignore_index : int, default -100
        Samples with this class index have loss 0 and gradient 0, do not count in "mean", and their logits are not read.
        It means nothing for class probabilities.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides the sum by the number of samples or, for class indices, by the sum of the weights of the samples
        that are not ignored; with nothing left to average it is NaN. "none" gives the loss of each sample.
    axis : int, optional
        The class axis. None is PyTorch's rule: axis 0 for 1-D logits, else axis 1. For logits of shape
        (batch, time, classes) give ``axis=-1``.
    label_smoothing : float, default 0.0
        How much of the target is replaced by the uniform distribution, in [0, 1].

    Returns
    -------
    NumPy scalar or ndarray
        The loss; for "none" an array of the shape of `logits` without its class axis. Of the logits' dtype, or float32
        for 16-bit logits.

    Raises
    ------
    TypeError
        For complex, object, string or longdouble arguments, and for a boolean target.
    ValueError
        For shapes that do not fit, an integer target of the logits' shape, an unknown `reduction`, `label_smoothing`
        outside [0, 1], or zero classes.
    IndexError
        For a class index outside [0, C) that is not `ignore_index`.
    numpy.exceptions.AxisError
        If `axis` is out of range.

    Notes
    -----
    A -inf logit is a class of probability 0: its loss is +inf if its target probability is positive, and otherwise it
    contributes exactly 0. A row that holds NaN or +inf, or only -inf, has loss NaN.

    Sums over samples are accumulated in float64. Extra memory per thread: about 2 MiB at most, and 1 MiB or 16 rows of
    each of the arrays where more than 4096 classes are not contiguous; and for a call with `weight` or
    `label_smoothing` up to 8 bytes a class. No array of the logits' size is made.

    The function is ``torch.nn.functional.cross_entropy``.

    Examples
    --------
    >>> import crossent
    >>> logits = [[1.0, 0.5, 2.0], [0.5, 3.0, 1.0]]
    >>> print(round(crossent.cross_entropy(logits, [2, 1]), 4))
    0.3306
    >>> crossent.cross_entropy(logits, [2, 1], reduction="none").round(4)
    array([0.4644, 0.1967])
    >>> one_hot = [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    >>> print(round(crossent.cross_entropy(logits, one_hot), 4))
    0.3306
    """
    return _cross_entropy(  # type: ignore[no-any-return]
        logits, target, weight, ignore_index, reduction, axis, label_smoothing
    )


def cross_entropy_backward(
    grad: ArrayLike,
    logits: ArrayLike,
    target: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    axis: int | None = None,
    label_smoothing: float = 0.0,
    out: FloatArray | None = None,
) -> FloatArray:
    """Gradient of `cross_entropy` with respect to the logits: ``grad * (softmax(logits) * sum(wq) - wq)``.

    Here ``wq`` is weight times target distribution; without weights the gradient is softmax minus target.

    Parameters
    ----------
    grad : array_like
        Gradient with respect to the loss: a scalar for the reductions "mean" and "sum", an array of the shape of the
        per-sample losses for "none".
    logits, target, weight, ignore_index, reduction, axis, label_smoothing
        As given to `cross_entropy`.
    out : ndarray, optional
        As in `cross_entropy_value_and_grad`.

    Returns
    -------
    ndarray
        Of the logits' shape and dtype, or `out`. All 0 where nothing is left to average.

    Raises
    ------
    TypeError, ValueError, IndexError, numpy.exceptions.AxisError
        As in `cross_entropy`; ValueError also for `grad` or `out` that do not fit.

    Notes
    -----
    Special values and extra memory as in `cross_entropy_value_and_grad`. The function is the backward of
    ``torch.nn.functional.cross_entropy``.

    Examples
    --------
    >>> import crossent
    >>> crossent.cross_entropy_backward(2.0, [[1.0, 0.5, 2.0], [0.5, 3.0, 1.0]], [2, 1]).round(4)
    array([[ 0.2312,  0.1402, -0.3715],
           [ 0.0674, -0.1786,  0.1112]])
    """
    return _cross_entropy_backward(  # type: ignore[no-any-return]
        grad, logits, target, weight, ignore_index, reduction, axis, label_smoothing, out
    )


@overload
def cross_entropy_value_and_grad(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Literal["mean", "sum"] = "mean",
    axis: int | None = None,
    label_smoothing: float = 0.0,
    out: FloatArray | None = None,
) -> tuple[FloatScalar, FloatArray]: ...
@overload
def cross_entropy_value_and_grad(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Literal["none"],
    axis: int | None = None,
    label_smoothing: float = 0.0,
    out: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]: ...
def cross_entropy_value_and_grad(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    axis: int | None = None,
    label_smoothing: float = 0.0,
    out: FloatArray | None = None,
) -> tuple[FloatScalar | FloatArray, FloatArray]:
    """Cross-entropy and its gradient with respect to the logits, in one call that reads the logits once.

    Parameters
    ----------
    logits, target, weight, ignore_index, reduction, axis, label_smoothing
        As in `cross_entropy`.
    out : ndarray, optional
        Where to put the gradient: of the logits' shape and dtype, or of float32 for 16-bit logits (it is then not
        rounded to 16 bits). Any strides. It may be `logits` itself, or the probabilities of `target`, but not overlap an
        argument otherwise.

    Returns
    -------
    loss : NumPy scalar or ndarray
        ``cross_entropy(logits, target, ...)``.
    grad : ndarray
        Its gradient, of the logits' shape and dtype, or `out`. For the reduction "none" it is the gradient of the sum of
        the losses; where nothing is left to average it is 0.

    Raises
    ------
    TypeError, ValueError, IndexError, numpy.exceptions.AxisError
        As in `cross_entropy`; ValueError also if `out` does not fit: shape, dtype, not writeable, or overlapping. It is
        then untouched.

    Notes
    -----
    The gradient at a -inf logit is 0 or, where its target probability q is positive, -q times the class weight. A row
    that holds NaN or +inf, or only -inf, has the gradient NaN. Confident rows keep their relative accuracy: for the
    logits ``[30, 0, 0]`` and target 0 the gradient at the target is -1.87e-13, not 0.

    Extra memory as in `cross_entropy`: none of the logits' size when `out` is given. The gradient is that of
    ``torch.nn.functional.cross_entropy``.

    Examples
    --------
    >>> import crossent
    >>> loss, grad = crossent.cross_entropy_value_and_grad([0.0, 0.0, 0.0, 1.0], 3)
    >>> print(round(loss, 4))
    0.7437
    >>> grad.round(4)
    array([ 0.1749,  0.1749,  0.1749, -0.5246])
    """
    return _cross_entropy_value_and_grad(logits, target, weight, ignore_index, reduction, axis, label_smoothing, out)
