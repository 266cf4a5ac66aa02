"""A backbone of one matrix, and photographs of a few pixels."""

import hashlib
import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from featcache.errors import BackboneError
from featcache.last_block import LastBlock
from featcache.pipeline import extraction, opening
from featcache.pipeline.run import Progress, Request, Summary, extract
from featcache.types import FeatureKey
from featcache.wording import in_python


class FakeBackbone:
    """Means of a 4 x 4 grid, projected; patches are the means of a 2 x 2 grid."""

    name = "fake"
    image_size = 32
    dim = 16
    patches = 4
    variants: tuple[str, ...] = ("clearclip", "vanilla")
    tokens: tuple[str, ...] = ()
    token_shape = (0, 0)
    mean = (0.5, 0.4, 0.3)
    std = (0.2, 0.25, 0.3)
    resize_mode = "shortest"
    interpolation = "bicubic"
    logit_scale = 100.0
    logit_bias = 0.0
    tokenizer = ""
    lacks_texts: BackboneError | None = None
    gflops = 0.5
    compiled = False
    compile_s = 0.0

    def __init__(self, compute: str = "fp32") -> None:
        self.device = torch.device("cpu")
        self.compute_dtype = torch.bfloat16 if compute == "bf16" else torch.float32
        self.key = FeatureKey(
            architecture="fake",
            weights="random-0",
            activation="gelu",
            image_size=32,
            preprocessing="shortest bicubic",
        )
        generator = torch.Generator().manual_seed(0)
        self.wide = torch.randn(48, 16, generator=generator)
        self.narrow = torch.randn(3, 16, generator=generator)
        self.batches: list[int] = []
        self.counting = threading.Lock()
        self.pictures = 0
        self.scale = 1.0
        self.on_batch: Callable[[int], None] = lambda _: None

    def encode_images(
        self, pixels: Tensor, variants: Sequence[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with self.counting:  # several threads encode, and each batch has a number of its own
            self.batches.append(len(pixels))
            self.pictures += int((pixels != pixels[-1:]).flatten(1).any(1).sum())
            number = len(self.batches)
        self.on_batch(number)
        grid = torch.nn.functional.adaptive_avg_pool2d(pixels, 4).flatten(1)
        patches = torch.nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(2).transpose(1, 2)
        rows = {v: (patches + self.variants.index(v)) @ self.narrow for v in variants}
        return self.scale * grid @ self.wide, rows

    def image_tower(self) -> torch.nn.Module:
        raise BackboneError("fake has no module.")

    def last_block(self) -> LastBlock:
        raise BackboneError("fake has no last block.")

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        seeds = [int(hashlib.sha256(t.encode()).hexdigest()[:8], 16) for t in texts]
        rows = [torch.randn(16, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return torch.stack(rows)

    def truncated(self, texts: Sequence[str]) -> int:
        return sum(len(t) > 200 for t in texts)


@pytest.fixture
def backbone() -> FakeBackbone:
    return FakeBackbone()


def picture(seed: int, size: tuple[int, int] = (60, 44)) -> Image.Image:
    """Smooth colours, so that JPEG keeps them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


@pytest.fixture
def make_picture() -> Callable[..., Image.Image]:
    return picture


@pytest.fixture
def encode_picture() -> Callable[..., bytes]:
    return encoded


def paint_zoo(root: Path) -> Path:
    """Paint three classes, 22 images, in train, val and test."""
    seed = 0
    for split, each in (("train", 4), ("val", 1), ("test", 2)):
        for name in ("ant", "bee", "cat"):
            where = root / split / name
            where.mkdir(parents=True)
            for i in range(each):
                seed += 1
                size = (40 + 3 * i, 60 - 2 * seed % 20)
                picture(seed, size).save(where / f"{i}.jpg", quality=95)
    picture(99).save(root / "train" / "ant" / "extra.png")
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes, 22 images, in train, val and test."""
    return paint_zoo(tmp_path / "zoo")


@pytest.fixture
def ask(
    folder: Path, tmp_path: Path, backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Summary]:
    """Extract the folder with the fake backbone; keyword arguments change the request."""

    def load(name: str, *, compute: str = "auto", **_: object) -> Any:
        backbone.loaded = compute
        backbone.compute_dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}.get(
            compute, backbone.compute_dtype
        )
        return backbone

    monkeypatch.setattr(extraction, "load_backbone", load)
    for checked in ("check_known", "choose"):
        monkeypatch.setattr(opening, checked, lambda name, weights: None)

    def call(
        progress: Callable[[Progress], None] | None = None,
        say: Callable[[str], None] | None = None,
        **changes: Any,
    ) -> Summary:
        request = Request(
            dataset=f"folder:{folder}", backbone="fake", root=tmp_path / "cache", micro_batch=4
        )
        told = None if say is None else lambda part: say(in_python([part]))
        return extract(replace(request, **changes), progress=progress, say=told)

    return call


@pytest.fixture
def shards() -> Callable[[Path], dict[str, bytes]]:
    """Read all shards of a cache: name -> bytes."""

    def read(path: Path) -> dict[str, bytes]:
        return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.glob("*/*.h5"))}

    return read


@pytest.fixture
def ask_twice(
    ask: Callable[..., Summary], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Summary]:
    """Extract, interrupted at the forward pass of a batch, and take it up again."""

    def call(backbone: Any, at: int, /, **request: Any) -> Summary:
        batches, real = [], backbone.encode_images

        def encode_images(*arguments: Any) -> Any:
            batches.append(1)
            if len(batches) == at:
                raise KeyboardInterrupt
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(backbone, "encode_images", encode_images)
            with pytest.raises(KeyboardInterrupt):
                ask(**request)
        return ask(**request)

    return call
