"""Evaluation of a classifier or language model over any number of batches, with sums that no rounding touches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._core import evaluate as _evaluate
from ._typing import ArrayLike

__all__ = ["Evaluation", "Evaluator", "split"]

# Arrays are worked through in pieces of this many bytes, in case they have to be converted.
BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class Evaluation:
    """What an `Evaluator` has found.

    Parameters
    ----------
    count : int
        Samples that were not ignored.
    loss : float
        Their mean cross-entropy in nats; NaN if there are none.
    perplexity : float
        ``exp(loss)``.
    accuracy : dict of int to float
        For each k of `top_k`, the share of samples whose target is among the k most probable classes.
    """

    count: int
    loss: float
    perplexity: float
    accuracy: dict[int, float]


class Evaluator:
    """Loss, perplexity and accuracy over many batches, the same to the last bit however the samples were split.

    The batches may be of any shape and of any dtype that `cross_entropy` takes.

    Parameters
    ----------
    ignore_index : int, default -100
        Samples with this target are left out, and their logits not read.
    top_k : int or sequence of ints, default (1, 5)
        The numbers k for which to count how often the target is among the k most probable classes. Ties go to the lower
        class, as in `logit_stats`.

    Raises
    ------
    ValueError
        If a k is less than 1.

    Notes
    -----
    The losses of all samples, in float64, are added up exactly, in integer arithmetic, and `result` rounds once: it does
    not depend on the batches, on their order, on the tree of merges, or on threads. An evaluator can be pickled, and so
    sent back from worker processes.

    Examples
    --------
    >>> import crossent
    >>> evaluator = crossent.Evaluator(top_k=(1, 2))
    >>> for logits, target in [([[1.0, 0.5, 2.0], [0.0, 0.0, 0.0]], [2, 1]), ([[0.5, 3.0, 1.0]], [0])]:
    ...     evaluator = evaluator.update(logits, target)
    >>> result = evaluator.result()
    >>> result.count, round(result.loss, 4), round(result.perplexity, 4)
    (3, 1.4199, 4.1367)
    >>> result.accuracy
    {1: 0.3333333333333333, 2: 0.6666666666666666}
    """

    def __init__(self, ignore_index: int = -100, top_k: int | Sequence[int] = (1, 5)) -> None:
        self._ignore_index = index(ignore_index)
        self._top_k = tuple(index(k) for k in top_k) if np.iterable(top_k) else (index(top_k),)
        for k in self._top_k:
            if k < 1:
                raise ValueError(f"top_k must hold numbers of at least 1, not {k}")
        self._count = 0
        self._hits = [0] * len(self._top_k)
        self._loss = 0  # in units of 2**-self._scale
        self._scale = 0
        self._special = 0.0  # what infinite and NaN losses add up to

    def update(self, logits: ArrayLike, target: ArrayLike, axis: int = -1) -> Evaluator:
        """Add samples.

        Parameters
        ----------
        logits : array_like
            Logits of any shape, strides and dtype of `cross_entropy`. Memory-mapped arrays are read once, in blocks, so
            that they may be larger than memory.
        target : array_like of integers
            Class indices in the shape of `logits` without `axis`, or `ignore_index`.
        axis : int, default -1
            The axis of the classes.

        Returns
        -------
        Evaluator
            This one.

        Raises
        ------
        TypeError, ValueError, IndexError, numpy.exceptions.AxisError
            As in `logit_stats`. The evaluator is then as it was.
        """
        added = Evaluator(self._ignore_index, self._top_k)
        try:
            for some_logits, some_target, class_axis in _blocks(logits, target, axis):
                added._add(some_logits, some_target, class_axis)
        except IndexError:
            if isinstance(logits, np.ndarray):  # name the position in the whole array, not in a piece of it
                added._add(_only_shape(logits), target, axis)
            raise
        return self.merge(added)

    def _add(self, logits: ArrayLike, target: ArrayLike, axis: int) -> None:
        count, hits, digits, special, scale = _evaluate(logits, target, axis, self._ignore_index, self._top_k)
        self._count += count
        self._hits = [a + b for a, b in zip(self._hits, hits, strict=True)]
        self._loss += sum(digit << (32 * i) for i, digit in enumerate(digits) if digit)
        self._special += special
        self._scale = scale

    def merge(self, other: Evaluator) -> Evaluator:
        """Add the samples of another evaluator.

        Parameters
        ----------
        other : Evaluator
            One with the same `top_k`; it stays as it is.

        Returns
        -------
        Evaluator
            This one.

        Raises
        ------
        TypeError
            If `other` is no evaluator.
        ValueError
            If the `top_k` differ.
        """
        if not isinstance(other, Evaluator):
            raise TypeError(f"other must be an Evaluator, not {type(other).__name__}")
        if self._top_k != other._top_k:
            raise ValueError(f"evaluators with different top_k cannot be merged: {self._top_k} and {other._top_k}")
        self._count += other._count
        self._hits = [a + b for a, b in zip(self._hits, other._hits, strict=True)]
        self._loss += other._loss
        self._special += other._special
        self._scale = max(self._scale, other._scale)  # it is 0 for an evaluator without samples, else a constant
        return self

    def result(self) -> Evaluation:
        """Loss, perplexity and accuracy of the samples so far.

        Returns
        -------
        Evaluation
            ``count``, ``loss`` (mean cross-entropy in nats), ``perplexity`` and ``accuracy``, a
            dictionary from each k to a share. All but the count are NaN without samples.
        """
        if self._count == 0:
            return Evaluation(0, math.nan, math.nan, dict.fromkeys(self._top_k, math.nan))
        loss = self._special + self._loss / (self._count << self._scale)  # a division of integers rounds once
        try:
            perplexity = math.exp(loss)
        except OverflowError:
            perplexity = math.inf
        shares = (hits / self._count for hits in self._hits)
        return Evaluation(self._count, loss, perplexity, dict(zip(self._top_k, shares, strict=True)))

    def __repr__(self) -> str:
        return f"<crossent.Evaluator of {self._count} samples, top_k={self._top_k}>"


def _blocks(logits: ArrayLike, target: ArrayLike, axis: int) -> Iterator[tuple[ArrayLike, ArrayLike, int]]:
    """`logits` and `target` as they are, or, if they are large arrays, in pieces of some rows and the same axis."""
    if not isinstance(logits, np.ndarray) or logits.nbytes <= BLOCK_BYTES or not -logits.ndim <= axis < logits.ndim:
        yield logits, target, axis
        return
    axis %= logits.ndim
    target = target if isinstance(target, np.ndarray) else np.asarray(target)
    rows = logits.shape[:axis] + logits.shape[axis + 1 :]
    if target.shape != rows:  # an error, which the compiled code words: let it see the shapes alone
        yield _only_shape(logits), target, axis
        return
    yield from split(logits, target, axis, BLOCK_BYTES)


def _only_shape(logits: NDArray[Any]) -> NDArray[Any]:
    """Something of the same shape that takes no memory."""
    return np.broadcast_to(np.float32(0), logits.shape)


def split(
    logits: NDArray[Any], target: NDArray[Any], axis: int, most: int, like: NDArray[Any] | None = None
) -> Iterator[tuple[NDArray[Any], NDArray[Any], int]]:
    """Pieces of some rows of `logits`, of at most so many bytes where there are several rows, their targets, and `axis`.

    `like` is another array of logits' shape, whose pieces would be these (by default, `logits` itself).
    """
    like = logits if like is None else like
    others = [d for d in range(like.ndim) if d != axis and like.shape[d] > 1]
    if like.nbytes <= most or not others:
        yield logits, target, axis
        return
    along = max(others, key=lambda d: abs(like.strides[d]))
    step = max(1, most // (like.nbytes // like.shape[along]))
    for first in range(0, like.shape[along], step):
        piece = (*(slice(None),) * along, slice(first, first + step))
        target_piece = (*(slice(None),) * (along - (along > axis)), slice(first, first + step))
        yield from split(logits[piece], target[target_piece], axis, most, like[piece])
