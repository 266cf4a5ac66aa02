"""Transport between sets of unequal size: those of about one size are padded and solved together.

A set is the texts of one class, or the regions of one image that have mass. Sets stand in buckets,
each as wide as its largest member, so that `heads.ops.sinkhorn.match` sees few shapes and little
padding whatever the sizes are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from heads.ops.torch_private import may_be_inside

TEXT_FILL = 0.7
"""Least share of a class's padded texts that are its own,"""
TEXT_LACK = 2
"""unless no more than this many are padding: a bucket of its own costs more."""
REGION_FILL = 0.8
"""Least share of its regions that an image keeps of those that are solved with it."""
SIMILARITY_BYTES = {"cpu": 16 * 2**20, "cuda": 256 * 2**20}
"""Bytes of S for the images whose regions meet the texts of all classes in one product."""


@runtime_checkable
class Solver(Protocol):
    """Solve padded problems; `heads.ops.sinkhorn.match` and `pot_match` with their settings."""

    def __call__(
        self,
        similarity: Float[Tensor, "k n m c"],
        a: Float[Tensor, "k n 1 1"],
        b: Float[Tensor, "1 #n m #c"],
        *,
        left_out: int = 0,
    ) -> Float[Tensor, "n c"]:
        """Return <gamma, S> of every image and class."""
        ...


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """The texts of all classes, in buckets of classes with about as many."""

    place: Int64[Tensor, " c"]
    """Where each class stands once the buckets are joined."""
    members: Int64[Tensor, " c"]
    """The class at each place."""
    masses: tuple[Float[Tensor, "_ _"], ...]
    """By bucket [m c]: 1 / size of the class where a text is its own, 0 where it is padding."""
    texts: Float[Tensor, "t d"]
    """The rows of all buckets, [m c] one after the other."""

    @staticmethod
    def pack(texts: Float[Tensor, "m d"], owner: Int64[Tensor, " m"], classes: int) -> "Buckets":
        """Pad texts.

        A bucket is as wide as its largest class; classes that would fill less than `TEXT_FILL` of
        it and lack more than `TEXT_LACK` go to the next.

        Args:
            texts: Rows.
            owner: Class of each row.
            classes: Number of classes, each with one row at least.

        Example:
            >>> made = Buckets.pack(torch.eye(4), torch.tensor([0, 1, 1, 1]), 2)
            >>> made.members, [tuple(mass.shape) for mass in made.masses]
            (tensor([1, 0]), [(3, 2)])
        """
        counts = torch.bincount(owner, minlength=classes)
        order = torch.argsort(counts, descending=True, stable=True)
        start, padded, masses = 0, [], []
        while start < classes:
            width = int(counts[order[start]])
            least = min(TEXT_FILL * width, width - TEXT_LACK)
            members = order[start : start + int((counts[order[start:]] >= least).sum())]
            rows = texts.new_zeros(width, len(members), texts.shape[1])
            mass = texts.new_zeros(width, len(members))
            for i, c in enumerate(members.tolist()):
                own = texts[owner == c]
                rows[: len(own), i], mass[: len(own), i] = own, 1 / len(own)
            padded.append(rows.flatten(0, 1))
            masses.append(mass)
            start += len(members)
        place = torch.argsort(order)
        return Buckets(place=place, members=order, masses=tuple(masses), texts=torch.cat(padded))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, as a head keeps them."""
        masses = {f"mass.{i}": mass for i, mass in enumerate(self.masses)}
        return {"place": self.place, "members": self.members, **masses, "texts": self.texts}

    @staticmethod
    def read(tensors: dict[str, Tensor]) -> "Buckets":
        """Find what `tensors` named among the tensors of a head."""
        count = sum(name.startswith("mass.") for name in tensors)
        return Buckets(
            place=tensors["place"],
            members=tensors["members"],
            masses=tuple(tensors[f"mass.{i}"] for i in range(count)),
            texts=tensors["texts"],
        )

    def match(
        self,
        regions: Float[Tensor, "k n d"],
        a: Float[Tensor, "k n"],
        solve: Solver,
        masses: Sequence[Float[Tensor, "_ _ _"]] | None = None,
        *,
        left_out: int = 0,
    ) -> Float[Tensor, "n c"]:
        """Score all classes: one product with all texts, then bucket by bucket.

        Args:
            regions: S are their products with the texts.
            a: Mass of the regions.
            solve: The solver.
            masses: Mass of the texts [n m c] by bucket, for each image; None is `self.masses`.
            left_out: Regions of mass 0 that were dropped before.
        """
        k, n, d = regions.shape
        if n == 0:
            return regions.new_empty(0, len(self.place))
        texts, shared = self.texts, masses is None
        if masses is None:
            masses = [mass[None] for mass in self.masses]
        budget = SIMILARITY_BYTES["cuda" if regions.device.type == "cuda" else "cpu"]
        size = max(1, budget // (k * len(texts) * regions.element_size()))
        scores = []
        for i in range(0, n, size):
            products = (regions[:, i : i + size].reshape(-1, d) @ texts.mT).view(k, -1, len(texts))
            p, parts, start = a[:, i : i + size, None, None], [], 0
            for columns in masses:
                m, c = columns.shape[1:]
                similarity = products[..., start : start + m * c].view(k, -1, m, c)
                q = columns if shared else columns[i : i + size]
                parts.append(solve(similarity, p, q[None], left_out=left_out))
                start += m * c
            scores.append(torch.cat(parts, dim=-1))
        return torch.cat(scores)[:, self.place]


def match_kept(
    score: Callable[[Tensor, Tensor, Tensor, int], Float[Tensor, "n c"]],
    x: Float[Tensor, "n d"],
    regions: Float[Tensor, "n k d"],
    rho: Float[Tensor, "n k"],
    kept: Bool[Tensor, "n k"],
) -> Float[Tensor, "n c"]:
    """Score images by the regions they keep, all with one mass.

    Images that keep about as many are solved together, without the others of their regions. Inside
    `torch.func.vmap` every region stays, those not kept without mass.

    Args:
        score: (rows [n d], regions [k n d], mass [k n], regions left out) -> scores.
        x: The rows.
        regions: Their regions.
        rho: How close each region is; the kept ones are closer than the others.
        kept: Which are kept, one of each image at least.
    """
    n, k, d = regions.shape
    counts = kept.sum(-1)
    a = (kept / counts[:, None]).to(regions)
    if n == 0 or may_be_inside():
        return score(x, regions.transpose(0, 1), a.mT, 0)
    counts, order = counts.sort(descending=True, stable=True)
    scores, start = [], 0
    while start < n:
        size = int(counts[start])
        images = order[start : start + int((counts[start:] >= REGION_FILL * size).sum())]
        nearest = rho[images].topk(size, dim=-1).indices
        rows = regions.reshape(n * k, d).index_select(0, (images * k + nearest.mT).flatten())
        share = a[images].gather(1, nearest).mT
        scores.append(score(x[images], rows.view(size, -1, d), share, k - size))
        start += len(images)
    return torch.cat(scores)[order.argsort()]
