"""Evaluate the tiny CLIP on both drawn worlds, zero-shot and few-shot.

Accuracies are in [0, 1], on the test split or a shifted one. Only the ridge of the linear probe is
selected, on the val split.

Run: python -m featcache.backbones.tiny.evaluate [--weights FILE] [--images DIR] > report.json
"""

import argparse
import dataclasses
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from featcache.backbones.tiny.captions import full_caption, statements
from featcache.backbones.tiny.corpus import SIZE, sample_moth
from featcache.backbones.tiny.tokenizer import TinyTokenizer
from featcache.backbones.tiny.train import CONFIG, build_model
from featcache.sources.base import Dataset
from featcache.sources.fieldguide.draw import draw, sample_scene
from featcache.sources.fieldguide.shifts import SHIFTS
from featcache.sources.fieldguide.species import WORLDS
from featcache.sources.fieldguide.traits import TRAITS, is_drawable
from featcache.sources.fieldguide.world import COUNTS, open_world

Rows = tuple[Tensor, Tensor]
"""Unit features [n d] and labels [n]."""

SEEDS = (1, 2, 3)
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)


class Encoder:
    """The model in evaluation mode; encodes images and sentences into unit features."""

    def __init__(self, weights: Path) -> None:
        """Load the weights strictly."""
        config = json.loads(CONFIG.read_text())
        self.model: nn.Module = build_model()
        self.model.load_state_dict(load_file(weights), strict=True)
        self.model.eval()
        self.mean = torch.tensor(config["preprocess_cfg"]["mean"]).view(3, 1, 1)
        self.std = torch.tensor(config["preprocess_cfg"]["std"]).view(3, 1, 1)
        text = config["model_cfg"]["text_cfg"]
        self.tokenizer = TinyTokenizer(
            context_length=text["context_length"], vocab_size=text["vocab_size"]
        )
        self.scale: float = self.model.logit_scale.exp().item()  # type: ignore[operator]

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image | Path]) -> Float[Tensor, "n d"]:
        """Encode images, resized whole."""
        batches = []
        for start in range(0, len(images), 128):
            pixels = torch.stack([self._pixels(i) for i in images[start : start + 128]])
            batches.append(self.model.encode_image(pixels))  # type: ignore[operator]
        return F.normalize(torch.cat(batches), dim=-1)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Float[Tensor, "m d"]:
        """Encode sentences."""
        features: Tensor = self.model.encode_text(self.tokenizer(list(texts)))  # type: ignore[operator]
        return F.normalize(features, dim=-1)

    def anchors(self, sentences: Sequence[Sequence[str]]) -> Float[Tensor, "c d"]:
        """Average the features of each class's sentences."""
        means = torch.stack([self.texts(s).mean(0) for s in sentences])
        return F.normalize(means, dim=-1)

    def _pixels(self, image: Image.Image | Path) -> Float[Tensor, "3 s s"]:
        opened = Image.open(image) if isinstance(image, Path) else image
        small = opened.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255
        return (pixels - self.mean) / self.std


