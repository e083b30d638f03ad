"""KL divergence of two softmaxes, and its gradient. All checks, and all work, happen in C++."""

from __future__ import annotations

from typing import Any

from ._core import kl_divergence as _kl_divergence
from ._core import kl_divergence_value_and_grad as _kl_divergence_value_and_grad
from ._typing import ArrayLike, FloatArray, Reduction

__all__ = ["kl_divergence", "kl_divergence_value_and_grad"]


def kl_divergence(
    p_logits: ArrayLike,
    q_logits: ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Any:
    """Kullback-Leibler divergence ``KL(softmax(p_logits / T) || softmax(q_logits / T))``, in nats.

    How much is lost where the model of `q_logits` stands in for that of `p_logits`: a quantized model for the original,
    a student for its teacher.

    Parameters
    ----------
    p_logits, q_logits : array_like
        Logits in nats, of one shape, with any strides; dtypes as in `softmax`. Where the dtypes differ, both are
        converted to float32 or float64, with copies.
    axis : int, default -1
        The axis of the classes.
    temperature : float, default 1.0
        T, between 1e-30 and 1e30. There is no factor T**2; distillation losses that have one multiply by it.
    reduction : {"mean", "none", "sum"}, default "mean"
        Over the rows.

    Returns
    -------
    NumPy scalar or ndarray
        Of the logits' dtype, float32 for 16-bit ones; for "none" an array of the shape of `p_logits` without `axis`. It
        is never negative, and 0 for equal logits. +inf where q is 0 for a class that p is not. NaN for a row that holds
        NaN or +inf, or only -inf, in either array, and for the mean of no rows.

    Raises
    ------
    TypeError
        If an array is complex, object, string or longdouble.
    ValueError
        If the shapes differ, there are no classes, or `temperature` or `reduction` is none.
    numpy.exceptions.AxisError
        If `axis` is out of range.

    Notes
    -----
    Both arrays are read once. A class of which p is 0 adds 0. The result is a sum of differences of log-probabilities,
    accurate to a few ULP of the largest of these differences, weighted by their probabilities; where the two rows are
    almost equal, the divergence is much smaller than that, and has fewer digits. Extra memory as in `softmax`.

    The function is ``torch.nn.functional.kl_div(log_q, log_p, log_target=True)`` of the two log-softmaxes, summed over
    `axis`.

    Examples
    --------
    >>> import crossent
    >>> print(f"{crossent.kl_divergence([1.0, 0.5, 2.0], [1.0, 1.0, 1.0]):.4f}")
    0.1927
    """
    return _kl_divergence(p_logits, q_logits, axis, temperature, reduction)


def kl_divergence_value_and_grad(
    p_logits: ArrayLike,
    q_logits: ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    out: FloatArray | None = None,
) -> tuple[Any, FloatArray]:
    """`kl_divergence` and its gradient with respect to `q_logits`, ``(softmax(q / T) - softmax(p / T)) / T``.

    Parameters
    ----------
    p_logits, q_logits, axis, temperature, reduction
        As in `kl_divergence`.
    out : ndarray, optional
        Where to put the gradient: of the logits' shape and dtype, or of float32 for 16-bit logits. Any strides. It may be
        `p_logits` or `q_logits` itself, but not overlap them otherwise.

    Returns
    -------
    loss : NumPy scalar or ndarray
        As `kl_divergence` returns it.
    grad : ndarray
        Of the shape and dtype of the logits, or `out`. For "none" it is the gradient of the sum, for "mean" it is divided
        by the number of rows. Equal logits give exactly 0, and a row whose loss is NaN gives NaN.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As in `kl_divergence`; ValueError also if `out` does not fit. It is then untouched.

    Examples
    --------
    >>> import crossent
    >>> loss, grad = crossent.kl_divergence_value_and_grad([1.0, 0.5, 2.0], [1.0, 1.0, 1.0])
    >>> grad.round(4)
    array([ 0.1021,  0.1931, -0.2952])
    """
    return _kl_divergence_value_and_grad(p_logits, q_logits, axis, temperature, reduction, out)
