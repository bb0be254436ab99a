"""`python -m hms_ray.search`."""

import sys

from hms_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["search", *sys.argv[1:]]))
