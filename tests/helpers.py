"""Shared by all tests: dtypes, errors counted in ULP, sample numbers, and memory layouts.

Nothing here knows what softmax is: that is reference.py.
"""

import numpy as np
import pytest

try:
    import ml_dtypes

    BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
except ImportError:
    BFLOAT16 = None

FLOAT16, FLOAT32, FLOAT64 = (np.dtype(name) for name in ("float16", "float32", "float64"))
WIDE = np.longdouble  # the reference computes in it; where it is no wider than float64, float64 results get more room
WIDE_IS_WIDER = np.finfo(WIDE).nmant > np.finfo(np.float64).nmant

WIDER_DTYPES = [pytest.param(FLOAT32, id="float32"), pytest.param(FLOAT64, id="float64")]
NARROW_DTYPES = [
    pytest.param(FLOAT16, id="float16"),
    pytest.param(BFLOAT16, id="bfloat16", marks=pytest.mark.skipif(BFLOAT16 is None, reason="needs ml_dtypes")),
]
DTYPES = WIDER_DTYPES + NARROW_DTYPES

# (significant bits, exponent of the smallest normal number)
FORMATS = {"float16": (11, -14), "bfloat16": (8, -126), "float32": (24, -126), "float64": (53, -1022)}
NARROW_HALF_ULP = 0.505  # what the 16-bit dtypes are promised: correctly rounded, but for 1 %


def available_dtypes():
    """The dtypes as a plain list, for loops inside a test."""
    return [dtype for dtype in (FLOAT32, FLOAT64, FLOAT16, BFLOAT16) if dtype is not None]


def is_narrow(dtype):
    return np.dtype(dtype).itemsize == 2


def accumulator(dtype):
    """The dtype of losses and of logsumexp: float32 for the 16-bit dtypes, else the dtype itself."""
    return FLOAT32 if is_narrow(dtype) else np.dtype(dtype)


def widen(values):
    """Any numbers, exactly, in WIDE."""
    values = np.asarray(values)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        if values.dtype == BFLOAT16:
            values = values.astype(np.float32)
        return values.astype(WIDE)


def round_to(values, dtype):
    """WIDE numbers rounded once to `dtype` (a double rounding by way of float32 stays within 0.5005 ULP)."""
    with np.errstate(all="ignore"):
        if np.dtype(dtype) == BFLOAT16:
            values = np.asarray(values).astype(np.float32)
        return np.asarray(values).astype(dtype)


def spacing(values, dtype):
    """The distance of neighbouring numbers of `dtype` at |values|, in WIDE; subnormals count with theirs."""
    digits, lowest = FORMATS[np.dtype(dtype).name]
    values = np.abs(np.asarray(values, WIDE))
    exponent = np.frexp(values)[1] - 1
    exponent = np.where(values == 0, lowest, np.maximum(exponent, lowest))
    return np.ldexp(np.ones_like(values), exponent - digits + 1)


def ulp_errors(actual, expected, scale=None):
    """|actual - expected| in ULP of actual's dtype at max(|expected|, |scale|); 0 where both are the same NaN or infinity.

    An infinity or NaN that stands in one of the two alone counts as an infinite error.
    """
    actual, expected = np.asarray(actual), np.asarray(expected, WIDE)
    assert actual.shape == expected.shape, f"shape {actual.shape}, not {expected.shape}"
    wide, rounded = widen(actual), widen(round_to(expected, actual.dtype))
    special = ~(np.isfinite(wide) & np.isfinite(rounded))
    same = (wide == rounded) | (np.isnan(wide) & np.isnan(rounded))
    size = np.abs(expected) if scale is None else np.maximum(np.abs(expected), np.abs(np.asarray(scale, WIDE)))
    with np.errstate(invalid="ignore"):
        errors = np.abs(wide - expected) / spacing(np.where(special, 1, size), actual.dtype)
    return np.where(special, np.where(same, 0, np.inf), errors)


def assert_ulps(actual, expected, ulps, scale=None, note=""):
    """Assert that `actual` is within `ulps` of `expected`, ULP taken at max(|expected|, |scale|).

    16-bit results: `ulps` counts float32 ULP at `scale` before the one rounding, which may add NARROW_HALF_ULP.
    """
    actual = np.asarray(actual)
    if is_narrow(actual.dtype):
        _assert_rounded_once(actual, np.asarray(expected, WIDE), ulps, scale, note)
        return
    if actual.dtype == FLOAT64 and not WIDE_IS_WIDER:
        ulps += 3
    errors = ulp_errors(actual, expected, scale)
    if errors.size and not errors.max() <= ulps:
        worst = np.unravel_index(np.argmax(errors), errors.shape)
        pytest.fail(
            f"{note}: {errors[worst]} ULP (limit {ulps}) at {tuple(map(int, worst))}: "
            f"{actual[worst]!r}, not {np.asarray(expected, WIDE)[worst]!r}"
        )


