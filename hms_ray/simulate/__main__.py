"""`python -m hms_ray.simulate`."""

import sys

from hms_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["simulate", *sys.argv[1:]]))
