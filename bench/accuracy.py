"""Measures the largest errors of crossent, on every instruction set, and of the other libraries that are installed.

Run: python bench/accuracy.py --write README.md (some minutes). The rows are those of the tests (tests/families.py), the
exact results those of the tests' oracle, errors are counted as there. Writes bench/results/accuracy.md, with all dtypes and
families, and with --write the tables of float32 and float64 between the markers in that file.

Needs the extras test and bench. Peers are optional: pip install torch==2.13.0 jax onnx onnxruntime
"""

from __future__ import annotations

import argparse
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

import crossent
import numpy as np
from accuracy_peers import Crossent, Peer, Unsupported, installed_peers
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import families
import reference
from helpers import (
    NARROW_HALF_ULP,
    WIDE_IS_WIDER,
    available_dtypes,
    is_narrow,
    limit,
    spacing,
    ulp_errors,
    widen,
)

BEGIN, END = "<!-- accuracy: begin, written by bench/accuracy.py -->", "<!-- accuracy: end -->"
REDUCTIONS = "many samples"  # as a family
SMOOTHING = 0.1
ULP_QUANTITIES = {  # what is measured, and its row in helpers.LIMITS
    "softmax": "softmax",
    "log_softmax": "log_softmax",
    "logsumexp": "logsumexp",
    "loss": "loss",
    "loss, mean or sum": "reduced loss",
    "loss, smoothed": "loss",
    "gradient at the target": "gradient at target",
    "gradient elsewhere": "gradient off target",
    "gradient, smoothed": "mixed gradient",
}
RELATIVE_QUANTITIES = {"row sum of the gradient": "gradient sum", "loss of confident rows": "confident"}
QUANTITIES = ULP_QUANTITIES | RELATIVE_QUANTITIES

CAPTION = """
Largest errors in ULP of the result's dtype, counted from the exact result, for logits as given: {families}.
logsumexp counts at the larger of |result| and |largest logit|, a smoothed gradient at the larger of p and q, all others at
the result itself. The last two rows are relative: the sum of a row's gradient, which is 0, over the sum of its sizes, and
the error of a confident row's loss over the loss. Errors of 1e6 and more are small results that became 0, or not subnormal.
∞: NaN, infinite or finite where it should not be. n/a: no such function. Measured with {versions}.
"""

Measurement = tuple[str, float]  # a quantity and its largest error


class Maxima:
    """The largest error of each (dtype, quantity, library, family)."""

    def __init__(self) -> None:
        self.largest: dict[tuple[str, str, str, str], float] = {}

    def add(self, dtype: np.dtype, name: str, kind: str, measurements: Iterator[Measurement]) -> None:
        for quantity, error in measurements:
            key = dtype.name, quantity, name, kind
            self.largest[key] = max(self.largest.get(key, 0.0), error)

    def of(self, dtype: np.dtype, quantity: str, names: list[str], kinds: list[str]) -> float | None:
        """Over several libraries and families; None where nothing was measured."""
        found = [self.largest.get((dtype.name, quantity, name, kind)) for name in names for kind in kinds]
        return max((error for error in found if error is not None), default=None)


# --- measuring --------------------------------------------------------------------------------------------------------


def largest(errors: np.ndarray) -> float:
    return float(np.max(errors, initial=0))


def measure_arrays(peer: Peer, kind: str, dtype: np.dtype, index: int) -> Iterator[Measurement]:
    rows = families.rows_of(kind, dtype)[index]
    for name in ("softmax", "log_softmax", "logsumexp"):
        scale = reference.logsumexp_scale(rows) if name == "logsumexp" else None
        try:
            result = getattr(peer, name)(rows)
        except Unsupported:
            continue
        yield name, largest(ulp_errors(result, families.expected(name, kind, dtype)[index], scale))


