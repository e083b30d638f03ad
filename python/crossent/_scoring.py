"""Scores of logits: what is taken from them when a model is evaluated. All checks, and all work, happen in C++."""

from __future__ import annotations

from typing import Any

from ._core import token_log_probs as _token_log_probs
from ._typing import ArrayLike, FloatArray

__all__ = ["token_log_probs"]


def token_log_probs(logits: ArrayLike, index: ArrayLike, axis: int = -1, *, out: FloatArray | None = None) -> Any:
    """Log-probabilities of chosen classes: `log_softmax` at `index`, without the array of all others.

    Parameters
    ----------
    logits : array_like
        Logits in nats, of any shape and any strides; dtypes as in `softmax`.
    index : array_like of integers
        The classes, of any integer dtype: one for each row, in the shape of `logits` without `axis`; or K for each row,
        along a last axis of its own, ``(..., K)``.
    axis : int, default -1
        The axis of the classes.
    out : ndarray, optional
        Where to put the result: of its shape and dtype, any strides. It may be `logits` itself where the shapes agree,
        but not overlap an argument otherwise.

    Returns
    -------
    ndarray or NumPy scalar
        Natural logarithms, of index's shape; of logits' dtype, or float32 for 16-bit logits; or `out`. It is -inf for a
        -inf logit, and NaN in a row that holds NaN or +inf, or only -inf.

    Raises
    ------
    TypeError
        If `logits` is complex, object, string or longdouble, or `index` not of an integer dtype.
    ValueError
        If the shapes do not fit, there are no classes, or `out` does not fit. It is then untouched.
    IndexError
        If an entry of `index` is outside [0, C).
    numpy.exceptions.AxisError
        If `axis` is out of range.

    Notes
    -----
    The logits are read once; each result is ``(x - max) - log(sum(exp(x - max)))`` in float64, rounded once, so that
    confident rows keep their relative accuracy, and a constant that is added exactly to all logits changes no bit.
    Extra memory as in `softmax`, and 16 K bytes.

    The function is ``torch.gather(torch.log_softmax(logits, axis), axis, index)`` for the class axis last.

    Examples
    --------
    >>> import crossent
    >>> logits = [[1.0, 0.5, 2.0], [30.0, 0.0, 0.0]]
    >>> crossent.token_log_probs(logits, [2, 0])
    array([-4.64368784e-01, -1.87152459e-13])
    >>> crossent.token_log_probs(logits, [[0, 1], [1, 2]]).round(2)
    array([[ -1.46,  -1.96],
           [-30.  , -30.  ]])
    """
    return _token_log_probs(logits, index, axis, out)
