"""`python -m tests.fuzz --mutants 5000 --seed 1`: a long run, on one thread; faults are printed as they come."""

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from tests.fuzz import fuzzer

if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("--mutants", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=list(fuzzer.KINDS), help="may repeat (default: all)")
    parser.add_argument("--folder", type=Path, help="where sound inputs and the last mutant stay (default: nowhere)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.folder or Path(made)
        sys.exit(fuzzer.main(folder, arguments.mutants, arguments.seed, arguments.kind or list(fuzzer.KINDS)) > 0)
