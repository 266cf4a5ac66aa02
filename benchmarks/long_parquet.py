"""How long a parquet file of many images takes to list, and how much memory.

    python benchmarks/long_parquet.py --rows 1000000

The file holds images of a few bytes, their paths and labels, in row groups of 10,000.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

from featcache.sources.registry import open_dataset

IN_A_PART = 100_000


def main() -> None:
    """Write the file in another process, list it, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.parquet"
        writer = multiprocessing.get_context("spawn").Process(target=write, args=(path, rows))
        writer.start()
        writer.join()
        start, cpu = time.perf_counter(), time.process_time()
        dataset = open_dataset(f"hf:{path}", root=Path(folder))
        row = {
            "rows": len(dataset.samples),
            "MiB": path.stat().st_size >> 20,
            "list_s": round(time.perf_counter() - start, 1),
            "list_cpu_s": round(time.process_time() - cpu, 1),
            "peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        }
    print(json.dumps(row))


def write(path: Path, rows: int) -> None:
    """Write the file part by part."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for first in range(0, rows, IN_A_PART):
        numbers = range(first, min(first + IN_A_PART, rows))
        fields = [[b"%d" % i for i in numbers], [f"n/{i}.jpg" for i in numbers]]
        images = pa.StructArray.from_arrays(list(map(pa.array, fields)), names=["bytes", "path"])
        table = pa.table({"image": images, "label": pa.array([i % 1000 for i in numbers])})
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=10_000)
    if writer is not None:
        writer.close()


if __name__ == "__main__":
    main()
