"""Whether the CPU time of some work grows linearly with the length of its input."""

import time


def assert_linear(work, short, long):
    """Do some work with two inputs, of which the second is 8 times as long."""
    ratios = []
    for _ in range(5):
        seconds = []
        for given in (short, long):
            began = time.process_time()
            work(given)
            seconds.append(time.process_time() - began)
        ratios.append(seconds[1] / max(seconds[0], 1e-4))
    assert min(ratios) < 32  # 64 times if it were quadratic
