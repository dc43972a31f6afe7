"""Whether a roll of an exported Deployment loses requests, with its preStop sleep and without.

    python benchmarks/pod_roll.py [--requests 2500] [--lag 1]

Runs two pods of sample-configs/minimal with the configuration, the preStop sleep and the grace that
`servd export kubernetes` writes, and rolls them until so many requests were made. Endpoints learn
of a deletion LAG seconds late. Fails when a request is lost with the sleep.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from harness.pod_rolls import PodTemplate, RolledDeployment

SAMPLE = Path(__file__).parents[1] / "sample-configs" / "minimal"


def main() -> None:
    """Rolls both ways, and prints what was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=2500)
    parser.add_argument("--lag", type=float, default=1.0, help="of endpoints, in seconds")
    options = parser.parse_args()
    template = PodTemplate.exported(SAMPLE)
    lost: list[int] = []
    print(f"{'preStop':>8} {'rolls':>6} {'requests':>9} {'lost':>5}  answers")
    for pre_stop in (template.pre_stop, 0.0):
        deployment = RolledDeployment(template, options.lag, pre_stop)
        asyncio.run(deployment.run(lambda each: each.answers.total() >= options.requests))
        answers = ", ".join(f"{name}: {n}" for name, n in sorted(deployment.answers.items()))
        total = deployment.answers.total()
        print(f"{pre_stop:>6g} s {deployment.rolls:>6} {total:>9} {deployment.lost:>5}  {answers}")
        lost.append(deployment.lost + deployment.killed)
    if lost[0]:
        sys.exit(f"lost with the preStop sleep: {lost[0]}")


if __name__ == "__main__":
    main()
