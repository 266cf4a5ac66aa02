"""Time and memory of methods that answer queries together, or one after the other, on a whole set.

Drawn unit rows around drawn class means, texts near the means; each method in a process of its own.

Example: python benchmarks/queries_together.py --rows 50000 --classes 1000 stata tda
"""

import argparse
import json
import multiprocessing
import resource
import time

import torch
from torch.nn import functional as F

from featcache.types import TextBank
from heads import registry
from heads.contract.rows import Rows, of_texts
from heads.fitted import Fitted

METHODS = ("transclip", "stata", "tda", "dmn", "oga")


def measure(name: str, rows: int, classes: int, d: int, threads: int) -> None:
    """Answer all rows once and print seconds and the peak of resident memory."""
    torch.set_num_threads(threads)
    rng = torch.Generator().manual_seed(1)

    def near(means: torch.Tensor, distance: float) -> torch.Tensor:
        noise = torch.randn(means.shape, generator=rng) / d**0.5
        return F.normalize(means + distance * noise, dim=-1)

    means = F.normalize(torch.randn(classes, d, generator=rng), dim=-1)
    x = near(means[torch.randint(0, classes, (rows,), generator=rng)], 1.5)
    bank = TextBank(
        classes=tuple(map(str, range(classes))),
        names=near(means, 3.0),
        templates=(),
        template_rows=None,
        norms="unit",
        default="name",
    )
    method = registry.get(name)
    config = method.config(mode="zero-shot") if name == "transclip" else method.config()
    hyper = method.hyper()
    params, fixed = method.prepare(of_texts(bank, x), config, hyper)
    head = Fitted(method=method, config=config, hyper=hyper, params=params, fixed=fixed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, cpu = time.perf_counter(), time.process_time()
    head.predict(Rows.of(x))
    row = {
        "method": name,
        "rows": rows,
        "classes": classes,
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "before_MiB": before // 1024,
        "peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(row), flush=True)


def main() -> None:
    """Measure the methods that are named, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    fresh = multiprocessing.get_context("spawn")
    for name in given.methods:
        sizes = (given.rows, given.classes, given.dim, given.threads)
        process = fresh.Process(target=measure, args=(name, *sizes))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{name} ended with exit code {process.exitcode}")


if __name__ == "__main__":
    main()
