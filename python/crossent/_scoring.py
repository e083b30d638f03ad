"""Scores of logits: what is taken from them when a model is evaluated. All checks, and all work, happen in C++."""

from __future__ import annotations

from typing import Any, NamedTuple

from ._core import logit_stats as _logit_stats
from ._core import token_log_probs as _token_log_probs
from ._typing import ArrayLike, FloatArray

__all__ = ["LogitStats", "logit_stats", "token_log_probs"]


class LogitStats(NamedTuple):
    """What `logit_stats` tells: arrays with an entry a row, NumPy scalars for a single row.

    Parameters
    ----------
    max : ndarray or NumPy scalar
        The largest logit.
    log_sum : ndarray or NumPy scalar
        ``log(sum(exp(logits - max)))``, so that ``max + log_sum`` is `logsumexp`.
    argmax : ndarray or NumPy scalar
        The class of the largest logit.
    entropy : ndarray or NumPy scalar
        Of ``softmax(logits)``, in nats.
    target_log_prob : ndarray, NumPy scalar or None
        ``log_softmax(logits)`` at the target; None without target.
    target_rank : ndarray, NumPy scalar or None
        How many classes come before the target, 0 for the most probable one; None without target.
    top_indices : ndarray or None
        The `top_k` most probable classes along a last axis, most probable first; None for ``top_k=0``.
    top_log_probs : ndarray or None
        Their log-probabilities; None for ``top_k=0``.
    """

    max: Any
    log_sum: Any
    argmax: Any
    entropy: Any
    target_log_prob: Any
    target_rank: Any
    top_indices: Any
    top_log_probs: Any


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
    confident rows keep their relative accuracy, and a constant that is added exactly to all logits changes no bit (as
    long as their distances from the maximum are numbers of their dtype, too; else perhaps a last one).
    Extra memory as in `softmax`, and 16 bytes for each of the K classes of a row.

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


def logit_stats(logits: ArrayLike, target: ArrayLike | None = None, axis: int = -1, *, top_k: int = 0) -> LogitStats:
    """Everything that is usually taken from logits, in one read: maximum, entropy, the target's rank, the top k.

    Parameters
    ----------
    logits : array_like
        Logits in nats, of any shape and any strides; dtypes as in `softmax`.
    target : array_like of integers, optional
        A class for each row, of any integer dtype, in the shape of `logits` without `axis`.
    axis : int, default -1
        The axis of the classes.
    top_k : int, default 0
        How many of the most probable classes to tell, at most C.

    Returns
    -------
    LogitStats
        A named tuple of arrays in the shape of `logits` without `axis`: ``max``, ``log_sum``, ``argmax``, ``entropy``,
        ``target_log_prob`` and ``target_rank`` (None without target), and ``top_indices`` and ``top_log_probs`` with
        one more axis of length `top_k` (None for 0). Indices and ranks are int64, the other dtypes that of logits,
        float32 for 16-bit ones. For one row they are NumPy scalars.

    Raises
    ------
    TypeError
        If `logits` is complex, object, string or longdouble, or `target` not of an integer dtype.
    ValueError
        If the shapes do not fit, there are no classes, or `top_k` is negative or greater than C.
    IndexError
        If an entry of `target` is outside [0, C).
    numpy.exceptions.AxisError
        If `axis` is out of range.

    Notes
    -----
    Classes with equal logits come in the order of their indices, in argmax, rank and top k alike. A class of logit -inf
    adds nothing to the entropy. A row of only -inf, or with +inf, has log_sum 0, and its entropy and log-probabilities
    are NaN. In a row with NaN all of them are NaN, and NaN counts as the largest logit, as in `numpy.argmax`.

    Each row gives the same bits whatever the other rows and the number of threads. Extra memory as in `softmax`, and 16
    bytes for each of the top k of up to 512 rows at a time.

    Examples
    --------
    >>> import crossent
    >>> stats = crossent.logit_stats([[1.0, 0.5, 2.0], [0.0, 0.0, 0.0]], [0, 1], top_k=2)
    >>> stats.entropy.round(4)
    array([0.906 , 1.0986])
    >>> stats.target_rank
    array([1, 1])
    >>> stats.top_indices
    array([[2, 0],
           [0, 1]])
    """
    return LogitStats(*_logit_stats(logits, target, axis, top_k))