def measure_losses(peer: Peer, kind: str, dtype: np.dtype, index: int) -> Iterator[Measurement]:
    rows, target, _, exact, exact_gradient, _ = families.expected_losses(kind, dtype)[index]
    try:
        losses, gradient = peer.cross_entropy(rows, target, 0.0)
    except Unsupported:
        return
    yield "loss", largest(ulp_errors(losses, exact))
    if kind == "confident" and not is_narrow(dtype):
        in_range = exact > np.finfo(dtype).tiny
        yield "loss of confident rows", largest((abs(widen(losses) - exact) / np.where(in_range, exact, 1))[in_range])
    if gradient is None:
        return
    errors = ulp_errors(gradient, exact_gradient)
    hit = np.arange(rows.shape[1]) == target[:, None]
    yield "gradient at the target", largest(errors[hit])
    yield "gradient elsewhere", largest(errors[~hit])
    if not is_narrow(dtype):
        wide = widen(gradient)
        subnormal = rows.shape[1] * spacing(0, dtype)  # what the roundings of subnormals may add up to
        excess = np.maximum(abs(wide.sum(axis=1)) - subnormal, 0)
        sizes = abs(wide).sum(axis=1)
        yield "row sum of the gradient", largest(np.where(excess == 0, 0, excess / np.where(excess == 0, 1, sizes)))


def measure_smoothed_losses(peer: Peer, kind: str, dtype: np.dtype, index: int) -> Iterator[Measurement]:
    rows, target, _, exact, exact_gradient, scale = families.expected_losses(kind, dtype, SMOOTHING)[index]
    try:
        losses, gradient = peer.cross_entropy(rows, target, SMOOTHING)
    except Unsupported:
        return
    yield "loss, smoothed", largest(ulp_errors(losses, exact))
    if gradient is not None:
        yield "gradient, smoothed", largest(ulp_errors(gradient, exact_gradient, scale))


def measure_reductions(peer: Peer, dtype: np.dtype, index: int) -> Iterator[Measurement]:
    logits, target, exact = families.expected_reductions(dtype)[index]
    for reduction, loss in exact.items():
        try:
            yield "loss, mean or sum", largest(ulp_errors(peer.reduced(logits, target, reduction), loss))
        except Unsupported:
            return


def measure(peers: list[Peer], dtypes: list[np.dtype], kinds: list[str]) -> Maxima:
    """All of it; the bar advances by one for each peer and array of rows."""
    maxima = Maxima()
    tasks = [
        (dtype, kind, measurement, count)
        for dtype in dtypes
        for kind in kinds
        for measurement, count in (
            (measure_arrays, len(families.rows_of(kind, dtype))),
            (measure_losses, len(families.expected_losses(kind, dtype))),
            (measure_smoothed_losses, len(families.expected_losses(kind, dtype, SMOOTHING))),
        )
    ]
    steps = sum(count for *_, count in tasks) + len(families.BATCHES) * len(dtypes)
    with tqdm(total=steps * len(peers), unit="array", desc="measuring") as bar:
        for dtype, kind, measurement, count in tasks:
            for peer in peers:
                bar.set_postfix_str(f"{dtype} {kind} {peer.name}")
                for index in range(count):
                    maxima.add(dtype, peer.name, kind, measurement(peer, kind, dtype, index))
                    bar.update()
        for dtype in dtypes:
            for peer in peers:
                for index in range(len(families.BATCHES)):
                    maxima.add(dtype, peer.name, REDUCTIONS, measure_reductions(peer, dtype, index))
                    bar.update()
    return maxima


# --- tables -----------------------------------------------------------------------------------------------------------


def number(error: float | None) -> str:
    if error is None:
        return "n/a"
    if not np.isfinite(error):
        return "∞"
    return f"{error:.3g}" if 0.01 <= error < 1000 or error == 0 else f"{error:.1e}"


def promised(quantity: str, dtype: np.dtype) -> str:
    if is_narrow(dtype) and not quantity.startswith(("loss", "logsumexp")):
        return f"{NARROW_HALF_ULP:g}"
    return f"{limit(QUANTITIES[quantity], dtype):g}"


