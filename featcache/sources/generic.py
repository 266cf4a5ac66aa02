"""Data sets that have no name here: those read through a generic source, and those left out."""

from dataclasses import dataclass

from featcache.errors import UsageError
from featcache.wording import Argument, Placeholder


@dataclass(frozen=True, slots=True, kw_only=True)
class Generic:
    """Data sets of the field that a prefix reads."""

    names: tuple[str, ...]
    """As users ask for them, in lower case."""
    spec: str
    """How the `dataset` argument is written, e.g. `wds:FOLDER`."""
    how: str
    """What is read, for the documentation and for messages."""
    of: str = ""
    """What the documentation calls them together; empty for their names."""


GENERIC = (
    Generic(
        names=(
            "stl10",
            "mnist",
            "svhn",
            "pcam",
            "rendered_sst2",
            "fer2013",
            "voc2007",
            "clevr_count_all",
            "kitti_closest_vehicle_distance",
            "dmlab",
            "dsprites",
            "smallnorb",
            "diabetic_retinopathy",
        ),
        spec="wds:FOLDER",
        how="webdataset copies of CLIP_benchmark; their splits and label orders are VTAB's, so "
        "class names come with them",
    ),
    Generic(
        names=(
            "medmnist",
            *(
                f"{organ}mnist"
                for organ in (
                    *("path", "chest", "derma", "oct", "pneumonia", "retina", "breast"),
                    *("blood", "tissue", "organa", "organc", "organs"),
                )
            ),
        ),
        spec="npz:FILE.npz",
        how="npz files of Zenodo record 10519652",
        of="medmnist (pathmnist, dermamnist, ...)",
    ),
    Generic(names=("birdsnap",), spec="folder:PATH", how="class folders of your own; see below"),
    Generic(
        names=("rendered-sst2",),
        spec="folder:PATH",
        how="class folders in train, valid and test",
        of="rendered_sst2, as OpenAI publishes it",
    ),
    Generic(
        names=("optimal31", "patternnet", "rsc11", "rsicb128", "rsicb256", "mlrsnet", "ucmerced"),
        spec="folder:PATH",
        how="class folders",
    ),
)
"""Read with another prefix than a name."""

LEFT_OUT = {
    "birdsnap": "it is published as a list of addresses, many of which no longer work, so copies "
    "differ",
    "rsicd": "it has captions and no classes",
    "hateful memes": "the classes are about the text in the image",
    "kinetics700": "videos",
    "imagenet-o": "has no labels of its own",
}
"""Data set -> why it has no name here."""


def refuse_generic(name: str) -> None:
    """Raise if a data set of the field is read through a generic source.

    Args:
        name: What the user calls it.

    Raises:
        UsageError: If it is one of `GENERIC`; the message says how it is read.
    """
    for one in GENERIC:
        if name.lower() in one.names:
            how = one.how.partition(";")[0]
            raise UsageError(
                f"'{name}' has no name here; it is read as ",
                Argument("dataset", Placeholder(one.spec)),
                f" ({how}; docs/datasets.md and docs/own-data.md).",
            )
