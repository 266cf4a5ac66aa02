"""Cut the power at every instant of every command, and see that what was promised is there.

`make soak` does the same for four minutes. `--kills` kills the commands at each call instead, lets
them be run again to their end, and cuts the power then.

Example: python benchmarks/power.py --minutes 5
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.reliability import powerloss


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", action="store_true", help="at every call of every command")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        if arguments.kills:
            figures, faults = powerloss.every_kill(folder, seed=arguments.seed)
        else:
            seconds = 60 * arguments.minutes
            figures, faults = powerloss.campaign(folder, seconds=seconds, seed=arguments.seed)
    for fault in faults:
        print(fault, file=sys.stderr)
    print(json.dumps({**figures, "failures": len(faults)}))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
