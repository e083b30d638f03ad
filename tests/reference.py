"""The oracle: softmax, log-softmax, logsumexp, NLL and cross-entropy, slow and readable, in WIDE precision.

Every function takes arrays of any dtype, copies them to WIDE rows of shape (rows, classes) and follows the formula. The
maximum is taken out of the sum (log1p of the rest), so confident rows keep their digits. Backward functions return
(gradient, scale), scale being the size of the larger of the two terms whose difference the gradient is: errors are
counted in ULP at that size. Checked against mpmath in test_reference.py, against PyTorch in test_against_torch.py.
"""

from typing import NamedTuple

import numpy as np
from helpers import WIDE, widen

INFINITY = WIDE(np.inf)
quiet = np.errstate(all="ignore")


# --- arrays of any rank as rows -------------------------------------------------------------------------------------


class Rows(NamedTuple):
    values: np.ndarray  # (rows, classes)
    moved: tuple  # the shape with the class axes last
    axes: tuple  # where the class axes were
    shape: tuple  # the original shape

    def restore(self, values):
        """(rows, classes) back to the original shape."""
        last = range(-len(self.axes), 0)
        return np.moveaxis(values.reshape(self.moved), last, self.axes).reshape(self.shape)

    def restore_reduced(self, values, keepdims=False):
        """One number a row, back to the original shape without its class axes (or with 1 for them)."""
        shape = self.moved[: len(self.moved) - len(self.axes)]
        if keepdims and self.shape:
            shape = [1 if i in self.axes else n for i, n in enumerate(self.shape)]
        return values.reshape(shape)


def as_rows(x, axis):
    x = widen(x)
    shape = x.shape
    if x.ndim == 0:
        x, axis = x.reshape(1), 0
    axes = range(x.ndim) if axis is None else np.atleast_1d(axis).tolist()
    axes = tuple(a % x.ndim for a in axes)
    moved = np.moveaxis(x, axes, range(-len(axes), 0))
    classes = int(np.prod([x.shape[a] for a in axes]))
    count = int(np.prod(moved.shape[: x.ndim - len(axes)]))
    return Rows(np.array(moved).reshape(count, classes), moved.shape, axes, shape)


def loss_axis(logits, axis):
    """PyTorch's rule for axis=None."""
    ndim = np.ndim(logits)
    return (1 if ndim > 1 else 0) if axis is None else axis % ndim


# --- one row each ---------------------------------------------------------------------------------------------------


class Analysis(NamedTuple):
    peak: np.ndarray  # max(x), (rows, 1)
    distance: np.ndarray  # x - max(x); NaN where a row cannot be normalized
    powers: np.ndarray  # exp of it
    rest: np.ndarray  # their sum, less 1 for one of the maxima, (rows, 1)


@quiet
def analyse(rows):
    peak = rows.max(axis=1, keepdims=True, initial=-INFINITY)  # NaN if the row holds one
    distance = np.where(np.isfinite(peak), rows - peak, WIDE(np.nan))
    found = distance - rows  # what the rounded difference lost (Knuth's two-sum), which exp would multiply
    lost = (rows - (distance - found)) - (peak + found)
    powers = np.exp(distance) * (1 + np.where(np.isfinite(lost), lost, 0))
    ties = np.count_nonzero(distance == 0, axis=1, keepdims=True)
    rest = (ties - 1) + np.where(distance == 0, WIDE(0), powers).sum(axis=1, keepdims=True)
    return Analysis(peak, distance, powers, rest)


@quiet
def softmax_rows(rows):
    row = analyse(rows)
    return row.powers / (1 + row.rest)


@quiet
def log_softmax_rows(rows):
    row = analyse(rows)
    return row.distance - np.log1p(row.rest)


@quiet
def logsumexp_rows(rows):
    peak, _, _, rest = analyse(rows)
    return np.where(np.isfinite(peak), peak + np.log1p(rest), peak)[:, 0]  # else NaN, +inf or (also no class) -inf


@quiet
def cross_entropy_rows(rows, q):
    """-sum(q log p); a class whose q is 0 contributes 0, also where its log-probability is -inf; NaN where that is NaN."""
    log_p = log_softmax_rows(rows)
    return -np.where((q == 0) & ~np.isnan(log_p), WIDE(0), q * log_p).sum(axis=1)


@quiet
def cross_entropy_gradient_rows(rows, q):
    """p sum(q) - q, and the size of the larger term."""
    p, total = softmax_rows(rows), q.sum(axis=1, keepdims=True)
    return p * total - q, np.maximum(np.abs(p * total), np.abs(q))


@quiet
def one_hot_gradient_rows(rows, q):
    """The same for one class alone: q (p - 1) there is -q times the other probabilities, without cancellation."""
    p = softmax_rows(rows)
    hit = q != 0
    others = np.where(hit, WIDE(0), p).sum(axis=1, keepdims=True) + p * 0
    gradient = np.where(hit, -q * others, p * q.sum(axis=1, keepdims=True))
    return gradient, np.abs(gradient)


