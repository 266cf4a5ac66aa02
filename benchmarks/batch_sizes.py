"""What a smaller micro-batch costs an image, and which bits it changes.

Example: python benchmarks/batch_sizes.py --head last --photos PHOTOS --images 480

The images are encoded in micro-batches of 1, 2, 4, ... and of the head's own size, and answered by
the head. `other_values` is the share of feature values that differ from those of its own size,
`furthest` the largest difference of a probability, `other_classes` counts images with another best
class, and `alone_ms` is the median time of an image by itself.
"""

import argparse
import json
import time
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np

from featcache.embedded import Embedded
from featcache.sources.queries.opening import open_queries
from heads.api import load
from heads.predicted import Prediction
from heads.predicting import Predictor
from heads.serve.batch_sizes import BatchSizes

ALONE = 30
"""Images that are encoded by themselves."""


def main() -> None:
    """Measure and print a JSON line for each size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--head", default="last", help="a run, a file or last")
    parser.add_argument("--photos", required=True, help="folder of images")
    parser.add_argument("--images", type=int, default=480, help="images of it that are used")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    found = islice(open_queries(str(arguments.photos), Path()).images, arguments.images)
    images = [Path(str(query.place)).read_bytes() for query in found]
    trained = load(arguments.head)
    predictor = Predictor(trained, top=len(trained.classes), device=arguments.device)
    usual = predictor.embedder
    features = usual.embed(images)
    answers = predictor.embedded(features)
    for size in BatchSizes(largest=usual.micro_batch).all:
        embedder = usual.in_batches(size)
        alone = []
        for image in images[:ALONE]:
            start = time.perf_counter()
            predictor.embedded(embedder.embed(image))
            alone.append(time.perf_counter() - start)
        start = time.process_time()
        others = embedder.embed(images)
        cpu = time.process_time() - start
        given = predictor.embedded(others)
        print(
            json.dumps(
                {
                    "micro_batch": size,
                    "alone_ms": round(1000 * median(alone), 1),
                    "cpu_ms": round(1000 * cpu / len(images), 2),
                    "other_values": round(_apart(features, others), 5),
                    "furthest": float(f"{max(map(_furthest, answers, given)):.1e}"),
                    "other_classes": sum(
                        a.name != b.name for a, b in zip(answers, given, strict=True)
                    ),
                }
            ),
            flush=True,
        )


def _apart(one: Embedded, other: Embedded) -> float:
    """Return the share of values of all components that differ."""
    pairs = [
        (one.components[name].numpy(), other.components[name].numpy()) for name in one.components
    ]
    return float(np.mean(np.concatenate([(a != b).ravel() for a, b in pairs])))


def _furthest(one: Prediction, other: Prediction) -> float:
    """Return the largest difference of the probabilities of a class."""
    found = {c.label: c.probability for c in one.candidates}
    return max((abs(found[c.label] - c.probability) for c in other.candidates), default=0.0)


if __name__ == "__main__":
    main()
