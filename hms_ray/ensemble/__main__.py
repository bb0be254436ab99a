"""`python -m hms_ray.ensemble`."""

import sys

from hms_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["ensemble", *sys.argv[1:]]))
