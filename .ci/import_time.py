"""How long `import crossent` takes once NumPy is imported: the least of fresh interpreters, since other programs may run
beside; fails from 30 ms on."""

import subprocess
import sys

LIMIT = 0.030
TIMED = "import numpy, time; t = time.perf_counter(); import crossent; print(time.perf_counter() - t)"


def import_seconds() -> float:
    done = subprocess.run([sys.executable, "-I", "-c", TIMED], capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    import_seconds()  # writes the .pyc files
    seconds = min(import_seconds() for _ in range(9))
    print(f"import crossent: {seconds * 1000:.1f} ms beyond NumPy")
    sys.exit(f"more than {LIMIT * 1000:.0f} ms" if seconds >= LIMIT else 0)
