"""`heads train`: train a method on cached features and evaluate it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.heads.sentence import ORDERED, sentence
from cli.ui import errors, live, options, output, units
from cli.ui.options import CacheDir, Device, Json, Key, Quiet, RunsDir
from cli.ui.which import cache_text

if TYPE_CHECKING:
    from heads.protocols.obtain import Obtained


UNSAVED = "Nothing of this run was stored; the same command starts it again."


def train(
    method: Annotated[str, typer.Argument(help="A method's name; `heads list` shows them.")],
    shots: Annotated[
        str | None,
        typer.Option(
            help="Images per class, 'all', or with --augment 0.",
            show_default="the method's, as `heads list` says: 16 or all; in episodes 5",
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Data set; the cache finished last where not given.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Backbone of the cache.")] = None,
    key: Key = None,
    texts: Annotated[
        str | None,
        typer.Option(
            metavar="DIGEST",
            help="Text set of the cache to read; `featcache text` lists them.",
            show_default="the current one",
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N|A-B|A,B,...", help="Draws: N is seeds 1-N.", show_default="3: seeds 1-3"
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="The split to evaluate, or several: test,sketch.", show_default="test"),
    ] = None,
    selection: Annotated[
        str | None,
        typer.Option(
            help="few-shot-val, full-val, k-shot-val, cv, none or oracle.",
            show_default="few-shot-val; in episodes none",
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="few-shot; episodic: many small tasks from one split; batches: queries in batches "
            "of few classes; stream: queries in correlated orders."
        ),
    ] = "few-shot",
    ways: Annotated[
        int | None, typer.Option(help="Classes of an episode.", show_default="5")
    ] = None,
    queries: Annotated[
        int | None, typer.Option(help="Queries a class of an episode.", show_default="15")
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(help="Number of episodes.", show_default="400")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of the episodes, batches or streams.", show_default="1"),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Queries that arrive together.", show_default="64; in protocol stream 128"
        ),
    ] = None,
    effective_classes: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|LOW-HIGH",
            help="Classes of a batch, or the fewest and most.",
            show_default="1-4",
        ),
    ] = None,
    correlation: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|separate|none",
            help="Of a stream: smaller is more correlated; class after class; random order.",
            show_default="0.01",
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            help="Number of batches, or of streams.", show_default="1000 batches, 100 streams"
        ),
    ] = None,
    order_list: Annotated[
        Path | None,
        typer.Option(help="The orders.json of a run, to answer the same queries in its order."),
    ] = None,
    episode_list: Annotated[
        Path | None, typer.Option(help="The episodes.json of a run, to train on the same episodes.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method; repeatable."),
    ] = None,
    class_weights: Annotated[
        str | None, typer.Option(help="balanced: weigh rows by the inverse of their class's count.")
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="corpus:NAME[:weight=W]",
            help="Add rows of a corpus to the support; --shots 0 trains on them alone.",
        ),
    ] = None,
    support: Annotated[
        str | None,
        typer.Option(
            metavar="long-tail:RATIO|counts:FILE",
            help="Fewer images of some classes; docs/results.md tells which.",
        ),
    ] = None,
    calibrate_on: Annotated[
        str | None, typer.Option(help="auto, half-val, folds or none: docs/certainty.md.")
    ] = None,
    strict_shots: Annotated[
        bool, typer.Option("--strict-shots", help="Stop where a class has fewer images.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Train even where an equal run is there.")
    ] = False,
    no_head: Annotated[
        bool, typer.Option("--no-head", help="Do not keep the trained heads.")
    ] = False,
    device: Device = "auto",
    cache: CacheDir = None,
    runs: RunsDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Train METHOD on cached features and evaluate it.

    \b
    Example: heads train cmm --shots 16
    Example: heads train auto
    Example: heads train gda --shots 16 --support long-tail:0.01
    Example: heads train cmm --protocol episodic --ways 5 --shots 1 --split sketch
    Example: heads train tip-adapter --shots 1 --augment corpus:wild:weight=0.3
    Example: heads train stata --protocol batches --batch 64 --effective-classes 1-4
    Example: heads train oga --protocol stream --correlation 0.01
    """
    from featcache.errors import FeatcacheError, UnknownNameError, UsageError
    from heads.augmentation import parse as parse_augmentation
    from heads.registry import names
    from heads.selection import names as words

    if method not in names():
        raise UnknownNameError("method", method, names(), "`heads list` shows all.")
    if class_weights not in (None, "balanced"):
        raise UsageError(f"--class-weights takes 'balanced', got '{class_weights}'.")
    if augment is not None:
        parse_augmentation(augment)
    of_episodes = {
        "ways": ways,
        "queries": queries,
        "episodes": episodes,
        "seed": seed,
        "episode_list": episode_list,
    }
    of_orders = {
        "batch": batch,
        "effective_classes": effective_classes,
        "correlation": correlation,
        "repeats": repeats,
        "order_list": order_list,
    }
    splits = _splits(split)
    arguments: dict[str, Any] = {"selection": selection}
    if protocol not in ORDERED:
        _only_of(of_orders, "batches and streams", "--protocol batches or --protocol stream")
    if protocol == "episodic":
        _no_others(
            "--protocol episodic",
            seeds=seeds,
            class_weights=class_weights,
            augment=augment,
            support=support,
            calibrate_on=calibrate_on,
        )
        if len(splits) > 1:
            raise UsageError("Episodes come from one split; name one with --split.")
        arguments |= of_episodes | {"split": split}
        arguments["shots"] = None if shots is None else _some_shots(shots)
    elif protocol in ORDERED:
        of_training = {"shots": shots, "seeds": seeds, "class_weights": class_weights}
        _no_others(
            f"--protocol {protocol}", selection=selection, calibrate_on=calibrate_on, **of_training
        )
        _only_of({**of_episodes, "seed": None}, "episodes", "--protocol episodic")
        if len(splits) > 1:
            raise UsageError("Batches and streams come from one split; name one with --split.")
        drawn = {"effective_classes": _classes(effective_classes)}
        arguments |= of_orders | drawn | {"seed": seed, "split": split, "protocol": protocol}
    elif protocol == "few-shot":
        _only_of(of_episodes, "episodes", "--protocol episodic")
        if shots is not None:
            arguments["shots"] = _shots(shots, augment)
        arguments["augment"] = augment
        arguments["seeds"] = options.seeds("3" if seeds is None else seeds)
        arguments |= {"strict_shots": strict_shots, "class_weights": class_weights}
        if shots is not None and (support or "").startswith("counts:"):
            _no_others("--support counts:...", shots=shots)
        arguments |= {"support": support, "calibrate_on": calibrate_on}
    else:
        raise UnknownNameError("protocol", protocol, ("few-shot", "episodic", *ORDERED))
    selections = words.EPISODE_SELECTIONS if protocol == "episodic" else words.SELECTIONS
    if selection is not None and selection not in selections:
        raise UnknownNameError("selection", selection, selections)
    if calibrate_on is not None and calibrate_on not in words.CALIBRATIONS:
        raise UnknownNameError("calibration", calibrate_on, words.CALIBRATIONS)
    settings = options.pairs(set_ or ())
    words.check_settings(method, settings)
    arguments = {
        name: value for name, value in arguments.items() if name == "shots" or value is not None
    }

    from featcache.store.library import cache_root, find_cache
    from heads.protocols.imbalance import profile
    from heads.results.store import check_writable, folder_of, runs_root

    opened = find_cache(cache_root(cache), dataset, backbone, key)
    if texts is not None:
        opened.text_set(texts)
    if (listing := opened.listing()) is not None:
        for name in splits if split is not None else ():
            listing.rows(name)
        if support is not None:
            profile(support, listing.classes)
    check_writable(runs_root(runs))
    from heads.protocols import episodic, online, training  # loads torch: nothing above may
    from heads.protocols.obtain import Obtained, obtain, save
    from heads.protocols.plan import Request

    root = runs_root(runs)
    with errors.noting(UNSAVED), live.live(quiet) as line:
        line.say(cache_text(opened, is_named=dataset is not None))
        features = opened.feature_set(texts)
        how: dict[str, Any] = {"device": device, "progress": line.counter()}
        if protocol == "episodic":
            result = episodic.run(method, features=features, settings=settings, **how, **arguments)
            made = [Obtained(result=result, folder=None, heads=(), trained=True)]
        elif protocol in ORDERED:
            result = online.run(method, features=features, settings=settings, **how, **arguments)
            made = [Obtained(result=result, folder=None, heads=(), trained=True)]
        else:
            request = Request(
                method=method, features=features, settings=settings, splits=splits, **arguments
            )
            made = obtain(training.plan(request), root, again=again, keep_heads=not no_head, **how)
        for note in dict.fromkeys(note for one in made for note in one.result.notes):
            line.say(note)
        for text in _reuse_notes(made):
            line.say(text)
    for one in made:
        folder = one.folder or folder_of(one.result, root)
        saved = lambda place=folder: (  # noqa: E731
            f"The run was saved as {place}." if place.exists() else UNSAVED
        )
        with errors.noting(saved, KeyboardInterrupt, OSError, FeatcacheError):
            save(one, root)
            if json_:
                output.emit_json(one.result.as_dict())
            else:
                output.emit(sentence(one.result))
                output.emit(str(folder))