def _assert_rounded_once(actual, expected, ulps, scale, note):
    errors = ulp_errors(actual, expected)
    allowed = np.full(expected.shape, NARROW_HALF_ULP, WIDE)
    if scale is not None:
        finite = np.isfinite(expected) & np.isfinite(scale)
        slack = ulps * spacing(np.where(finite, scale, 0), FLOAT32)
        allowed += slack / spacing(np.where(finite, expected, 1), actual.dtype)
    if not (errors <= allowed).all():
        worst = np.unravel_index(np.argmax(errors - allowed), errors.shape)
        pytest.fail(
            f"{note}: {errors[worst]} ULP of {actual.dtype} (limit {allowed[worst]}) at {tuple(map(int, worst))}: "
            f"{actual[worst]!r}, not {expected[worst]!r}"
        )


def bits(array):
    """The bytes of the values, whatever the layout; all NaNs are one, since only their place is promised."""
    array = np.array(array, order="C")
    array[np.isnan(widen(array))] = np.nan if array.dtype.kind not in "iub" else 0
    return array.tobytes()


def assert_same_bits(actual, expected, note=""):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape and actual.dtype == expected.dtype, note
    if bits(actual) != bits(expected):
        different = np.argwhere(widen(actual) != widen(expected))
        pytest.fail(f"{note}: other bits, first at {different[:1].tolist()} of {len(different)}")


def normal(shape, dtype, scale=3.0, seed=0):
    """Reproducible normally distributed numbers."""
    rng = np.random.default_rng([seed, *np.atleast_1d(np.asarray(shape, int))])
    return round_to(rng.normal(scale=scale, size=shape), dtype)


def _sliced(x, step):
    """x as every second element along every axis of a larger array, forwards or backwards."""
    index = tuple(slice(None, None, step) for _ in x.shape)
    store = np.zeros([2 * n for n in x.shape], x.dtype)[index]
    store[...] = x
    return store


def _packed_field(x):
    """x as a field of a packed structured array: unaligned, and byte strides that are no multiple of the item size."""
    records = np.zeros(x.shape, np.dtype([("pad", "u1"), ("value", x.dtype)]))
    records["value"] = x
    return records["value"]


def _offset_by_a_byte(x):
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:]
    view = raw.view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def _first_axis_contiguous_last(x):
    """Axes rotated in memory: neither C nor Fortran order for three axes and more."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0)


def _padded(x):
    """Rows of a wider matrix: the last axis contiguous, with gaps between rows."""
    store = np.zeros((*x.shape[:-1], x.shape[-1] + 3), x.dtype)[..., : x.shape[-1]]
    store[...] = x
    return store


WRITEABLE_LAYOUTS = {
    "C": lambda x: np.array(x, order="C"),
    "Fortran": lambda x: np.array(x, order="F"),
    "rotated": _first_axis_contiguous_last,
    "padded": _padded,
    "sliced": lambda x: _sliced(x, 2),
    "negative": lambda x: _sliced(x, -2),
    "packed": _packed_field,
    "byte offset": _offset_by_a_byte,
}


def _read_only(x):
    x = np.array(x)
    x.flags.writeable = False
    return x


def _byte_swapped(x):
    return x.astype(x.dtype.newbyteorder("S"))


def layouts(x):
    """Yield (name, array) with the values of x (at least 1-D) in every memory layout that NumPy can express.

    Broadcast (stride 0) arrays are not here, since they cannot hold any values.
    """
    for name, arrange in WRITEABLE_LAYOUTS.items():
        yield name, arrange(x)
    yield "read-only", _read_only(x)
    if x.dtype != BFLOAT16 and x.dtype.itemsize > 1:  # NumPy cannot swap the bytes of dtypes from elsewhere
        yield "byte-swapped", _byte_swapped(x)


def outs(shape, dtype):
    """Yield (name, array) of arrays to write to, filled with a sentinel, in every writeable layout."""
    for name, arrange in WRITEABLE_LAYOUTS.items():
        yield name, arrange(np.full(shape, 77, dtype))


# The accuracy promised, in ULP of the result: (float32, float64). Losses of 16-bit logits are float32 within 4 ULP.
LIMITS = {
    "softmax": (3, 3),
    "log_softmax": (2.5, 3),
    "logsumexp": (2.5, 2.5),  # at max(|result|, |largest logit|)
    "loss": (2.5, 3),
    "reduced loss": (2, 3),
    "gradient off target": (3, 3),
    "gradient at target": (2.5, 4),
    "mixed gradient": (3, 4),  # smoothing, probability targets, softmax_backward: at the larger of the two terms
    "token log-prob": (2.5, 3),
    "entropy": (3, 4),
    "divergence": (3, 4),  # at the larger of the terms that it is the difference of
    "product": (1, 1),  # one multiplication: weighted nll_loss and its gradient
    # These two are relative errors, not ULP:
    "gradient sum": (2e-7, 5e-16),  # sum of a row's gradient for index targets, which is 0, over the sum of sizes
    "confident": (3e-7, 7e-16),  # losses of confident rows
}


def limit(kind, dtype):
    """The limit for an input of `dtype`."""
    if is_narrow(dtype) and ("loss" in kind or kind in ("token log-prob", "entropy", "divergence")):
        return 4
    return LIMITS[kind][0 if accumulator(dtype) == FLOAT32 else 1]
