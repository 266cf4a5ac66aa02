"""Compare what `extract` forecasts with what it takes: `tiny` on drawn moths, ask by ask.

`cpu` is the processor time of the pass, shared by the cores: what a quiet machine would take.

    python benchmarks/forecast.py --images 200
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from featcache.pipeline import run
from featcache.threads import cpu_cores

ASKS: dict[str, dict[str, Any]] = {
    "global": {},
    "patches": {"patches": ["clearclip"]},
    "views 10": {"views": ["10@all"]},
    "views 10:strong": {"views": ["10:strong@all"]},
    "crops 60": {"crops": ["60@all"]},
    "all of them": {"patches": ["clearclip"], "views": ["10@all"], "crops": ["60@all"]},
}


def main() -> None:
    """Extract each, into a cache of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--compute", default="auto")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        request = run.Request(
            dataset="fieldguide",
            dataset_root=Path(folder) / "drawn",
            backbone="tiny",
            patches=["none"],
            limit=arguments.images,
            compute=arguments.compute,
        )
        run.extract(replace(request, root=Path(folder) / "first"))  # drawn, loaded, warm
        print(f"{'asked for':16} {'forecast':>9} {'wall':>8} {'cpu':>8} {'cpu/forecast':>13}")
        for name, ask in ASKS.items():
            asked = replace(request, root=Path(folder) / name.replace(":", "-"), **ask)
            forecast = run.extract(replace(asked, dry_run=True)).seconds["forecast"]
            took = run.extract(asked).seconds
            cpu = took["cpu"] / cpu_cores()
            shown = f"{forecast:8.1f}s {took['total']:7.1f}s {cpu:7.1f}s {cpu / forecast:13.2f}"
            print(f"{name:16} {shown}", flush=True)


if __name__ == "__main__":
    main()
