"""How often patches of the embedded models are nearest to the words of the part that they show.

A patch counts if it shows one part of the moth; the drawings know. Figures are percentages and
means over the six parts, but for the last two columns: all such patches, and whole pictures, among
the descriptions of the 24 species. `held out` are drawings as the models were trained on, of other
moths; the worlds show theirs smaller, off the centre and more turned.

- part: nearest of the mean sentences about each part; chance is 1 in 6.
- word: nearest of the parts' bare names.
- statement: the nearest of 83 statements about traits is true of the patch; after it, the share
  that is.

Example: python benchmarks/parts.py
"""

import argparse
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from featcache.backbones.base import Backbone
from featcache.backbones.names import EMBEDDED
from featcache.backbones.registry import load_backbone
from featcache.backbones.tiny_local.evaluate import Drawings, held_out, scores, seen_whole
from featcache.sources.fieldguide.species import WORLDS, species
from featcache.sources.fieldguide.traits import PARTS
from featcache.sources.fieldguide.world import COUNTS, drawing

BATCH = 64


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="+", default=list(EMBEDDED))
    parser.add_argument("--drawings", type=int, default=512, help="that are held out")
    parser.add_argument("--split", default="val", help="of the worlds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sets: list[tuple[str, Drawings, str | None]] = [
        ("held out", held_out("report", arguments.drawings), None)
    ]
    sets += [(f"{w}, {arguments.split}", of_world(w, arguments.split), w) for w in WORLDS]
    print("| drawings | model | patches | part | word | statement | chance | species | whole |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|")
    for name in arguments.backbones:
        backbone = load_backbone(name, device="cpu", compute="fp32")
        for title, drawings, world in sets:
            for variant, figures in measured(backbone, drawings, world):
                shown = " | ".join(f"{100 * f:.1f}" for f in figures)
                blank = " | - | -" if world is None else ""
                print(f"| {title} | {name} | {variant} | {shown}{blank} |", flush=True)


def of_world(world: str, split: str) -> Drawings:
    """Draw one split of a world again, with the places of the parts."""
    kinds = species(world)
    made = [drawing(world, split, c, i) for c in range(len(kinds)) for i in range(COUNTS[split])]
    return seen_whole([kind.moth for kind in kinds for _ in range(COUNTS[split])], made)


def measured(
    backbone: Backbone, drawings: Drawings, world: str | None
) -> Iterator[tuple[str, Sequence[float]]]:
    """Yield the figures of each variant, in [0, 1]."""
    pooled, patches = encoded(backbone, drawings)
    for variant, rows in patches.items():
        found = scores(rows, drawings, backbone.encode_texts)
        figures = [found[name] for name in ("part", "word", "statement", "chance")]
        if world is not None:
            kinds = species(world)
            texts = [F.normalize(backbone.encode_texts(k.descriptions), dim=-1) for k in kinds]
            anchors = F.normalize(torch.stack([t.mean(0) for t in texts]), dim=-1)
            labels = torch.arange(len(kinds)).repeat_interleave(len(pooled) // len(kinds))
            used = drawings.parts < len(PARTS)
            nearest = F.normalize(rows, dim=-1) @ anchors.T
            right = nearest.argmax(-1) == labels[:, None]
            figures.append(right[used].float().mean().item())
            right = (F.normalize(pooled, dim=-1) @ anchors.T).argmax(1) == labels
            figures.append(right.float().mean().item())
        yield variant, figures


def encoded(backbone: Backbone, drawings: Drawings) -> tuple[Tensor, dict[str, Tensor]]:
    """Encode drawings: global features [n d] and patches [n p d] of every variant."""
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (backbone.mean, backbone.std))
    found = [
        backbone.encode_images((pixels / 255 - mean) / std, backbone.variants)
        for pixels in torch.split(drawings.pixels, BATCH)
    ]
    patches = {v: torch.cat([rows[v] for _, rows in found]) for v in backbone.variants}
    return torch.cat([pooled for pooled, _ in found]), patches


if __name__ == "__main__":
    main()
