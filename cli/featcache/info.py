"""`featcache info`: describe one cache."""

from cli.featcache.reports import distinguishing
from cli.ui import output, tables, units
from cli.ui.flags import in_flags
from cli.ui.options import CacheDir, Json, Key, OfBackbone, OfDataset, Positional, one_dataset
from featcache.counts import counted

SHOWN = 20
"""Unreadable images that `info` lists."""


def info(
    named: Positional = None,
    dataset: OfDataset = None,
    backbone: OfBackbone = None,
    key: Key = None,
    cache: CacheDir = None,
    json_: Json = False,
) -> None:
    """Describe one cache: its feature key, its contents, and unreadable images.

    Example: featcache info fieldguide
    """
    from dataclasses import asdict

    from featcache.store.cache import Cache
    from featcache.store.corpora import describe_corpora
    from featcache.store.library import cache_root, find_summaries
    from featcache.store.provenance import distinct

    found, *others = find_summaries(cache_root(cache), one_dataset(named, dataset), backbone, key)
    opened = Cache.open(found.path)
    listing, bad = opened.listing(), opened.bad_rows()
    made = distinct(opened.shards)
    fixed = asdict(opened.key)
    splits = {} if listing is None else {name: len(rows) for name, rows in listing.splits.items()}
    names = () if listing is None else listing.classes
    texts = {} if listing is None else listing.count_texts()
    ids = {} if listing is None else {listing.ids[row]: reason for row, reason in bad.items()}
    corpora = describe_corpora(opened.path)
    if json_:
        output.emit_json(
            {
                **found.to_json(),
                "feature_key": fixed,
                "splits": splits,
                "classes": list(names),
                "texts": texts,
                "root": "" if listing is None else listing.root,
                "last_block_bytes": opened.last_block_bytes(),
                "made_with": made,
                "unreadable": ids,
                "corpora": [corpus.to_json(in_flags) for corpus in corpora],
            }
        )
        return
    if others:
        more = counted(len(others), "more cache fits", "more caches fit")
        which = "; ".join(f"{distinguishing(o, (found, *others))} ({o.weights})" for o in others)
        output.say(f"{more}: {which}.")
    origin = found.weights if opened.key.is_imported else f"{found.weights} weights"
    rows = [("path", str(found.path)), ("finished", found.finished_text), ("from", origin)]
    rows += [(name, str(value)) for name, value in fixed.items()]
    if listing is not None:
        rows += [("images from", listing.root or "(imported)"), ("classes", units.some(names))]
        rows += [("splits", ", ".join(f"{name} {count}" for name, count in splits.items()))]
        rows += [("texts", ", ".join(f"{kind} {count}" for kind, count in texts.items()))]
    for name, c in found.components.items():
        size = f"{units.human_bytes(c.bytes)}, {counted(c.shards, 'shard')}"
        rows.append((name, f"{c.rows} rows of {list(c.shape)}, {size}"))
    rows += [(f"corpus {c.name}", in_flags([c.problem]) or c.text) for c in corpora]
    if last_block := opened.last_block_bytes():
        rows.append(("last block", f"its weights, {units.human_bytes(last_block)}"))
    rows += [("made with", ", ".join(f"{k} {v}" for k, v in one.items())) for one in made]
    rows += [("unreadable", f"{name}: {reason}") for name, reason in list(ids.items())[:SHOWN]]
    tables.emit_table(("", f"{found.dataset}, {found.backbone}"), rows)
