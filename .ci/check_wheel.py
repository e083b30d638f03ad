"""Sizes and contents of the sdist and the wheel given; exits with the list of what is wrong."""

import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

MEGABYTE = 1_000_000
LIMIT = 2 * MEGABYTE
NEEDED_IN_WHEEL = [
    "_core.",
    "/lib/libcrossent.so",
    "crossentConfig.cmake",
    "crossent.pc",
    "crossent.hpp",
    "py.typed",
    "_core.pyi",
]
NEEDED_IN_SDIST = [
    "CMakeLists.txt",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "cpp/src/kernels.cpp",
    "tests/conftest.py",
]
UNWANTED = (".o", ".pyc", ".log", ".cpp")


def part_of(name: str) -> str:
    path = Path(name)
    if path.suffix in (".so", ".pyd", ".a"):
        return path.name.split(".")[0] + path.suffix
    if ".libs/" in name:
        return "vendored libraries"
    return "headers, CMake and pkg-config" if "/include/" in name or "/lib/" in name else "Python and metadata"


def check_wheel(path: Path) -> list[str]:
    packed, unpacked = Counter[str](), Counter[str]()
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        for info in archive.infolist():
            packed[part_of(info.filename)] += info.compress_size
            unpacked[part_of(info.filename)] += info.file_size
    size = path.stat().st_size
    print(f"{path.name}: {size / MEGABYTE:.2f} MB")
    for part, compressed in packed.most_common():
        print(f"  {compressed / MEGABYTE:6.3f} MB  ({unpacked[part] / MEGABYTE:6.3f} unpacked)  {part}")
    wrong = [f"{path.name} lacks {needed}" for needed in NEEDED_IN_WHEEL if not any(needed in name for name in names)]
    wrong += [f"{path.name} has {name}" for name in names if name.endswith(UNWANTED)]
    if size >= LIMIT:
        wrong.append(f"{path.name} has {size / MEGABYTE:.2f} MB, which is not under {LIMIT / MEGABYTE:.0f} MB")
    return wrong


def check_sdist(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    print(f"{path.name}: {path.stat().st_size / MEGABYTE:.2f} MB, {len(names)} files")
    wrong = [f"{path.name} lacks {needed}" for needed in NEEDED_IN_SDIST if needed not in names]
    return wrong + [
        f"{path.name} has {name}" for name in names if name.startswith(("build/", ".venv", ".ci/", "dist/"))
    ]


if __name__ == "__main__":
    files = [Path(argument) for argument in sys.argv[1:]]
    problems = [text for file in files for text in (check_wheel if file.suffix == ".whl" else check_sdist)(file)]
    sys.exit("\n".join(problems) or 0)
