"""Results as objects for JSON."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from heads.results.compare.compare import Group


def as_dicts(groups: Iterable[Group]) -> list[dict[str, Any]]:
    """Flatten groups into one JSON-ready object a row."""
    flat = []
    for g in groups:
        where = {
            "dataset": g.dataset,
            "backbone": g.backbone,
            "key": g.key,
            "split": g.split,
            "shots": "all" if g.shots is None else g.shots,
            "support": g.support,
            "ways": g.ways,
            "queries": g.queries,
            "against": g.against,
            "metric": g.metric,
        }
        for row in g.rows:
            values = asdict(row)
            gain, word, _ = values.pop("gain"), values.pop("word"), values.pop("metric")
            if gain is not None:
                gain = {**gain, "seeds": _list(gain["seeds"]), "word": word}
            for name in ("reads", "marks", "apart", "seeds"):
                values[name] = list(values[name])
            if values["certainty"] is not None:
                values["certainty"] = {
                    name: list(value) if isinstance(value, tuple) else value
                    for name, value in values["certainty"].items()
                }
            flat.append({**where, "name": row.name, **values, "gain": gain})
    return flat


def _list(values: tuple[int, ...] | None) -> list[int] | None:
    return None if values is None else list(values)
