"""`python -m hms_ray.report`: the same as `python -m hms_ray report`."""

import runpy
import sys

if __name__ == "__main__":
    sys.argv.insert(1, "report")
    runpy.run_module("hms_ray", run_name="__main__", alter_sys=True)
