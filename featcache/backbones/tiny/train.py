"""Train the tiny CLIP from scratch, on drawings and captions, with one contrastive loss.

    L = mean over rows, mean over their positives p of
        -log( exp(s p) / (exp(s p) + sum over negatives q of exp(s q)) )                       (1)

once with a row per image and once with a row per caption; p and q are cosines and s is the learnt
logit scale. An image has several true captions and a caption several matching images. The labels of
the drawings identify these pairs, which count as positives and not as negatives. Pairs that the
labels leave open, because a part is half visible, count as neither.

Run: python -m featcache.backbones.tiny.train --out DIR [--images N] [--resume]
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader

from featcache.backbones.tiny.corpus import Batch, Corpus
from featcache.backbones.tiny.tokenizer import TinyTokenizer
from featcache.errors import TrainingError, UsageError

CONFIG = Path(__file__).with_name("config.json")
_STATE, _WEIGHTS, _LOG = "state.pt", "weights.safetensors", "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a training run; with equal ones the weights differ by rounding only."""

    images: int = 640_000
    """Number of training images: whole views and crops."""
    batch: int = 128
    seed: int = 0
    lr: float = 1.5e-3
    """Peak learning rate after the warm-up; a cosine schedule lowers it to 0."""
    warmup: int = 100
    """Steps of linear warm-up."""
    weight_decay: float = 0.05
    """Weight decay of matrices; other parameters have none."""
    max_norm: float = 1.0
    """Norm to which gradients are clipped."""

    @property
    def steps(self) -> int:
        """Number of batches."""
        return max(1, self.images // self.batch)


def build_model() -> nn.Module:
    """Build the open_clip model of `config.json` with fresh weights."""
    from open_clip.model import CLIP

    config = json.loads(CONFIG.read_text())["model_cfg"]
    model: nn.Module = CLIP(**config)
    return model


def contrastive_loss(
    logits: Float[Tensor, "m n"], true: Bool[Tensor, "m n"], false: Bool[Tensor, "m n"]
) -> Float[Tensor, ""]:
    """Evaluate (1) over rows; rows without positives or without negatives do not count."""
    rest = logits.masked_fill(~false, -torch.inf).logsumexp(1, keepdim=True)  # [m 1]
    terms = F.softplus(rest - logits)  # [m n]; log(1 + exp(rest - p))
    positives = true.sum(1)  # [m]
    rows = (terms * true).sum(1) / positives.clamp(min=1)
    used = (positives > 0) & false.any(1)
    return (rows * used).sum() / used.sum().clamp(min=1)


class Trainer:
    """A model, its optimiser and the number of steps done."""

    settings_type: type[Settings] = Settings
    corpus_type: type[Corpus] = Corpus

    def __init__(self, settings: Settings) -> None:
        """Initialise the model from the seed."""
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.model = build_model()
        matrices = [p for p in self.model.parameters() if p.ndim >= 2]
        others = [p for p in self.model.parameters() if p.ndim < 2]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": others},
        ]
        self.optimiser = torch.optim.AdamW(
            groups,
            lr=settings.lr,
            betas=(0.9, 0.98),
            weight_decay=0.0,
            fused=True,
        )
        preprocess = json.loads(CONFIG.read_text())["preprocess_cfg"]
        self.mean = torch.tensor(preprocess["mean"]).view(1, 3, 1, 1) * 255
        self.std = torch.tensor(preprocess["std"]).view(1, 3, 1, 1) * 255
        self.done = 0

    def corpus(self) -> Corpus:
        """Return the training data, batch by batch."""
        s, config = self.settings, json.loads(CONFIG.read_text())["model_cfg"]["text_cfg"]
        tokenizer = TinyTokenizer(
            context_length=config["context_length"], vocab_size=config["vocab_size"]
        )
        return self.corpus_type(steps=s.steps, batch=s.batch, seed=s.seed, tokenizer=tokenizer)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Evaluate the loss of a batch."""
        # Two matrix products: the fused kernel's backward pass is the slowest part on a CPU.
        with (
            sdpa_kernel(SDPBackend.MATH),
            torch.autocast("cpu", torch.bfloat16),
        ):
            images = self.model.encode_image(self.normalised(batch.pixels))  # type: ignore[operator]
            texts = self.model.encode_text(batch.tokens)  # type: ignore[operator]
        return self.matched(images.float(), texts.float(), batch)

    def matched(
        self, images: Float[Tensor, "n d"], texts: Float[Tensor, "m d"], batch: Batch
    ) -> Float[Tensor, ""]:
        """Evaluate (1) over images and over captions; features need not have unit length."""
        images, texts = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
        logits = self.scale.exp() * texts @ images.T  # [m n]
        loss = contrastive_loss(logits, batch.true, batch.false)
        return (loss + contrastive_loss(logits.T, batch.true.T, batch.false.T)) / 2

    @property
    def scale(self) -> Tensor:
        """The logarithm of the logit scale."""
        return self.model.logit_scale  # type: ignore[return-value]

    def normalised(self, pixels: UInt8[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3 s s"]:
        """Prepare pixels for the image tower."""
        return (pixels.float() - self.mean) / self.std

    def step(self, batch: Batch) -> float:
        """Take one step and return its loss.

        Raises:
            TrainingError: If the loss is not finite.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        loss = self.loss(batch)
        if not torch.isfinite(loss):
            message = f"Loss is {loss.item()} at step {self.done}. Resume with a smaller --lr."
            raise TrainingError(message)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_norm)
        self.optimiser.step()
        with torch.no_grad():
            self.scale.clamp_(0, math.log(100))
        self.done += 1
        return loss.item()

    def check(self) -> dict[str, Any]:
        """Measure the model between two steps, where this is due."""
        return {}

    def save(self, folder: Path) -> None:
        """Write the state for resuming, and the weights alone; each file is replaced atomically."""
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.state(), folder / f"{_STATE}.part")
        (folder / f"{_STATE}.part").replace(folder / _STATE)
        export(self.weights(), folder / _WEIGHTS)

    def state(self) -> dict[str, Any]:
        """Return all that a run needs to go on."""
        return {
            "settings": asdict(self.settings),
            "done": self.done,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.done = state["done"]

    def weights(self) -> dict[str, Tensor]:
        """Return the weights to use."""
        return self.model.state_dict()

    @classmethod
    def load(cls, folder: Path) -> "Trainer":
        """Read the state that `save` wrote.

        Raises:
            UsageError: If there is none.
        """
        if not (folder / _STATE).is_file():
            message = f"No {_STATE} in {folder}. Start without --resume."
            raise UsageError(message)
        state: dict[str, Any] = torch.load(folder / _STATE, weights_only=True)
        trainer = cls(cls.settings_type(**state["settings"]))
        trainer.restore(state)
        return trainer

    def _rate(self) -> float:
        s = self.settings
        if self.done < s.warmup:
            return s.lr * (self.done + 1) / s.warmup
        share = (self.done - s.warmup) / max(1, s.steps - s.warmup)
        return s.lr * (1 + math.cos(math.pi * share)) / 2


def export(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write the weights as fp32 safetensors, atomically."""
    part = path.with_name(f"{path.name}.part")
    save_file({k: v.contiguous() for k, v in weights.items()}, part)
    part.chmod(0o644)
    part.replace(path)


def train(
    trainer: Trainer,
    out: Path,
    *,
    stop: int | None = None,
    save_every: float = 180.0,
    workers: int = 1,
) -> None:
    """Train until the last step and save at intervals.

    Args:
        trainer: New, or loaded to resume.
        out: Folder for the state, the weights and the log.
        stop: Stop after this step; None for the last one.
        save_every: Seconds between saves.
        workers: Processes that draw the images; 0 draws in this process.
    """
    out.mkdir(parents=True, exist_ok=True)
    settings, corpus = trainer.settings, trainer.corpus()
    last = min(settings.steps, settings.steps if stop is None else stop)
    loader: DataLoader[Batch] = DataLoader(
        corpus,
        batch_size=None,
        sampler=range(trainer.done, last),
        num_workers=workers,
        prefetch_factor=6 if workers else None,
        multiprocessing_context="spawn" if workers else None,
    )
    trainer.model.train()
    started = saved = shown = time.monotonic()
    first, losses = trainer.done, list[float]()
    with (out / _LOG).open("a") as log:
        for batch in loader:
            losses.append(trainer.step(batch))
            found = trainer.check()
            if found:
                log.write(json.dumps({"step": trainer.done, **found}) + "\n")
                sys.stderr.write(f"{trainer.done}/{settings.steps}  {found}\n")
            now = time.monotonic()
            if now - shown > 15 or trainer.done == last:
                speed = (trainer.done - first) * settings.batch / max(now - started, 1e-9)
                entry = {
                    "step": trainer.done,
                    "steps": settings.steps,
                    "loss": round(sum(losses) / len(losses), 4),
                    "scale": round(trainer.model.logit_scale.exp().item(), 2),  # type: ignore[operator]
                    "images_per_second": round(speed, 1),
                    "eta_seconds": round((last - trainer.done) * settings.batch / speed),
                    "cpu_seconds": round(time.process_time(), 1),
                    "seconds": round(now - started, 1),
                }
                log.write(json.dumps(entry) + "\n")
                log.flush()
                sys.stderr.write(
                    f"{trainer.done}/{settings.steps}  loss {entry['loss']}  "
                    f"scale {entry['scale']}  {speed:.0f} images/s  {entry['eta_seconds']} s left\n"
                )
                shown, losses = now, []
            if now - saved > save_every:
                trainer.save(out)
                saved = time.monotonic()
    trainer.save(out)


def main(
    arguments: Sequence[str] | None = None,
    kind: type[Trainer] = Trainer,
    program: str = "featcache.backbones.tiny.train",
) -> None:
    """Parse the command line and train."""
    usual = kind.settings_type()
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    parser.add_argument("--out", type=Path, required=True, help="folder of state, weights and log")
    parser.add_argument("--images", type=int, default=usual.images, help="images to train on")
    parser.add_argument("--batch", type=int, default=usual.batch, help="images per step, even")
    parser.add_argument("--lr", type=float, default=usual.lr, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--threads", type=int, default=2, help="threads of the forward pass")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    parser.add_argument(
        "--resume", action="store_true", help="go on from --out; keeps its settings"
    )
    given = parser.parse_args(arguments)
    if given.batch < 2 or given.batch % 2:
        parser.error(f"--batch must be even and at least 2, got {given.batch}")
    torch.set_num_threads(given.threads)
    if given.resume:
        trainer = kind.load(given.out)
    else:
        trainer = kind(
            kind.settings_type(images=given.images, batch=given.batch, lr=given.lr, seed=given.seed)
        )
    train(trainer, given.out, workers=given.workers)


if __name__ == "__main__":
    main()