def table(heading: list[str], rows: list[list[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table_of_libraries(maxima: Maxima, dtype: np.dtype, peers: list[Peer], kinds: list[str]) -> str:
    heading = [dtype.name, "promised"]
    heading += [f"crossent {peer.name}" if isinstance(peer, Crossent) else peer.name for peer in peers]
    rows = []
    for quantity in QUANTITIES:
        errors = [maxima.of(dtype, quantity, [peer.name], [*kinds, REDUCTIONS]) for peer in peers]
        if any(error is not None for error in errors):
            rows.append([quantity, promised(quantity, dtype), *map(number, errors)])
    return table(heading, rows)


def table_of_families(maxima: Maxima, dtype: np.dtype, names: list[str], kinds: list[str]) -> str:
    """The worst of several libraries, by family."""
    rows = []
    for quantity in QUANTITIES:
        errors = [maxima.of(dtype, quantity, names, [kind]) for kind in [*kinds, REDUCTIONS]]
        if any(error is not None for error in errors):
            rows.append([quantity, promised(quantity, dtype), *map(number, errors)])
    return table([dtype.name, "promised here", *kinds, REDUCTIONS], rows)


def report_of_families(maxima: Maxima, dtypes: list[np.dtype], peers: list[Peer], kinds: list[str]) -> Iterator[str]:
    """A section for crossent, over all instruction sets, and one for each other library."""
    libraries = {"crossent": [peer.name for peer in peers if isinstance(peer, Crossent)]}
    libraries |= {peer.name: [peer.name] for peer in peers if not isinstance(peer, Crossent)}
    for title, names in libraries.items():
        yield f"## {title}, by family of rows"
        for dtype in dtypes:
            if any(maxima.of(dtype, quantity, names, kinds) is not None for quantity in QUANTITIES):
                yield table_of_families(maxima, dtype, names, kinds)


def caption(peers: list[Peer], kinds: list[str]) -> str:
    described = {
        "normal": "normal of scale 1 to 100 with 2 to 262144 classes",
        "confident": "confident rows",
        "tied": "ties",
        "shifted": "offsets of 1e4 and 1e6",
        "impossible": "`-inf` classes",
        "wide": "ranges of ±1e4 and subnormal results",
    }
    versions = {peer.version: "crossent" if isinstance(peer, Crossent) else peer.name for peer in peers}
    listed = ", ".join(f"{name} {version}" for version, name in versions.items())
    text = CAPTION.format(families=", ".join(described[kind] for kind in kinds), versions=listed)
    return textwrap.fill(" ".join(text.split()), 120)


def write_between_markers(path: Path, text: str) -> None:
    before, found, rest = path.read_text().partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not (found and found_end):
        raise SystemExit(f"{path} has no lines {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = {dtype.name: dtype for dtype in available_dtypes()}
    parser.add_argument("--dtype", action="append", choices=names, help="default: all")
    parser.add_argument("--family", action="append", choices=families.ROWS, help="default: all")
    parser.add_argument("--alone", action="store_true", help="without the other libraries")
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results" / "accuracy.md")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="refresh the tables between the markers in FILE, too"
    )
    options = parser.parse_args()
    if not WIDE_IS_WIDER:
        raise SystemExit("the oracle needs a long double wider than double")
    dtypes = [names[name] for name in options.dtype or names]
    kinds = options.family or list(families.ROWS)
    peers = [*map(Crossent, crossent.simd_targets()), *([] if options.alone else installed_peers())]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of the other libraries
        maxima = measure(peers, dtypes, kinds)
    note = caption(peers, kinds)
    libraries = {dtype: table_of_libraries(maxima, dtype, peers, kinds) for dtype in dtypes}
    by_family = report_of_families(maxima, dtypes, peers, kinds)
    report = ["# Measured errors", note, *libraries.values(), *by_family]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("\n\n".join(report) + "\n")
    if options.write:
        tables = [text for dtype, text in libraries.items() if not is_narrow(dtype)]
        write_between_markers(options.write, "\n\n".join([*tables, note]))
    print("\n\n".join([*libraries.values(), note, f"{options.output}: written"]))


if __name__ == "__main__":
    main()
