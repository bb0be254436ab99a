"""`python -m hms_ray.train`: the same as `python -m hms_ray train`."""

import runpy
import sys

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    runpy.run_module("hms_ray", run_name="__main__", alter_sys=True)