def _reuse_notes(made: "list[Obtained]") -> Iterator[str]:
    """Yield notes on runs and heads that were reused, and on heads that are kept."""
    from heads.results import named

    for one in made:
        if not one.is_new:
            yield f"An equal run of {one.result.split} is there and was taken; --again repeats it."
        elif not one.trained:
            yield f"The heads were kept: {one.result.split} was answered without training."
        if one.heads:
            size = sum(len(one.result.beside[named.file_of(seed)]) for seed in one.result.seeds)
            holds = "; they hold features of the training images" if one.heads[0].holds else ""
            yield f"Heads kept: {len(one.heads)}, {units.human_bytes(size)}{holds}."


def _splits(text: str | None) -> tuple[str, ...]:
    """Read the query sets, each once."""
    names = [name.strip() for name in ("test" if text is None else text).split(",")]
    return tuple(dict.fromkeys(names))


def _shots(text: str, augment: str | None) -> int | None:
    """Read a number of shots, which may be 0 where a corpus joins the support; None is all."""
    from featcache.errors import UsageError

    if text != "0":
        return options.shots(text)
    if augment is None:
        raise UsageError(
            "--shots 0 leaves nothing to train on. Give a number from 1, or 'all'; with "
            "--augment corpus:NAME, --shots 0 trains on the rows of a corpus alone."
        )
    return 0


