"""Names for the types in public signatures."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ArrayLike", "Axis", "FloatArray", "FloatScalar", "Reduction"]

# bfloat16 belongs here too; it has no static type of its own.
FloatArray = NDArray[np.floating[Any]]
FloatScalar = np.floating[Any]
Axis = int | tuple[int, ...] | None
Reduction = Literal["none", "mean", "sum"]
