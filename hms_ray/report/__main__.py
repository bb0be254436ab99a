"""`python -m hms_ray.report`."""

import sys

from hms_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
