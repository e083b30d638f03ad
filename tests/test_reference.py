"""The oracle itself, against mpmath with 1200 bits (1 + 1e-321 must differ from 1): it must be far closer to the truth than any limit it decides about."""

import numpy as np
import pytest
import reference
from families import ROWS, rows_of
from helpers import WIDE, WIDE_IS_WIDER, spacing, widen

mpmath = pytest.importorskip("mpmath")


def exact_row(row, label):
    """(softmax, log_softmax, logsumexp, loss, gradient) of one row in mpmath."""
    with mpmath.workprec(1200):
        logits = [mpmath.mpf(float(x)) for x in row]
        powers = [mpmath.exp(x - max(logits)) for x in logits]
        total = mpmath.fsum(powers)
        log_total = max(logits) + mpmath.log(total)
        p = [power / total for power in powers]
        log_p = [x - log_total for x in logits]
        gradient = [q - (i == label) for i, q in enumerate(p)]
        return p, log_p, [log_total], [-log_p[label]], gradient


def to_wide(numbers):
    """mpmath's numbers as the sum of two float64, scaled out of the subnormal range where need be."""
    scaled = [(mpmath.ldexp(x, 1000), -1000) if abs(x) < 1e-280 else (x, 0) for x in numbers]
    return np.array([np.ldexp(np.longdouble(float(x)) + np.longdouble(float(x - float(x))), e) for x, e in scaled])


@pytest.mark.skipif(not WIDE_IS_WIDER, reason="the oracle is no wider than float64 here")
@pytest.mark.parametrize("kind", ROWS)
def test_the_oracle_agrees_with_mpmath(kind, wider_dtype):
    for rows in rows_of(kind, wider_dtype):
        row = rows[0][:200]
        row = row[np.isfinite(row)]  # test_impossible_classes_are_as_if_they_were_absent has the others
        label = int(row.argmax())
        p, log_p, total, loss, gradient = (to_wide(part) for part in exact_row(row, label))
        target = np.array(label)
        ours = [
            (reference.softmax(row), p, abs(p)),
            (reference.log_softmax(row), log_p, abs(log_p)),
            (reference.logsumexp(row), total[0], np.maximum(abs(total[0]), abs(widen(row)).max())),
            (reference.cross_entropy(row, target), loss[0], abs(loss[0])),
            (reference.cross_entropy_backward(1.0, row, target)[0], gradient, abs(gradient)),
        ]
        for i, (result, exact, size) in enumerate(ours):
            errors = abs(result - exact) / spacing(size, wider_dtype)
            assert errors.max() <= 0.01, (kind, rows.shape, i)


def test_impossible_classes_are_as_if_they_were_absent(wider_dtype):
    """But for the order in which the oracle adds up."""
    few_roundings = {"rtol": 16 * np.finfo(WIDE).eps}
    for rows in rows_of("impossible", wider_dtype):
        possible = np.isfinite(rows[0])
        short = rows[:, possible]
        for name in ("softmax", "log_softmax"):
            whole = getattr(reference, name)(rows)
            np.testing.assert_allclose(whole[:, possible], getattr(reference, name)(short), **few_roundings)
            assert (whole[:, ~possible] == (0 if name == "softmax" else -np.inf)).all()
        np.testing.assert_allclose(reference.logsumexp(rows), reference.logsumexp(short), **few_roundings)