def _some_shots(text: str) -> int:
    from featcache.errors import UsageError

    shots = options.shots(text)
    if shots is None:
        raise UsageError("An episode needs a number of --shots, got 'all'; write e.g. --shots 5.")
    return shots


def _classes(text: str | None) -> tuple[int, int] | None:
    """Read --effective-classes: 1-4, or 4 for 4-4."""
    from featcache.errors import UsageError

    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", text.strip())
    if found is None:
        raise UsageError(
            f"--effective-classes takes the classes of a batch: the fewest and the most, as 1-4, "
            f"or one number; got '{text[:80]}'."
        )
    return int(found[1]), int(found[2] or found[1])


def _only_of(options: dict[str, Any], what: str, protocol: str) -> None:
    """Refuse options of a protocol that --protocol does not ask for."""
    from featcache.errors import UsageError

    for name, value in options.items():
        if value is not None:
            flag = "--" + name.replace("_", "-")
            hint = " For draws of the shots there is --seeds." if name == "seed" else ""
            raise UsageError(f"{flag} is for {what}: add {protocol}, or leave it out.{hint}")


def _no_others(protocol: str, **options: object) -> None:
    """Refuse options that another protocol reads."""
    from featcache.errors import UsageError

    for name, value in options.items():
        if value is not None:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag} has no meaning with {protocol}; leave one of the two out.")
