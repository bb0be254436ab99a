"""`python -m hms_ray.ensemble`: the same as `python -m hms_ray ensemble`."""

import runpy
import sys

if __name__ == "__main__":
    sys.argv.insert(1, "ensemble")
    runpy.run_module("hms_ray", run_name="__main__", alter_sys=True)
