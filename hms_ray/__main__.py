"""`python -m hms_ray VERB`: the command line where no console script is installed."""

from hms_ray.cli import console

if __name__ == "__main__":
    console()
