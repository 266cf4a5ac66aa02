"""Fuzz targets for records and folders of runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from featcache.errors import FeatcacheError
from tests.fuzz.cases import Case, writable
from tests.fuzz.guard import Target


def check_record(folder: Path) -> None:
    from heads.results.reading import from_json

    result = from_json((folder / "result.json").read_text("utf-8", "replace"))
    assert from_json(result.to_json()).to_json() == result.to_json()
    result.to_json().encode()


def check_runs(folder: Path) -> None:
    from heads.results import answers, store
    from heads.results.compare import compare as comparison
    from heads.results.render import cells
    from heads.results.render.csv import to_csv
    from heads.results.render.json import as_dicts
    from heads.results.render.markdown import to_markdown
    from heads.results.verify import verify_runs

    found = comparison.compare(folder)
    json.dumps(verify_runs(folder).to_json(), allow_nan=False)
    to_csv(found.groups).encode()
    to_markdown(found.groups).encode()
    json.dumps(as_dicts(found.groups), allow_nan=False)
    for group in found.groups:
        texts = [cell for row in cells.cells(group) for cell in row]
        writable([group.title, *cells.notes(group), *texts])
    for path in store.load_all(folder).folders.values():
        try:
            result = store.load(path)
            result.to_json().encode()
            if result.predictions is not None:  # no figure is taken that the answers do not give
                right = result.predictions.predicted == result.predictions.labels
                assert abs(result.metrics["top1"].mean - right.mean()) < 1e-9
                assert len(answers.by_name(result).ids) == result.repetitions
        except FeatcacheError:
            continue


def toy_run(method: str, run: str) -> Any:
    from heads.results.metrics import evaluate
    from heads.results.record import Predictions, Result, Support

    labels = np.arange(8, dtype=np.int32).reshape(2, 4) % 2
    kept = Predictions(
        predicted=np.array([[0, 1, 1, 1], [0, 1, 0, 1]], dtype=np.int32),
        labels=labels,
        zero_shot=np.zeros_like(labels),
        images=np.tile(np.arange(4, dtype=np.int32), (2, 1)),
        ids=("test/ä.jpg", "b.jpg", "c.jpg", "\udcff.jpg"),
        classes=("ant", "bee"),
    )
    return Result(
        method=method,
        dataset="toys",
        backbone="ViT-B/32",
        split="test",
        shots=0 if method == "zero-shot" else 16,
        seeds=(1, 2),
        protocol="few_shot",
        selection="none",
        config={"text": None, "steps": 200, "triplet": True, "lr": 0.1},
        chosen=({"lr": 0.1},) * 2,
        metrics=evaluate(kept, 2),
        zero_shot_top1=0.5,
        seconds={"fit": 1.25, "evaluate": 0.1},
        run=run,
        key="0123456789ab",
        versions={"torch": "2"},
        classes=2,
        queries=4,
        ids="feedfacefeedface",
        created="2026-01-01T00:00:00+00:00",
        notes=("Größe",),
        support=Support(smallest=2, largest=16, whole=False),
        unreadable=1,
        predictions=kept,
        beside={"episodes.json": b'{"format": 1}\n'},
    )


def record_seeds(_: Path) -> list[Case]:
    texts = [toy_run(method, "one").to_json() for method in ("cmm", "zero-shot")]
    return [{"result.json": text.encode()} for text in texts]


def run_seeds(folder: Path) -> list[Case]:
    from heads.results.store import RECORD, save
    from tests.fuzz.cases import read_case

    for method, run in (("cmm", "one"), ("zero-shot", "two"), ("cmm", "three")):
        path = save(toy_run(method, run), folder / "runs") / RECORD
    sealed = read_case(folder / "runs")
    raw = json.loads(path.read_bytes())  # of the time before seals
    kept = {k: v for k, v in raw.items() if k not in ("crc", "files", "support", "unreadable")}
    path.write_text(json.dumps(kept | {"format": 1}))
    return [sealed, read_case(folder / "runs")]


RUN_TARGETS = (
    Target(name="record", run=check_record, seeds=record_seeds),
    Target(name="runs", run=check_runs, seeds=run_seeds, is_folder=True),
)
