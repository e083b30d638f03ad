"""A small example for `crossent score` and `crossent compare`: a model of letters that has read its own text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["write_example"]

TEXT = """\
a language model reads a text and tells, for each of its letters, how probable every letter is as the next one. its score
is the mean of minus the logarithms that it gave to the letters that came; the lower, the better. this model is a table of
how often a letter came after another one in this very text, so it does well here.
"""


def write_example(folder: Path) -> tuple[Path, Path, Path]:
    """Write logits (letters, alphabet), the same rounded to whole numbers, and the letters; the files' paths."""
    alphabet, tokens = np.unique(np.frombuffer(TEXT.replace("\n", " ").encode(), np.uint8), return_inverse=True)
    counts = np.zeros((alphabet.size, alphabet.size))
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    logits = np.log(counts + 0.1)[tokens].astype(np.float32)
    files = folder / "logits.npy", folder / "quantized.npy", folder / "tokens.npy"
    np.save(files[0], logits)
    np.save(files[1], np.round(logits))
    np.save(files[2], tokens.astype(np.int64))
    return files