def accuracy(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> float:
    """Return the share of rows whose largest logit is at the label."""
    return round((logits.argmax(1) == labels).float().mean().item(), 4)


def linear_probe(
    support: Rows, val: Rows, queries: dict[str, Rows], *, classes: int
) -> dict[str, float]:
    """Fit logistic regression by L-BFGS for every ridge; score the one that is best on val."""
    best, answer = -1.0, dict[str, float]()
    centre = support[0].mean(0)
    spread = (support[0] - centre).std()
    for ridge in RIDGES:
        weight = torch.zeros(classes, support[0].shape[1] + 1, requires_grad=True)
        solver = torch.optim.LBFGS([weight], max_iter=120, line_search_fn="strong_wolfe")

        def logits(x: Tensor, weight: Tensor = weight) -> Tensor:
            return ((x - centre) / spread) @ weight[:, :-1].T + weight[:, -1]

        def closure(
            solver: torch.optim.LBFGS = solver, weight: Tensor = weight, ridge: float = ridge
        ) -> float:
            solver.zero_grad()
            fit = F.cross_entropy(logits(support[0], weight), support[1])
            loss = fit + ridge * weight[:, :-1].square().sum() / 2
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.item()

        solver.step(closure)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            score = accuracy(logits(val[0]), val[1])
            if score > best:
                best = score
                answer = {name: accuracy(logits(x), y) for name, (x, y) in queries.items()}
    return answer


def few_shot(
    rows: dict[str, Rows], anchors: Float[Tensor, "c d"], scale: float
) -> dict[str, dict[str, list[float]]]:
    """Evaluate linear probe, nearest class mean and Tip-Adapter (alpha 1, beta 5.5)."""
    x, y = rows["train"]
    queries = {name: rows[name] for name in ("test", *SHIFTS)}
    test_x, test_y = rows["test"]
    classes = len(anchors)
    scores: dict[str, dict[str, list[float]]] = {}
    for shots in (1, 4, 16, 60):
        seeds = SEEDS if shots < 60 else SEEDS[:1]
        for seed in seeds:
            rng = random.Random(f"shots/{seed}")
            by_class = [(y == c).nonzero()[:, 0].tolist() for c in range(classes)]
            chosen = [i for rows in by_class for i in rng.sample(rows, min(shots, len(rows)))]
            support = (x[chosen], y[chosen])
            probe = linear_probe(support, rows["val"], queries, classes=classes)
            one_hot = F.one_hot(support[1], classes).float()
            means = F.normalize(one_hot.T @ support[0], dim=-1)
            affinity = torch.exp(-5.5 * (1 - test_x @ support[0].T))
            tip = scale * test_x @ anchors.T + affinity @ one_hot
            entry = scores.setdefault(str(shots), {})
            for name, score in probe.items():
                entry.setdefault(f"linear probe, {name}", []).append(score)
            entry.setdefault("nearest mean", []).append(accuracy(test_x @ means.T, test_y))
            entry.setdefault("tip-adapter", []).append(accuracy(tip, test_y))
    return scores


def measure_world(encoder: Encoder, data: Dataset) -> dict[str, Any]:
    """Evaluate zero-shot classification with three kinds of texts, and few-shot heads."""
    rows: dict[str, Rows] = {}
    for split in data.splits():
        samples = [s for s in data.samples if s.split == split]
        labels = torch.tensor([s.label for s in samples])
        rows[split] = (encoder.images([s.place.container for s in samples]), labels)
    anchors = {
        "name": encoder.anchors([[name] for name in data.classes]),
        "template": encoder.anchors([[t.format(n) for t in data.templates] for n in data.classes]),
        "description": encoder.anchors([data.descriptions[n] for n in data.classes]),
    }
    zero_shot = {
        kind: {name: accuracy(rows[name][0] @ a.T, rows[name][1]) for name in ("test", *SHIFTS)}
        for kind, a in anchors.items()
    }
    return {
        "zero_shot": zero_shot,
        "few_shot": few_shot(rows, anchors["description"], encoder.scale),
    }


def measure_words(encoder: Encoder, *, number: int = 1024) -> dict[str, Any]:
    """Evaluate single attributes, and retrieval among 256, on drawings outside both worlds."""
    rng = random.Random("tiny/evaluation")
    moths = [sample_moth(rng) for _ in range(number)]
    images = [Image.fromarray(draw(m, sample_scene(rng)).pixels) for m in moths]
    features = encoder.images(images)
    attributes = {}
    for trait, values in TRAITS.items():
        sentences = []
        for value in values:
            example = next(
                m
                for m in (dataclasses.replace(m, **{trait: value}) for m in moths)
                if is_drawable(m)
            )
            sentences.append(statements(trait, example))
        labels = torch.tensor([values.index(getattr(m, trait)) for m in moths])
        attributes[trait] = accuracy(features @ encoder.anchors(sentences).T, labels)
    captions = [full_caption(m) for m in moths[:256]]
    similarity = features[:256] @ encoder.texts(captions).T  # [n m]
    is_match = torch.tensor([[a == b for b in captions] for a in captions])
    return {
        "attributes": attributes,
        "retrieval": {
            f"{name} R@{k}": _recall(s, is_match, k)
            for name, s in (("image to text", similarity), ("text to image", similarity.T))
            for k in (1, 5)
        },
    }


def _recall(similarity: Float[Tensor, "n m"], is_match: Tensor, k: int) -> float:
    top = similarity.topk(k, dim=1).indices
    return round(is_match.gather(1, top).any(1).float().mean().item(), 4)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, and write one JSON object to standard output."""
    parser = argparse.ArgumentParser(prog="python -m featcache.backbones.tiny.evaluate")
    parser.add_argument("--weights", type=Path, default=CONFIG.with_name("weights.safetensors"))
    parser.add_argument("--images", type=Path, help="keep the worlds' images in this folder")
    parser.add_argument("--worlds", nargs="*", default=list(WORLDS), help="which worlds to measure")
    given = parser.parse_args(arguments)
    encoder = Encoder(given.weights)
    report: dict[str, Any] = {"scale": round(encoder.scale, 2), **measure_words(encoder)}
    with tempfile.TemporaryDirectory() as folder:
        for world in given.worlds:
            data = open_world(world, given.images or Path(folder), counts=COUNTS)
            report[world] = measure_world(encoder, data)
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
