"""`python -m hms_ray.train`: the base run of a space on all folds, without a search."""

import sys

if __name__ == "__main__":
    from hms_ray.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
