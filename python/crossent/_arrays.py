"""Softmax and its relatives along an axis. All checks, and all work, happen in C++."""

from __future__ import annotations

from typing import Any

from ._core import log_softmax as _log_softmax
from ._core import log_softmax_backward as _log_softmax_backward
from ._core import logsumexp as _logsumexp
from ._core import softmax as _softmax
from ._core import softmax_backward as _softmax_backward
from ._typing import ArrayLike, Axis, FloatArray

__all__ = ["log_softmax", "log_softmax_backward", "logsumexp", "softmax", "softmax_backward"]


def softmax(x: ArrayLike, axis: Axis = -1, *, out: FloatArray | None = None) -> FloatArray:
    """Softmax along an axis: ``exp(x) / sum(exp(x))``.

    Parameters
    ----------
    x : array_like
        Logits in nats, of any shape and any strides. float32, float64, float16 and bfloat16 are computed as they are,
        the 16-bit ones accumulated in float32; booleans and integers become float64. Nothing is copied where the axis
        is contiguous.
    axis : int, tuple of ints or None, default -1
        The axis of the classes; a tuple or None takes several or all axes together.
    out : ndarray, optional
        Where to put the result: of x's shape and dtype, or of float32 for 16-bit x (the result is then not rounded to
        16 bits). Any strides, as long as no two elements share memory. It may be `x` itself, but not overlap it
        otherwise.

    Returns
    -------
    ndarray
        Of x's shape and dtype, or `out`.

    Raises
    ------
    TypeError
        If `x` is complex, object, string or longdouble.
    ValueError
        If `out` does not fit: shape, dtype, not writeable, or overlapping `x`. It is then untouched.
    numpy.exceptions.AxisError
        If `axis` is out of range.

    Notes
    -----
    A -inf logit is a class of probability 0. A row that holds NaN or +inf, or only -inf, gives NaN. An axis of length 0
    gives an empty result.

    Each row gives the same bits whatever the other rows, the number of threads and the alignment. Extra memory per
    thread: about 2 MiB at most, and 1 MiB or 16 rows of each of the arrays where more than 4096 classes are not
    contiguous.

    The function is ``torch.nn.functional.softmax`` and ``scipy.special.softmax``.

    Examples
    --------
    >>> import crossent
    >>> crossent.softmax([1.0, 0.5, 2.0]).round(4)
    array([0.2312, 0.1402, 0.6285])
    """
    return _softmax(x, axis, out)  # type: ignore[no-any-return]


def log_softmax(x: ArrayLike, axis: Axis = -1, *, out: FloatArray | None = None) -> FloatArray:
    """Logarithm of the softmax along an axis: ``x - logsumexp(x)``, in nats.

    Confident rows keep their relative accuracy: the log-probability of the first of the logits ``[30, 0, 0]`` is
    -1.87e-13, not 0.

    Parameters
    ----------
    x, axis, out
        As in `softmax`.

    Returns
    -------
    ndarray
        Of x's shape and dtype, or `out`. It is -inf for a -inf logit, and NaN all along a row that holds NaN or +inf,
        or only -inf.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As in `softmax`.

    Notes
    -----
    Extra memory as in `softmax`. The function is ``torch.nn.functional.log_softmax`` and
    ``scipy.special.log_softmax``.

    Examples
    --------
    >>> import crossent
    >>> crossent.log_softmax([1.0, 0.5, 2.0]).round(4)
    array([-1.4644, -1.9644, -0.4644])
    """
    return _log_softmax(x, axis, out)  # type: ignore[no-any-return]


def logsumexp(x: ArrayLike, axis: Axis = -1, *, keepdims: bool = False, out: FloatArray | None = None) -> Any:
    """Logarithm of the sum of exponentials along an axis: ``log(sum(exp(x)))``, in nats.

    Parameters
    ----------
    x, axis
        As in `softmax`.
    keepdims : bool, default False
        Keep the reduced axes, with length 1.
    out : ndarray, optional
        Where to put the result: of its shape and dtype, any strides, and not overlapping `x`.

    Returns
    -------
    ndarray or NumPy scalar
        Of x's shape without `axis` and of x's dtype, or float32 for 16-bit x; or `out`. NaN for a row that holds NaN,
        +inf for one that holds +inf, and -inf for one of only -inf or of no entries.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As in `softmax`.

    Notes
    -----
    Extra memory as in `softmax`. The function is ``torch.logsumexp`` and ``scipy.special.logsumexp``.

    Examples
    --------
    >>> import crossent
    >>> crossent.logsumexp([[1.0, 0.5, 2.0], [1000.0, 1000.0, 1000.0]]).round(4)
    array([   2.4644, 1001.0986])
    """
    return _logsumexp(x, axis, keepdims, out)


def softmax_backward(grad: ArrayLike, y: ArrayLike, axis: Axis = -1, *, out: FloatArray | None = None) -> FloatArray:
    """Gradient through `softmax`: ``y * (grad - sum(grad * y))``.

    Parameters
    ----------
    grad : array_like
        Gradient with respect to `y`, of y's shape.
    y : array_like
        ``softmax(x, axis)``.
    axis : int, tuple of ints or None, default -1
        The axis that `softmax` took.
    out : ndarray, optional
        As in `softmax`. It may be `grad` or `y` itself.

    Returns
    -------
    ndarray
        Gradient with respect to `x`, of y's shape and dtype, or `out`. A NaN anywhere in a row of `grad` or `y` makes
        the row NaN.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As in `softmax`; ValueError also if the shapes of `grad` and `y` differ.

    Notes
    -----
    Extra memory as in `softmax`. The function is the backward of ``torch.nn.functional.softmax``.

    Examples
    --------
    >>> import crossent
    >>> y = crossent.softmax([1.0, 0.5, 2.0])
    >>> crossent.softmax_backward([0.0, 0.0, 1.0], y).round(4)
    array([-0.1453, -0.0881,  0.2335])
    """
    return _softmax_backward(grad, y, axis, out)  # type: ignore[no-any-return]


def log_softmax_backward(
    grad: ArrayLike, y: ArrayLike, axis: Axis = -1, *, out: FloatArray | None = None
) -> FloatArray:
    """Gradient through `log_softmax`: ``grad - exp(y) * sum(grad)``.

    Parameters
    ----------
    grad : array_like
        Gradient with respect to `y`, of y's shape.
    y : array_like
        ``log_softmax(x, axis)``. Where it is -inf the result is `grad`.
    axis : int, tuple of ints or None, default -1
        The axis that `log_softmax` took.
    out : ndarray, optional
        As in `softmax`. It may be `grad` or `y` itself.

    Returns
    -------
    ndarray
        Gradient with respect to `x`, of y's shape and dtype, or `out`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As in `softmax`; ValueError also if the shapes of `grad` and `y` differ.

    Notes
    -----
    Extra memory as in `softmax`. The function is the backward of ``torch.nn.functional.log_softmax``.

    Examples
    --------
    >>> import crossent
    >>> y = crossent.log_softmax([1.0, 0.5, 2.0])
    >>> crossent.log_softmax_backward([0.0, 0.0, -1.0], y).round(4)
    array([ 0.2312,  0.1402, -0.3715])
    """
    return _log_softmax_backward(grad, y, axis, out)  # type: ignore[no-any-return]