# --- section 1 of the interface -------------------------------------------------------------------------------------


def softmax(x, axis=-1):
    rows = as_rows(x, axis)
    return rows.restore(softmax_rows(rows.values))


def log_softmax(x, axis=-1):
    rows = as_rows(x, axis)
    return rows.restore(log_softmax_rows(rows.values))


def logsumexp(x, axis=-1, keepdims=False):
    rows = as_rows(x, axis)
    return rows.restore_reduced(logsumexp_rows(rows.values), keepdims)


def logsumexp_scale(x, axis=-1, keepdims=False):
    """The largest finite |max| of each row: what the error of logsumexp is measured against, beside the result."""
    rows = as_rows(x, axis)
    peak = np.abs(rows.values.max(axis=1, initial=-INFINITY))
    return rows.restore_reduced(np.where(np.isfinite(peak), peak, 0), keepdims)


@quiet
def softmax_backward(grad, y, axis=-1):
    """y (g - sum(g y))."""
    rows, g = as_rows(y, axis), as_rows(grad, axis).values
    product = g * rows.values
    gradient = rows.values * (g - product.sum(axis=1, keepdims=True))
    scale = np.abs(rows.values) * np.maximum(np.abs(g), np.abs(product).sum(axis=1, keepdims=True))
    return rows.restore(gradient), rows.restore(scale)


@quiet
def log_softmax_backward(grad, y, axis=-1):
    """g - exp(y) sum(g)."""
    rows, g = as_rows(y, axis), as_rows(grad, axis).values
    p = np.exp(rows.values)
    gradient = g - p * g.sum(axis=1, keepdims=True)
    scale = np.maximum(np.abs(g), p * np.abs(g).sum(axis=1, keepdims=True))
    return rows.restore(gradient), rows.restore(scale)


class Samples(NamedTuple):
    """A loss's arguments, one entry a row; ignored rows have kept == False and q == 0."""

    rows: Rows
    q: np.ndarray  # target probability times class weight (rows, classes)
    kept: np.ndarray  # (rows,)
    divisor: object  # of the mean
    one_hot: bool


def samples(logits, target, weight=None, ignore_index=-100, axis=None, label_smoothing=0.0):
    axis = loss_axis(logits, axis)
    rows = as_rows(logits, axis)
    count, classes = rows.values.shape
    weight = np.ones(classes, WIDE) if weight is None else widen(weight)
    target = np.asarray(target)
    smoothing = WIDE(label_smoothing)
    if target.dtype.kind in "iu":
        labels = [int(t) for t in target.ravel()]
        kept = np.array([label != int(ignore_index) for label in labels], bool)
        q = np.zeros((count, classes), WIDE)
        for i in np.flatnonzero(kept):
            q[i, labels[i]] = 1
        divisor = (q * weight).sum()
    else:
        kept = np.ones(count, bool)
        q = as_rows(target, axis).values
        divisor = WIDE(count)
    q = weight * ((1 - smoothing) * q + smoothing / classes)
    q[~kept] = 0
    return Samples(rows, q, kept, divisor, target.dtype.kind in "iu" and label_smoothing == 0)


@quiet
def reduce_losses(losses, batch, reduction):
    if reduction == "none":
        return batch.rows.restore_reduced(losses)
    if reduction == "sum":
        return losses.sum()
    return losses.sum() / batch.divisor if batch.divisor != 0 else WIDE(np.nan)  # also where smoothing leaves a loss


@quiet
def row_factors(grad, batch, reduction):
    """What each row's gradient is multiplied by, (rows, 1); 0 where nothing is left to average."""
    factor = widen(grad).reshape(-1, 1)
    if reduction == "mean":
        factor = factor / batch.divisor if batch.divisor != 0 else WIDE(0)
    return np.broadcast_to(factor, (len(batch.kept), 1))


def cross_entropy(logits, target, reduction="mean", **options):
    batch = samples(logits, target, **options)
    losses = np.zeros(len(batch.kept), WIDE)
    losses[batch.kept] = cross_entropy_rows(batch.rows.values[batch.kept], batch.q[batch.kept])
    return reduce_losses(losses, batch, reduction)


@quiet
def cross_entropy_backward(grad, logits, target, reduction="mean", **options):
    batch = samples(logits, target, **options)
    rule = one_hot_gradient_rows if batch.one_hot else cross_entropy_gradient_rows
    gradient, scale = np.zeros_like(batch.q), np.zeros_like(batch.q)
    kept = batch.kept
    gradient[kept], scale[kept] = rule(batch.rows.values[kept], batch.q[kept])
    factor = row_factors(grad, batch, reduction)
    nothing_left = batch.divisor == 0 and reduction == "mean"
    gradient = np.zeros_like(gradient) if nothing_left else np.where(kept[:, None], factor * gradient, WIDE(0))
    return batch.rows.restore(gradient), batch.rows.restore(np.abs(factor) * scale)


