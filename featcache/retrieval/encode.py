"""A query as a unit vector in the space of a cache.

A class, a row and a text that the cache holds are looked up. Other texts, and images, go through
the encoder that made the cache, with the same weights, compute type and micro-batch.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from featcache.backbones.base import Backbone, check_key
from featcache.backbones.names import COMPUTE_FLAGS
from featcache.backbones.registry import load_backbone
from featcache.bank import TextBank
from featcache.embedding import Embedder, ImageLike
from featcache.errors import CacheError, CorruptCacheError, MissingComponentError, UsageError
from featcache.retrieval.query import check_encodable
from featcache.store.provenance import COMPUTE, MICRO_BATCH
from featcache.text.templates import fill
from featcache.types import FeatureSet
from featcache.wording import Argument, Part


def class_vector(cache: FeatureSet, label: int) -> Float32[Tensor, " d"]:
    """Return the text anchor of a class.

    Raises:
        MissingComponentError: If the cache has no texts.
    """
    if cache.text is None:
        raise MissingComponentError(
            f"{cache.listing.dataset} with {cache.backbone} has no texts, so its classes have no "
            "vectors. Search for a row: ",
            Argument("row"),
            ".",
        )
    return cache.text.anchors()[label]


def row_vector(cache: FeatureSet, row: int) -> Float32[Tensor, " d"]:
    """Return the stored global features of a row.

    Raises:
        UsageError: If its image could not be read.
        MissingComponentError: If the cache lacks it.
    """
    if not cache.ok[row]:
        raise UsageError(
            f"{cache.listing.ids[row]} could not be read when it was encoded, so it has no "
            "features. Choose another image, or extract again once it is mended."
        )
    return cache.unit("global", np.array([row]))[0]


def stored_text(bank: TextBank | None, text: str) -> Float32[Tensor, " d"] | None:
    """Return the vector of a text that a cache holds, of any kind; None if it does not."""
    if bank is None:
        return None
    rows = None
    if bank.names is not None and text in bank.classes:
        rows = bank.names[bank.classes.index(text)]
    elif (at := _filled(bank, text)) is not None and bank.template_rows is not None:
        rows = bank.template_rows[at]
    else:
        for owned in bank.owned().values():
            if text in owned.texts:
                rows = owned.rows[owned.texts.index(text)]
                break
    return None if rows is None else torch.nn.functional.normalize(rows, dim=-1)


def _filled(bank: TextBank, text: str) -> tuple[int, int] | None:
    """Return class and template of a sentence."""
    for number, template in enumerate(bank.templates):
        before, _, after = template.partition("{}")
        inside = text[len(before) : len(text) - len(after)]
        if inside in bank.classes and fill(template, inside) == text:
            return bank.classes.index(inside), number
    return None


class QueryEncoder:
    """Encodes texts and images like the rows of a cache; loads the backbone when first used."""

    def __init__(
        self,
        cache: FeatureSet,
        *,
        weights: str | None = None,
        tokenizer: Path | None = None,
        device: str = "auto",
        say: Callable[[Part], None] = lambda _: None,
    ) -> None:
        """Choose cache and encoder.

        Args:
            cache: Cache whose features are matched.
            weights: Weights of the backbone; None takes those that `extract` was given.
            tokenizer: Tokenizer, if `extract` was given one.
            device: auto, cpu, cuda, ...
            say: Called with sentences that the user should read.
        """
        self.cache, self.device, self.say = cache, device, say
        self.weights, self.tokenizer = weights, tokenizer
        self._backbone: Backbone | None = None

    def text(self, text: str) -> Float32[Tensor, " d"]:
        """Return the unit vector of a text: the stored one if the cache holds this text.

        Raises:
            FeatcacheError: If the features were imported.
            BackboneError: If the text tower or its weights are not on this machine.
            CacheError: If the weights, or the tokenizer, are not those of the cache.
        """
        bank = self.cache.text
        if (stored := stored_text(bank, text)) is not None:
            return stored
        backbone = self._load("text")
        if backbone.lacks_texts is not None:
            raise backbone.lacks_texts
        if bank is not None and bank.tokenizer != backbone.tokenizer:
            raise CacheError(
                f"The texts of {self.cache.listing.dataset} were encoded with another tokenizer. "
                "Name it with ",
                Argument("tokenizer"),
                ", or extract the texts again with the one that is here.",
            )
        if backbone.truncated([text]):
            self.say(f"The text is longer than {backbone.name} reads and was cut.")
        rows = backbone.encode_texts([text]).float().cpu()
        return torch.nn.functional.normalize(rows[0], dim=-1)

    def image(self, image: ImageLike) -> Float32[Tensor, " d"]:
        """Return the unit vector of an image, equal to what the cache would store for it.

        Raises:
            FeatcacheError: If the features were imported.
            UnreadableImageError: If the image cannot be used.
            BackboneError: If the weights are not on this machine.
            CacheError: If the weights are not those of the cache.
        """
        backbone = self._load("image")
        embedder = Embedder(backbone, micro_batch=self._encoding()[0], strict=True)
        return embedder.embed(image).unit("global")[0]

    def _load(self, kind: str) -> Backbone:
        if self._backbone is not None:
            return self._backbone
        cache = self.cache
        check_encodable(kind, cache.key.is_imported, cache.listing.dataset)
        seeded = cache.key.weights if cache.key.weights.startswith("random-") else ""
        backbone = load_backbone(
            cache.backbone,
            weights=self.weights or cache.weights or seeded or None,
            device=self.device,
            compute=self._encoding()[1],
            tokenizer=self.tokenizer,
            image_size=cache.key.image_size,
        )
        check_key(backbone, cache.key, cache.path)
        self._backbone = backbone
        return backbone

    def _encoding(self) -> tuple[int | None, str]:
        """Return micro-batch and compute type of the cache, so that bits agree."""
        encoding = self.cache.encoding
        if not encoding:
            return None, "auto"
        size, compute = encoding[MICRO_BATCH], encoding[COMPUTE]
        is_size = size.isascii() and size.isdecimal() and len(size) < 7
        if not is_size or compute not in COMPUTE_FLAGS:
            raise CorruptCacheError(
                f"The shards of {self.cache.path} were made with micro-batch and compute type "
                f"'{size[:20]} {compute[:20]}', which no pass has. Remove the cache with "
                "`featcache rm` and extract again."
            )
        return int(size), COMPUTE_FLAGS[compute]
