"""A served head under concurrent clients, beside the bare encoder over the same images.

Example: python benchmarks/serve.py --head last --photos PHOTOS --clients 200 --each 5

`heads serve` runs in a process of its own. A lone client sends 30 images first (`alone_s`: the
median). Then every client sends one image after the other, each in a request with a connection that
stays open; all begin at once. The bare encoder is `Embedder.stream` over the same number of images
before that, its features thrown away. `lost` counts requests without an answer, `wrong` those whose
best class is not the one of `heads.predict`, `other_bits` those whose probability differs at all,
`furthest` by how much at most. The CPU times are those of a request in the server's process, and of
an image of the bare encoder; clients share the cores with the server.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

from featcache.sources.queries.opening import open_queries
from featcache.threads import cpu_cores
from heads.api import load
from heads.predicting import Predictor

COMMAND = [sys.executable, "-c", "from cli.heads.app import main; main()", "serve"]
ALONE = 30
"""Requests of the lone client."""
SECONDS = 600.0
"""Longest wait for an answer."""


def main() -> None:
    """Measure and print one JSON line."""
    arguments = _arguments()
    found = open_queries(str(arguments.photos), Path()).images
    paths = [str(q.place) for q in islice(found, arguments.images)]
    count = arguments.clients * arguments.each
    predictor = Predictor(load(arguments.head), top=1, device=arguments.device)
    expected = [p.candidates[0] for p in predictor.images(paths)]
    cpu = time.process_time()
    bare = _bare(predictor, list(islice(cycle(paths), count)))
    bare_cpu = time.process_time() - cpu
    with _served(arguments) as (pid, url):
        _, alone, _ = asyncio.run(_asked(url, paths, 1, ALONE))
        before = _cpu_of(pid)
        seconds, times, answers = asyncio.run(_asked(url, paths, arguments.clients, arguments.each))
        served_cpu = _cpu_of(pid) - before
    pairs = [(answer[0], expected[number % len(paths)]) for number, answer in answers]
    apart = np.array([abs(answer["probability"] - best.probability) for answer, best in pairs])
    median, p99 = np.percentile(times, [50, 99]) if times else (np.nan, np.nan)
    print(
        json.dumps(
            {
                "method": predictor.head.method.name,
                "backbone": predictor.head.backbone,
                "micro_batch": arguments.micro_batch or f"1 to {predictor.embedder.micro_batch}",
                "device": str(predictor.embedder.backbone.device),
                "machine": f"{platform.machine()}, {cpu_cores()} cores, "
                f"{torch.get_num_threads()} threads",
                "load_average": round(os.getloadavg()[0], 1),
                "clients": arguments.clients,
                "requests": count,
                "lost": count - len(answers),
                "wrong": sum(answer["label"] != best.label for answer, best in pairs),
                "other_bits": int((apart > 0).sum()),
                "furthest": float(f"{apart.max(initial=0):.1e}"),
                "alone_s": round(float(np.median(alone)), 3),
                "median_s": round(float(median), 3),
                "p99_s": round(float(p99), 3),
                "served_per_s": round(len(answers) / seconds, 1),
                "bare_per_s": round(count / bare, 1),
                "served_cpu_ms": round(1000 * served_cpu / count, 2),
                "bare_cpu_ms": round(1000 * bare_cpu / count, 2),
            }
        )
    )


def _bare(predictor: Predictor, paths: list[str]) -> float:
    start = time.perf_counter()
    for _ in predictor.embedder.stream(iter(paths)):
        pass
    return time.perf_counter() - start


@contextmanager
def _served(arguments: argparse.Namespace) -> Iterator[tuple[int, str]]:
    words = [arguments.head, "--port", "0", "--json", "--top", "1", "--device", arguments.device]
    if arguments.micro_batch:
        words += ["--micro-batch", str(arguments.micro_batch)]
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield process.pid, str(json.loads(process.stdout.readline())["url"])
    finally:
        process.terminate()
        process.wait(60)


def _cpu_of(pid: int) -> float:
    """Return the CPU time of a process in seconds; Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _asked(
    url: str, paths: list[str], clients: int, each: int
) -> tuple[float, list[float], list[tuple[int, Any]]]:
    """Let all clients ask; return the seconds of all, those of each answer, and the answers."""
    files = [Path(path).read_bytes() for path in paths]
    times: list[float] = []
    answers: list[tuple[int, Any]] = []

    async def client(asking: httpx.AsyncClient, first: int) -> None:
        for number in range(first, first + each):
            begin = time.perf_counter()
            try:
                answer = await asking.post(
                    "predict", files={"images": ("a.jpg", files[number % len(files)])}
                )
            except httpx.HTTPError:
                continue
            if answer.status_code == httpx.codes.OK:
                times.append(time.perf_counter() - begin)
                answers.append((number, answer.json()["predictions"][0]["candidates"]))

    async with AsyncExitStack() as stack:
        # A pool each: one of many connections looks at all of them for every request.
        pools = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=url, timeout=SECONDS, verify=False)
            )
            for _ in range(clients)
        ]
        start = time.perf_counter()
        await asyncio.gather(*(client(pool, i * each) for i, pool in enumerate(pools)))
        return time.perf_counter() - start, times, answers


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--head", default="last", help="a run, a file or last")
    parser.add_argument("--photos", required=True, help="folder of images")
    parser.add_argument("--images", type=int, default=500, help="images of it that are used")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--each", type=int, default=5, help="requests of a client")
    parser.add_argument("--micro-batch", type=int, help="of the server; else as many as wait")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()
