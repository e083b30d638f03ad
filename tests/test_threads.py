"""Threads: the same bits for every number of them, the default, the GIL, concurrent callers, and fork."""

import os
import subprocess
import sys
import threading
import time

import crossent
import numpy as np
import pytest
from helpers import assert_same_bits, normal

LARGE = [(257, 1000), (3, 200_000), (40_000, 10), (1, 500_000)]


@pytest.fixture(autouse=True)
def _restore_num_threads():
    previous = crossent.get_num_threads()
    yield
    crossent.set_num_threads(previous)


def run_python(code, **environment):
    """stdout of a fresh interpreter."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "CROSSENT_"))} | environment
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def results(x, target):
    """Everything that is spread over threads."""
    losses, gradient = crossent.cross_entropy_value_and_grad(x, target, reduction="none")
    smooth, smooth_gradient = crossent.cross_entropy_value_and_grad(x, target, label_smoothing=0.1)
    y = crossent.softmax(x)
    arrays = [y, crossent.log_softmax(x), crossent.logsumexp(x), losses, gradient, smooth, smooth_gradient]
    arrays += [crossent.softmax_backward(x, y), crossent.log_softmax_backward(x, y), crossent.nll_loss(x, target)]
    arrays += [crossent.token_log_probs(x, target), *crossent.logit_stats(x, target, top_k=5)]
    arrays += crossent.kl_divergence_value_and_grad(x, y)
    arrays += [crossent.softmax(x, 0), crossent.logsumexp(x, 0), crossent.softmax(x, None), crossent.logsumexp(x, None)]
    return arrays + [crossent.cross_entropy(x, target, reduction=r) for r in ("mean", "sum")]


@pytest.mark.usefixtures("simd")
@pytest.mark.parametrize("shape", LARGE)
def test_every_number_of_threads_gives_the_same_bits(shape, dtype):
    x, target = normal(shape, dtype), np.arange(shape[0]) % shape[1]
    crossent.set_num_threads(1)
    expected = results(x, target)
    for count in (2, 3, 4):
        crossent.set_num_threads(count)
        for i, (result, alone) in enumerate(zip(results(x, target), expected, strict=True)):
            assert_same_bits(result, alone, f"result {i} with {count} threads")


def test_set_and_get():
    crossent.set_num_threads(4)
    if crossent.get_num_threads() == 1:
        pytest.skip("built without OpenMP")
    for count in (1, 3, 2):
        crossent.set_num_threads(count)
        assert crossent.get_num_threads() == count


@pytest.mark.parametrize("bad", [0, -1, -(2**31), 4097, 2**40, 2**70])
def test_a_senseless_number_of_threads(bad):
    before = crossent.get_num_threads()
    with pytest.raises(ValueError, match=f"between 1 and 4096, not {bad}$"):
        crossent.set_num_threads(bad)
    assert crossent.get_num_threads() == before


@pytest.mark.parametrize("bad", ["2", 1.5, None, [1]])
def test_a_number_of_threads_that_is_no_integer(bad):
    with pytest.raises(TypeError):
        crossent.set_num_threads(bad)


@pytest.mark.parametrize("count", [1, 2])
def test_the_default_follows_omp_num_threads(count):
    if count > len(os.sched_getaffinity(0)):
        pytest.skip("too few processors")
    crossent.set_num_threads(2)
    openmp = crossent.get_num_threads() == 2
    printed = run_python("import crossent; print(crossent.get_num_threads())", OMP_NUM_THREADS=str(count))
    assert int(printed) == (count if openmp else 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_the_default_follows_the_processors_that_the_process_may_use():
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); import crossent; print(crossent.get_num_threads())"
    assert run_python(code) == "1"
    unbound = int(run_python("import crossent; print(crossent.get_num_threads())"))
    assert 1 <= unbound <= len(os.sched_getaffinity(0))


FORK = """
import multiprocessing, numpy as np, crossent
crossent.set_num_threads(2)
x = np.random.default_rng(0).normal(size=(500, 1000)).astype(np.float32)
target = np.arange(500)
def work(_):
    loss, grad = crossent.cross_entropy_value_and_grad(x, target)
    return loss, grad.tobytes(), crossent.softmax(x, 0).tobytes()
if __name__ == "__main__":
    expected = work(0)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        children = pool.map_async(work, range(6)).get(timeout=60)
    assert all(child == expected for child in children)
    assert work(0) == expected
    print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_works():
    assert run_python(FORK) == "fine"


def test_the_gil_is_released():
    """Another thread ticks on while one call computes."""
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        begin, end = one_long_call()
    finally:
        stop.set()
        ticker.join()
    within = [t for t in ticks if begin + 0.01 < t < end - 0.01]
    assert len(within) >= 5


def one_long_call():
    """(begin, end) of a call that takes at least 0.15 s; the array is broadcast, so it needs no memory."""
    row = normal((1, 20_000), np.float32)
    count = 10
    crossent.set_num_threads(1)
    while True:
        x = np.broadcast_to(row, (count, row.size))
        begin = time.perf_counter()
        crossent.logsumexp(x)
        end = time.perf_counter()
        if end - begin > 0.15:
            return begin, end
        count *= 2


@pytest.mark.parametrize("count", [1, 2])
def test_concurrent_callers_get_their_own_results(count):
    crossent.set_num_threads(count)
    inputs = [normal((60, 1000 + i), np.float32, seed=i) for i in range(4)]
    target = np.arange(60)
    expected = [crossent.cross_entropy_value_and_grad(x, target) for x in inputs]
    failures = []

    def call(i):
        for _ in range(20):
            loss, gradient = crossent.cross_entropy_value_and_grad(inputs[i], target)
            if loss != expected[i][0] or gradient.tobytes() != expected[i][1].tobytes():
                failures.append(i)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# Every one of these passes the check of the targets now and then, and then reads some that were changed since.
CHANGING_TARGETS = """
import threading, numpy as np, crossent
crossent.set_num_threads(1)
logits = np.zeros((64, 20_000), np.float32)
target = np.zeros(64, np.{dtype})
weight = np.ones(20_000)
calls = [
    lambda: crossent.cross_entropy(logits, target),
    lambda: crossent.cross_entropy(logits, target, weight=weight),
    lambda: crossent.cross_entropy_value_and_grad(logits, target, ignore_index=2**30),
    lambda: crossent.nll_loss_backward(1.0, logits, target),
    lambda: crossent.logit_stats(logits, target),
    lambda: crossent.token_log_probs(logits, target),
]
stop = False
def change():
    while not stop:
        target[:] = {bad}
        target[:] = 0
thread = threading.Thread(target=change)
thread.start()
finished = 0
try:
    for _ in range(20):
        for call in calls:
            try:
                call()
                finished += 1
            except IndexError:
                pass
finally:
    stop = True
    thread.join()
print(finished > 0)
"""


@pytest.mark.parametrize(("dtype", "bad"), [("int64", 2**40), ("int64", -(2**40)), ("int32", 2**30)])
def test_targets_that_another_thread_changes_lead_to_no_read_elsewhere(dtype, bad):
    assert run_python(CHANGING_TARGETS.format(dtype=dtype, bad=bad)) == "True"
