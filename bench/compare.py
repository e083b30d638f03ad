"""Times crossent beside PyTorch on the same arrays, one thread, interleaved in one process; prints ns per element and ratios.

Run: python bench/compare.py (PyTorch is optional). The median of interleaved rounds; outputs are warm and reused where
the peer can do so.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import crossent
import numpy as np

SHAPES = [(65536, 10), (8192, 100), (4096, 1000), (256, 50257)]


def medians(calls: list[Callable[[], object]], rounds: int, seconds: float) -> list[float]:
    """Seconds per call of each, measured in turns so that a noisy moment hits all of them."""
    samples: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(rounds):
        for call, times in zip(calls, samples, strict=True):
            repeats, start = 0, time.perf_counter()
            while time.perf_counter() - start < seconds:
                call()
                repeats += 1
            times.append((time.perf_counter() - start) / repeats)
    return [statistics.median(times) for times in samples]


def workloads(x: np.ndarray, target: np.ndarray) -> dict[str, tuple[Callable[[], object], Callable[[], object] | None]]:
    """{name: (crossent's call, PyTorch's call or None)}."""
    out = np.empty_like(x)
    ours = {
        "log_softmax": lambda: crossent.log_softmax(x, out=out),
        "softmax": lambda: crossent.softmax(x, out=out),
        "cross_entropy": lambda: crossent.cross_entropy(x, target),
        "loss + gradient": lambda: crossent.cross_entropy_value_and_grad(x, target, out=out),
    }
    try:
        import torch
    except ImportError:
        return {name: (call, None) for name, call in ours.items()}
    torch.set_num_threads(1)
    logits, labels = torch.from_numpy(x), torch.from_numpy(target)
    result, leaf = torch.empty_like(logits), logits.clone().requires_grad_()

    def loss_and_gradient() -> None:
        leaf.grad = None
        torch.nn.functional.cross_entropy(leaf, labels).backward()

    theirs: dict[str, Callable[[], object]] = {
        "log_softmax": lambda: torch.log_softmax(logits, 1, out=result),
        "softmax": lambda: torch.softmax(logits, 1, out=result),
        "cross_entropy": lambda: torch.nn.functional.cross_entropy(logits, labels),
        "loss + gradient": loss_and_gradient,
    }
    return {name: (call, theirs[name]) for name, call in ours.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.05, help="per call and round")
    options = parser.parse_args()
    crossent.set_num_threads(1)
    rng = np.random.default_rng(0)
    print(f"float32, one thread, {crossent.simd_target()}; ns per element")
    for rows, classes in SHAPES:
        x = (rng.normal(size=(rows, classes)) * 3).astype(np.float32)
        target = rng.integers(0, classes, rows)
        for name, (ours, theirs) in workloads(x, target).items():
            times = medians([ours] if theirs is None else [ours, theirs], options.rounds, options.seconds)
            each = [f"{seconds / x.size * 1e9:7.3f}" for seconds in times]
            ratio = f"{times[1] / times[0]:6.2f} x" if theirs else ""
            print(
                f"{name:16} {rows:6} x {classes:6}  crossent {each[0]}  "
                + (f"PyTorch {each[1]}  {ratio}" if theirs else "")
            )


if __name__ == "__main__":
    main()
