"""`python -m hms_ray.predict`: the same as `python -m hms_ray predict`."""

import runpy
import sys

if __name__ == "__main__":
    sys.argv.insert(1, "predict")
    runpy.run_module("hms_ray", run_name="__main__", alter_sys=True)
