"""`python -m hms_ray.simulate`: the same as `python -m hms_ray simulate`."""

import runpy
import sys

if __name__ == "__main__":
    sys.argv.insert(1, "simulate")
    runpy.run_module("hms_ray", run_name="__main__", alter_sys=True)
