"""How often methods find the words that decide, for every task: ``python -m tests.planted_rates``.

For each task a tiny model is trained on planted evidence; see ``tests/_helpers/planted_tasks.py``.
A hit is an explanation whose highest scores are those of the deciding words and of no others.
"""

from __future__ import annotations

import argparse
import sys

import torch

from tests._helpers.planted_tasks import TASKS, hit_rate

METHODS = ("aml", "integrated-gradients", "occlusion")


def main() -> None:
    """Prints a row of hit rates for each task."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=METHODS, help="names of methods")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="names of tasks")
    parser.add_argument("--texts", type=int, default=60, help="texts of each task")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sys.stdout.write("| task | " + " | ".join(args.methods) + " |\n")
    sys.stdout.write("|---" * (1 + len(args.methods)) + "|\n")
    for name in args.tasks:
        drawn = TASKS[name].texts(args.texts)
        rates = [
            hit_rate(drawn, TASKS[name].explanations(drawn, method=method))
            for method in args.methods
        ]
        cells = " | ".join(f"{rate:.3f}" for rate in rates)
        sys.stdout.write(f"| {name} | {cells} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
