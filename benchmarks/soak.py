"""Kill extractions for as long as asked, and see that each cache ends as if nobody had.

Every second trial begins from a cache of which any subset of components and blocks is finished.
Two fifths of the time go to power cuts: each command is recorded, and every disk it may leave is
looked at.

Example: python benchmarks/soak.py --minutes 10
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.reliability import powerloss
from tests.reliability.checks import FaultError
from tests.reliability.killing import Campaign, Server

POWER = 0.4
"""Share of the time."""


def main() -> None:
    """Run trials until the time is over, then print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first trial")
    parser.add_argument("--trials", type=int, help="at most that many")
    arguments = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        seconds = 0.0 if arguments.trials else 60 * arguments.minutes * POWER
        power, faults = powerloss.campaign(
            Path(folder).resolve(), seconds=seconds, seed=arguments.seed
        )
        print("\n".join(faults), file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        campaign = Campaign(server, Path(folder))
        trials = 0
        while time.monotonic() - begin < 60 * arguments.minutes and trials != arguments.trials:
            seed = arguments.seed + trials
            try:
                (campaign.trial if seed % 2 else campaign.subset_trial)(seed)
            except FaultError as error:
                faults.append(str(error))
                print(f"{error}\nAgain: {sys.argv[0]} --seed {seed} --trials 1", file=sys.stderr)
            trials += 1
    seconds = round(time.monotonic() - begin, 1)
    figures = {"trials": trials, **asdict(campaign.count), "power": power, "failures": len(faults)}
    print(json.dumps({**figures, "seconds": seconds}))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
