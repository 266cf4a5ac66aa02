"""Results as CSV. Control characters and line breaks in names are escaped."""

import csv
import io
from collections.abc import Iterable
from statistics import fmean

from featcache.escapes import shown
from heads.results.compare.compare import Group
from heads.results.render.json import as_dicts


def to_csv(groups: Iterable[Group]) -> str:
    """Write one line a row, fractions with every digit."""
    rows = as_dicts(groups)
    for row in rows:
        gain = row.pop("gain") or {}
        for name in ("reads", "marks", "apart", "seeds"):
            row[name] = ", ".join(map(str, row[name]))
        for name in ("mean", "low", "high", "p", "over", "word"):
            row[f"gain_{name}"] = gain.get(name)
        sure = row.pop("certainty") or {}
        for name in ("ece_before", "ece", "covered", "size"):
            row[name] = fmean(sure[name]) if sure.get(name) else None
        row.update({name: shown(v) for name, v in row.items() if isinstance(v, str)})
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else ["dataset"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
