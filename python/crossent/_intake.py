"""Array-likes to arrays: the slow path of argument handling.

The compiled module takes plain ndarrays of a dtype that it computes in, or of native integers as a target, as they
are. It calls `as_floating` and `as_target` for everything else: lists, scalars, other dtypes and byte orders, ndarray
subclasses, and arrays of other libraries. Memory is shared wherever NumPy can view it.
"""

from __future__ import annotations

import sys
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["as_floating", "as_target"]

Array = NDArray[Any]

_INT64 = np.iinfo(np.int64)


def as_floating(obj: object, name: str) -> Array:
    """`obj` as a plain array of native float16, bfloat16, float32 or float64; booleans and integers become float64.

    `name` is the argument's name in messages. TypeError for any other dtype.
    """
    array = _as_array(obj, name)
    if array.dtype.kind in "biu":
        return array.astype(np.float64)
    floating = _native_floating(array)
    if floating is None:
        raise TypeError(f"{name} must be floating point, integer or boolean (longdouble excepted), {_found(array)}")
    return floating


def as_target(obj: object, name: str, may_be_probabilities: bool) -> Array:
    """`obj` as a plain array of class indices (native integers of any width) or of class probabilities (floating).

    An empty list holds no indices. Booleans are refused: they could mean classes 0 and 1 as well as a mask or a one-hot
    target. `name` is the argument's name in messages.
    """
    array = _as_array(obj, name)
    if isinstance(obj, (list, tuple, int)):
        if array.size == 0:
            return array.astype(np.int64)
        _refuse_huge_integers(obj, array, name)
    if array.dtype.kind in "iu":
        native = np.dtype(f"{array.dtype.kind}{array.dtype.itemsize}")
        return array.astype(native, copy=False).view(native)  # the view turns the C type long long into int64
    floating = _native_floating(array)
    if floating is None:
        or_probabilities = " or class probabilities (floating)" if may_be_probabilities else ""
        raise TypeError(f"{name} must hold class indices (an integer dtype){or_probabilities}, {_found(array)}")
    return floating


def _as_array(obj: object, name: str) -> Array:
    """A plain ndarray of whatever dtype, sharing memory where possible."""
    if type(obj) is np.ndarray:
        return obj
    if isinstance(obj, np.ndarray):
        if np.ma.is_masked(obj):
            raise TypeError(
                f"{name} is a masked array with masked entries, which have no meaning here: fill them first (for example "
                "a logit with -inf, a target with ignore_index)"
            )
    elif _is_torch_bfloat16(obj):
        return _view_torch_bfloat16(obj, name)
    elif _only_dlpack(obj):
        try:
            return np.from_dlpack(obj)  # type: ignore[arg-type]
        except (BufferError, RuntimeError) as error:
            raise TypeError(f"{name}: NumPy cannot view this {type(obj).__name__} through DLPack ({error})") from error
    return np.asarray(obj)


def _native_floating(array: Array) -> Array | None:
    """`array` in native byte order, or None if it is not of one of the four floating dtypes."""
    dtype = array.dtype
    if dtype.char in "efd":
        return array if dtype.isnative else array.astype(dtype.newbyteorder("="))
    # The dtype of the package ml_dtypes, recognized by name so that the package is not needed.
    if dtype.type.__name__ == "bfloat16" and dtype.itemsize == 2:
        return array if dtype.isnative else array.astype(dtype.type)
    return None


def _refuse_huge_integers(obj: object, array: Array, name: str) -> None:
    """IndexError if a list of Python ints does not fit an integer dtype, so that NumPy made objects or floats of it."""
    if array.dtype.kind == "O" or (array.dtype == np.float64 and np.abs(array).max() >= 2.0**63):
        values = np.asarray(obj, dtype=object)
        try:
            huge = [(where, index(value)) for where, value in np.ndenumerate(values)]
        except TypeError:
            return  # not all integers: no class indices at all
        for where, value in huge:
            if not _INT64.min <= value <= _INT64.max:
                raise IndexError(f"{name} {value} at position {where} is out of range: it is no class index")


def _found(array: Array) -> str:
    return f"but its dtype is {array.dtype}"


def _only_dlpack(obj: object) -> bool:
    """True for objects that NumPy can view through DLPack and by no other protocol."""
    if not hasattr(obj, "__dlpack__"):
        return False
    if any(hasattr(obj, name) for name in ("__array__", "__array_interface__", "__array_struct__")):
        return False
    try:
        memoryview(obj).release()  # type: ignore[arg-type]
    except (TypeError, BufferError):
        return True
    return False


def _is_torch_bfloat16(obj: object) -> bool:
    torch = sys.modules.get("torch")  # no tensor exists before somebody has imported it
    return torch is not None and isinstance(obj, torch.Tensor) and obj.dtype is torch.bfloat16


def _view_torch_bfloat16(tensor: Any, name: str) -> Array:
    """NumPy has no bfloat16 of its own, so PyTorch does not export it: view the bits as integers on the way."""
    try:
        import ml_dtypes
    except ImportError:
        raise TypeError(f"{name} is a bfloat16 tensor, which needs the package ml_dtypes") from None
    if tensor.requires_grad:
        raise RuntimeError(f"{name} is a tensor that requires grad: pass {name}.detach()")
    bits: Array = tensor.view(sys.modules["torch"].int16).numpy()
    return bits.view(ml_dtypes.bfloat16)
