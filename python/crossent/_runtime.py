"""Threads, the instruction set in use, and where the C++ files are."""

from __future__ import annotations

from . import _core

__all__ = ["get_cmake_dir", "get_include", "get_num_threads", "set_num_threads", "simd_target", "simd_targets"]


def get_num_threads() -> int:
    """Number of threads that large arrays are spread over.

    At import this is OMP_NUM_THREADS or, without that variable, the number of CPUs that the process may use. It is 1 in
    a build without OpenMP, and in a child after a fork.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> import crossent
    >>> crossent.get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


def set_num_threads(n: int) -> None:
    """Set the number of threads for the whole process; 1 keeps all work on the calling thread.

    Small arrays stay on the calling thread in any case, and no result depends on the number of threads.

    Parameters
    ----------
    n : int
        From 1 to 4096. A build without OpenMP stays at 1.

    Raises
    ------
    ValueError
        If `n` is less than 1 or greater than 4096.

    Examples
    --------
    >>> import crossent
    >>> before = crossent.get_num_threads()
    >>> crossent.set_num_threads(1)
    >>> crossent.get_num_threads()
    1
    >>> crossent.set_num_threads(before)
    """
    _core.set_num_threads(n)


def simd_target() -> str:
    """Name of the instruction set in use: "avx512", "avx2", "neon" or "baseline".

    Chosen once, at import: the best that the machine can run, or the one that the environment variable CROSSENT_SIMD
    names (importing fails with the list of choices if this machine cannot run it).

    Returns
    -------
    str
        One of `simd_targets()`.

    Examples
    --------
    >>> import crossent
    >>> crossent.simd_target() in ("avx512", "avx2", "neon", "baseline")
    True
    """
    return _core.simd_target()


def simd_targets() -> list[str]:
    """Names of the instruction sets that this machine can run, best first.

    Returns
    -------
    list of str
        The last is "baseline", which runs everywhere.

    Examples
    --------
    >>> import crossent
    >>> crossent.simd_target() in crossent.simd_targets()
    True
    >>> crossent.simd_targets()[-1]
    'baseline'
    """
    return _core.simd_targets()


def get_include() -> str:
    """Directory to put on the include path for ``#include <crossent/crossent.hpp>``.

    Returns
    -------
    str
        An absolute path.

    Examples
    --------
    >>> import crossent, pathlib
    >>> (pathlib.Path(crossent.get_include()) / "crossent" / "crossent.hpp").exists()
    True
    """
    return _installed("include")


def get_cmake_dir() -> str:
    """Directory for CMake's ``crossent_DIR``, so that ``find_package(crossent)`` finds this installation.

    Returns
    -------
    str
        An absolute path. The pkg-config file lies beside it, in ``../../pkgconfig``.

    Examples
    --------
    >>> import crossent, pathlib
    >>> (pathlib.Path(crossent.get_cmake_dir()) / "crossentConfig.cmake").exists()
    True
    """
    return _installed("lib/cmake/crossent")


def _installed(name: str) -> str:
    # Not at the top: with older Pythons pathlib takes longer to import than all the rest of the package.
    from pathlib import Path

    # The compiled module lies where CMake put the C++ files, also in an editable install.
    path = Path(_core.__file__).resolve().parent / name
    if not path.is_dir():
        raise ImportError(f"{path} does not exist: this installation of crossent came without its C++ files")
    return str(path)
