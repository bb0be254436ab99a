"""`python -m hms_ray.prepare`: the same as `python -m hms_ray prepare`."""

import runpy
import sys

if __name__ == "__main__":
    sys.argv.insert(1, "prepare")
    runpy.run_module("hms_ray", run_name="__main__", alter_sys=True)