@quiet
def nll_loss(log_probs, target, reduction="mean", **options):
    batch = samples(log_probs, target, **options)
    losses = -np.where(batch.q == 0, WIDE(0), batch.q * batch.rows.values).sum(axis=1)
    return reduce_losses(losses, batch, reduction)


def nll_loss_backward(grad, log_probs, target, reduction="mean", **options):
    batch = samples(log_probs, target, **options)
    gradient = batch.rows.restore(-row_factors(grad, batch, reduction) * batch.q)
    return gradient, np.abs(gradient)


# --- section 2 of the interface: scores -------------------------------------------------------------------------------


def token_log_probs(logits, index, axis=-1):
    """log_softmax at one class of each row, or at K of them."""
    rows = as_rows(logits, axis)
    index = np.asarray(index)
    log_p = log_softmax_rows(rows.values)
    chosen = np.take_along_axis(log_p, index.reshape(len(log_p), index.size // max(len(log_p), 1)).astype(np.int64), 1)
    return chosen.reshape(index.shape)


class Ranking(NamedTuple):
    """Classes from the most to the least probable: ties by index, NaN before all numbers."""

    order: np.ndarray  # (rows, classes)
    place: np.ndarray  # of each class in it


def rank_rows(rows):
    key = np.where(np.isnan(rows), INFINITY, rows)
    order = np.lexsort((-key, ~np.isnan(rows)), axis=1)
    return Ranking(order, np.argsort(order, axis=1))


@quiet
def entropy_rows(rows):
    """-sum(p log p) as log(sum) + sum(p (max - x)): no term is negative."""
    row = analyse(rows)
    distance = np.where(np.isneginf(row.distance), WIDE(0), -row.distance)
    moment = (row.powers * distance).sum(axis=1) / (1 + row.rest[:, 0])
    return np.log1p(row.rest[:, 0]) + moment


@quiet
def logit_stats(logits, target=None, axis=-1, top_k=0):
    """A dict of the fields of LogitStats, each of the rows' shape (and K)."""
    rows = as_rows(logits, axis)
    values = rows.values
    row = analyse(values)
    peak, usable = row.peak[:, 0], np.isfinite(row.peak[:, 0])
    ranking, log_p = rank_rows(values), log_softmax_rows(values)
    stats = {
        "max": peak,
        "log_sum": np.where(usable, np.log1p(row.rest[:, 0]), np.where(np.isnan(peak), WIDE(np.nan), WIDE(0))),
        "argmax": ranking.order[:, 0],
        "entropy": entropy_rows(values),
    }
    if target is not None:
        chosen = np.asarray(target).reshape(-1, 1).astype(np.int64)
        stats["target_log_prob"] = np.take_along_axis(log_p, chosen, 1)[:, 0]
        stats["target_rank"] = np.take_along_axis(ranking.place, chosen, 1)[:, 0]
    stats = {name: rows.restore_reduced(field) for name, field in stats.items()}
    if top_k:
        top = ranking.order[:, :top_k]
        shape = (*stats["max"].shape, top_k)
        stats |= {
            "top_indices": top.reshape(shape),
            "top_log_probs": np.take_along_axis(log_p, top, 1).reshape(shape),
        }
    return stats


class Divergence(NamedTuple):
    values: np.ndarray  # one a row
    scale: np.ndarray  # the largest of the terms that they are the difference of
    gradient: np.ndarray  # with respect to q's logits, of the sum
    gradient_scale: np.ndarray


@quiet
def kl_divergence(p_logits, q_logits, axis=-1, temperature=1.0):
    """sum(p (log p - log q)), 0 where p is 0; and (q - p) / T."""
    rows, others = as_rows(p_logits, axis), as_rows(q_logits, axis)
    t = WIDE(temperature)
    p_row, q_row = analyse(rows.values / t), analyse(others.values / t)
    p, q = (row.powers / (1 + row.rest) for row in (p_row, q_row))
    p_log_sum, q_log_sum = np.log1p(p_row.rest), np.log1p(q_row.rest)
    impossible = np.isneginf(p_row.distance)
    difference = np.where(impossible, WIDE(0), p_row.distance - q_row.distance)
    term = np.where((p == 0) & np.isfinite(q_row.distance), WIDE(0), p * difference)
    term = np.where(np.isneginf(q_row.distance) & ~impossible, INFINITY, term)
    values = term.sum(axis=1) + (q_log_sum - p_log_sum)[:, 0]
    values[np.isnan(p_row.rest + q_row.rest)[:, 0]] = np.nan
    scale = np.maximum(np.abs(term).sum(axis=1), np.maximum(p_log_sum, q_log_sum)[:, 0])
    scale = np.where(np.isfinite(scale), scale, 0)
    gradient = (q - p) / t
    return Divergence(
        rows.restore_reduced(values),
        rows.restore_reduced(scale),
        rows.restore(gradient),
        rows.restore(np.maximum(p, q) / t),
    )
