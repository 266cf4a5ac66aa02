"""Rows of a corpus as part of a run: read, checked, and joined to the support.

The rule: a corpus row is a row of the support with the class that retrieval gave it. It counts as
much as the run says (1 unless `weight` is given) times its weight in the corpus, a labelled image
counts 1. It is never a validation row, and a row whose image is a shot or a validation image of the
same repetition is left out. docs/augment.md says what follows for each part of a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from featcache.counts import counted
from featcache.errors import CacheError, TaskError, UsageError
from featcache.retrieval.corpora.corpus import Corpus
from featcache.retrieval.corpora.digests import has_other_texts
from featcache.types import FeatureSet
from featcache.wording import Argument, Placeholder
from heads.augmentation import Augmentation, parse
from heads.contract.method import AnyMethod, Need
from heads.contract.rows import Rows
from heads.ops.duplicates import in_both
from heads.protocols.builder import query_rows
from heads.protocols.retrieved import Retrieved
from heads.reading import in_words
from heads.results.record import CorpusUse

BUILD = "Build one with `featcache corpus build`."
ASKED = Argument("augment", Placeholder("corpus:NAME"))


@dataclass(frozen=True, kw_only=True)
class Augmented:
    """The corpus of a run."""

    retrieved: Retrieved
    use: CorpusUse
    needs: frozenset[Need]
    """What is read of the images, without what corpus rows cannot have."""
    notes: tuple[str, ...]


def augmented(
    method: AnyMethod,
    config: Any,
    features: FeatureSet,
    augment: str | None,
    splits: Sequence[str],
) -> Augmented | None:
    """Read the corpus that a run asks for; None where it asks for none.

    Args:
        method: The method.
        config: Its Config.
        features: The cache.
        augment: `corpus:NAME:weight=W`, or None.
        splits: Query sets of the run; no row of theirs may be in the corpus.

    Raises:
        UsageError: If the method needs a corpus and there is none, or cannot learn from one.
        UnknownNameError: If the cache has no such corpus.
        CacheError: If the corpus does not fit the features or the classes.
        TaskError: If the corpus holds queries and was not built with them on demand.
    """
    needs = method.needs(config)
    roles = {need.role for need in needs}
    if augment is None:
        if "corpus" in roles:
            raise UsageError(
                f"Method '{method.name}' learns from a corpus. Name one with ", ASKED, ". ", BUILD
            )
        return None
    wanted = parse(augment)
    own_role = "corpus" in roles
    if not own_role:
        _check_fits(method, needs)
    corpus = _read(features, wanted.corpus)
    _check_corpus(corpus, features)
    _check_weights(method, config, corpus, wanted)
    use = CorpusUse(
        name=corpus.name,
        digest=corpus.digest,
        rows=len(corpus.labels),
        weight=wanted.weight,
        leaks=corpus.leaks,
    )
    rows = _rows(corpus, wanted.weight, is_unit=features.key.norms == "unit")
    if not corpus.leaks:
        for split in splits:
            _check_no_queries(corpus, features, split)
    dropped = set() if own_role else {n for n in needs if n.role == "support" and n.optional}
    return Augmented(
        retrieved=Retrieved(rows=rows, own_role=own_role, name=corpus.name, images=corpus.own_rows),
        use=use,
        needs=frozenset(needs - dropped),
        notes=(*_notes(corpus, use, features), *_dropped(dropped, features)),
    )


def _read(features: FeatureSet, name: str) -> Corpus:
    from featcache.retrieval.corpora.read import read_corpus

    return read_corpus(features, name)


def _rows(corpus: Corpus, weight: float, *, is_unit: bool) -> Rows:
    weights = weight * corpus.weights.float()
    return Rows(
        x=corpus.rows,
        norms=torch.ones_like(corpus.norms) if is_unit else corpus.norms,
        labels=corpus.labels,
        weights=None if bool((weights == 1).all()) else weights,
    )


def _check_fits(method: AnyMethod, needs: frozenset[Need]) -> None:
    """Refuse methods that read no training images, or more of them than a corpus has."""
    of_support = [need for need in needs if need.role == "support"]
    if not of_support:
        raise UsageError(
            f"Method '{method.name}' reads no labelled training images, so a corpus would change "
            f"nothing. Leave out ",
            Argument("augment"),
            ".",
        )
    required = [need for need in of_support if need.kind != "global" and not need.optional]
    if required:
        named = " and ".join(sorted(map(in_words, required)))
        raise UsageError(
            f"Method '{method.name}' needs {named} of its training images, and corpus rows have "
            f"only global features. Leave out ",
            Argument("augment"),
            ", or take a method that reads global features, such as tip-adapter or cmm.",
        )


def _check_weights(method: AnyMethod, config: Any, corpus: Corpus, wanted: Augmentation) -> None:
    if method.reads_row_weights(config):
        return
    if wanted.weight != 1:
        raise UsageError(
            f"Method '{method.name}' counts every row of its support alike, so corpus rows cannot "
            f"weigh {wanted.weight:g}. Use ",
            Argument("augment", str(replace(wanted, weight=1.0))),
            ", or a method that reads weights, such as tip-adapter, ridge or cmm.",
        )
    if not bool((corpus.weights == 1).all()):
        raise UsageError(
            f"Corpus '{corpus.name}' weighs its rows from {float(corpus.weights.min()):g} to "
            f"{float(corpus.weights.max()):g}, and method '{method.name}' counts every row alike. "
            f"Take a corpus without weights, or a method that reads them, such as tip-adapter."
        )


def _check_corpus(corpus: Corpus, features: FeatureSet) -> None:
    """Refuse a corpus that does not fit the features or the classes."""
    n, d, classes = len(corpus.labels), features.components["global"].shape[-1], features.classes
    again = "Build it again for this cache."
    if not n:
        raise TaskError(
            f"Corpus '{corpus.name}' has no rows. Build it with a lower ",
            Argument("min_cosine", of="featcache"),
            ".",
        )
    if corpus.rows.shape != (n, d):
        raise CacheError(
            f"Corpus '{corpus.name}' has rows of width {corpus.rows.shape[-1]}, the cache of "
            f"{features.listing.dataset} {d}. {again}"
        )
    low, high = int(corpus.labels.min()), int(corpus.labels.max())
    if not 0 <= low <= high < len(classes):
        raise CacheError(
            f"Corpus '{corpus.name}' has classes from {low} to {high}, and "
            f"{features.listing.dataset} has classes 0 to {len(classes) - 1}. {again}"
        )
    weights = corpus.weights
    if not bool((torch.isfinite(weights) & (weights > 0)).all()):
        raise CacheError(f"Corpus '{corpus.name}' has weights that are not above 0. {again}")


def _check_no_queries(corpus: Corpus, features: FeatureSet, split: str) -> None:
    """Refuse a corpus with images of a query set."""
    queries = query_rows(features, split)
    same = in_both(corpus.rows, features.unit("global", queries))
    if corpus.own_rows is not None:  # patches, views and crops have other features
        same |= torch.isin(corpus.own_rows, torch.from_numpy(queries))
    shared = int(same.sum())
    if shared:
        raise TaskError(
            f"{counted(shared, 'row')} of corpus '{corpus.name}' "
            f"{'is' if shared == 1 else 'are'} from images of the queries of split '{split}'. "
            f"Build the corpus without that split, or evaluate another one."
        )


def _notes(corpus: Corpus, use: CorpusUse, features: FeatureSet) -> list[str]:
    weight = "" if use.weight == 1 else f", each with weight {use.weight:g}"
    said = [
        f"Augmented with corpus '{use.name}' ({use.digest}): {counted(use.rows, 'row')} with "
        f"pseudo-labels{weight}."
    ]
    counts = torch.bincount(corpus.labels, minlength=len(features.classes))
    empty = [features.classes[c] for c in torch.nonzero(counts == 0)[:, 0].tolist()]
    if empty:
        more = f" and {len(empty) - 8} more" if len(empty) > 8 else ""
        said.append(
            f"The corpus has no row of {counted(len(empty), 'class', 'classes')}: "
            f"{', '.join(empty[:8])}{more}."
        )
    if has_other_texts(corpus.facts, features):
        said.append("The rows of the corpus were chosen by other texts than the cache has now.")
    if corpus.by == "image":
        shots = corpus.facts.get("shots", "all")
        each = f"{shots} a class, seeds {_listed(corpus)}" if shots != "all" else "all of train"
        said.append(
            f"The corpus was chosen by labelled images ({each}): the run learned from their labels "
            "too."
        )
    if use.leaks:
        said.append(
            "The corpus was built with queries in it: the figures are no measure, not ranked."
        )
    return said


def _listed(corpus: Corpus) -> str:
    return ", ".join(map(str, corpus.facts.get("seeds", ())))


def _dropped(dropped: set[Need], features: FeatureSet) -> list[str]:
    """Say which optional features of the support are left out, if the cache has them."""
    there = sorted(need.kind for need in dropped if need.fitting(features))
    return [f"Trained without {kind}: corpus rows have none." for kind in dict.fromkeys(there)]
