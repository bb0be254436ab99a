"""What a process that keeps its memory has left after it has freed some."""

import platform
import subprocess
import sys

import pytest

MB = 64
FREED = f"""
import resource, sys
import numpy as np
from hms_ray.core.allocator import keep_freed

def resident() -> float:
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

if sys.argv[1] == "keep":
    assert keep_freed() and keep_freed()
before = resident()
array = np.ones({MB} << 17)
del array
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
@pytest.mark.parametrize("how", ["keep", "as it is"])
def test_what_is_freed_stays_with_a_process_that_keeps_it(how: str) -> None:
    done = subprocess.run([sys.executable, "-c", FREED, how], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (float(done.stdout) > MB / 2) == (how == "keep")
