"""An open_clip model as a frozen backbone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

import torch
from jaxtyping import Float
from open_clip.coca_model import CoCa
from torch import Tensor, nn
from torch.nn import functional as F

from featcache.backbones.compiled import CompiledTower
from featcache.backbones.last_block import last_block_of, why_not
from featcache.backbones.measure import measure
from featcache.backbones.models import PreprocessConfig
from featcache.backbones.patches import Features, tower_of
from featcache.backbones.tokens.files import FileTokenizer
from featcache.backbones.tokens.lengths import is_cut
from featcache.backbones.tower import ImageTower
from featcache.errors import BackboneError, TextsMissingError, UnknownNameError
from featcache.last_block import LastBlock
from featcache.recipes import TOKENS, VARIANTS
from featcache.types import FeatureKey
from featcache.wording import Argument

TEXT_BATCH = 256


@final
class OpenClipBackbone:
    """A frozen model of open_clip; see `featcache.backbones.base.Backbone`."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any | TextsMissingError,
        *,
        name: str,
        architecture: str,
        activation: str,
        weights: str,
        preprocess: PreprocessConfig,
        device: torch.device,
        compute_dtype: torch.dtype,
        compiled: bool = False,
    ) -> None:
        """Freeze the model and move it to the device; only bf16 changes its weights.

        Args:
            model: CLIP, CustomTextCLIP or CoCa with weights loaded.
            tokenizer: Maps sentences to rows of token ids, or why there is none.
            name: Name of the backbone as the user typed it.
            architecture: open_clip's name of the model.
            activation: quick_gelu or gelu.
            weights: sha256 of the weights file, or random-<seed>.
            preprocess: Preprocessing of its input.
            device: Device to compute on.
            compute_dtype: bfloat16 or float32 for the image tower; texts are always float32.
            compiled: Whether to compile the image tower with torch.compile.

        Raises:
            BackboneError: If it should be compiled and torch.compile does not work here.
        """
        self.name = name
        self.device = device
        self.compute_dtype = compute_dtype
        self.image_size = preprocess.image_size
        self.mean, self.std = preprocess.mean, preprocess.std
        self.resize_mode, self.interpolation = preprocess.resize_mode, preprocess.interpolation
        self.key = FeatureKey(
            architecture=architecture,
            weights=weights,
            activation=activation,
            image_size=preprocess.image_size,
            preprocessing=str(preprocess),
        )
        self._tower = tower_of(model.visual)
        self.variants = () if self._tower is None else self._tower.variants
        self.tokens: tuple[str, ...] = () if why_not(model.visual) else TOKENS
        self.lacks_texts = tokenizer if isinstance(tokenizer, BackboneError) else None
        self.tokenizer = tokenizer.digest if isinstance(tokenizer, FileTokenizer) else ""
        self._tokenizer = tokenizer
        self._model = model.eval().requires_grad_(False)
        self.logit_scale = float(model.logit_scale.exp())
        bias = getattr(model, "logit_bias", None)
        self.logit_bias = 0.0 if bias is None else float(bias)
        self._is_unit = isinstance(model, CoCa)  # its encode_image normalises
        if self._tower is not None:
            self._tower.prepare(model.visual)
        self._model = self._model.to(device)
        self.dim, self.patches, self.gflops = measure(self._model, self.image_size, device)
        width = self._model.visual.proj.shape[0] if self.tokens else 0
        self.token_shape = (self.patches + 1, width) if self.tokens else (0, 0)
        self._last_block: LastBlock | None = None
        if compute_dtype is not torch.float32 and self._tower is not None:
            if self.tokens:  # lowering changes the weights
                self._last_block = _copied(last_block_of(self._model.visual, name))
            self._tower.lower(self._model.visual, compute_dtype)
        self.compiled = compiled
        self._compiled = CompiledTower(self._features, name, device) if compiled else None
        self._run = self._compiled or self._features

    def __repr__(self) -> str:
        dtype = str(self.compute_dtype).removeprefix("torch.")
        return f"OpenClipBackbone({self.name!r}, device={str(self.device)!r}, compute={dtype!r})"

    @property
    def compile_s(self) -> float:
        """Seconds spent on compiling the image tower so far."""
        return 0.0 if self._compiled is None else self._compiled.seconds

    @torch.inference_mode()
    def encode_images(
        self, pixels: Float[Tensor, "b 3 s s"], variants: Sequence[str] = ()
    ) -> Features:
        """Encode normalised pixels: global features and, for each variant, projected patches.

        All float32, not normalised. Global features equal open_clip's `encode_image` and do not
        depend on `variants`, among which may be `tokens`: [b p+1 w], not projected.

        Raises:
            BackboneError: If the tower has no patch tokens of a requested variant.
        """
        self.check_variants(variants)
        if pixels.shape[-2:] != (self.image_size, self.image_size):
            raise BackboneError(
                f"{self.name} takes images of {self.image_size} x {self.image_size} px, got "
                f"{pixels.shape[-2]} x {pixels.shape[-1]}. Resize them to its image_size first."
            )
        return self._run(pixels.to(self.device), variants)

    def _features(self, pixels: Float[Tensor, "b 3 s s"], variants: Sequence[str]) -> Features:
        if self._tower is not None:
            visual = self._model.visual
            pooled, patches = self._tower.read(visual, pixels, variants, self.compute_dtype)
            return F.normalize(pooled, dim=-1) if self._is_unit else pooled, patches
        bf16 = self.compute_dtype is not torch.float32
        with torch.autocast(self.device.type, self.compute_dtype if bf16 else None, enabled=bf16):
            return self._model.encode_image(pixels).float(), {}

    def image_tower(self) -> nn.Module:
        """Return the image tower in float32 as a module: normalised pixels -> features [b d].

        It shares the weights, has no text tower, and computes as `encode_images` does.

        Raises:
            BackboneError: If the weights were lowered to another type.
        """
        if self.compute_dtype is not torch.float32:
            raise BackboneError(
                f"The image tower of {self.name} computes in {self.compute_dtype}, and only one "
                f"in float32 is given away. Load it with ",
                Argument("compute", "fp32"),
                ".",
            )
        read = None if self._tower is None else self._tower.read
        model = self._model if read is None else self._model.visual
        return ImageTower(model, read, is_unit=self._is_unit)

    def last_block(self) -> LastBlock:
        """Return the weights that make global features of the tokens `last-block`, float32.

        They are those of the weights file, whatever type the tower computes in.

        Raises:
            BackboneError: If the tower has no such tokens.
        """
        if self._last_block is not None:
            return self._last_block
        return last_block_of(self._model.visual, self.name)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "m d"]:
        """Encode sentences in order: float32, not normalised; long ones are truncated.

        Raises:
            BackboneError: `lacks_texts`, if there is one.
        """
        tokenizer = self._tokenizer
        if isinstance(tokenizer, BackboneError):
            raise tokenizer
        rows = [torch.zeros(0, self.dim, device=self.device)]
        for start in range(0, len(texts), TEXT_BATCH):
            tokens = tokenizer(list(texts[start : start + TEXT_BATCH]))
            rows.append(self._model.encode_text(tokens.to(self.device)).float())
        return torch.cat(rows)

    def truncated(self, texts: Sequence[str]) -> int:
        """Count the sentences that exceed the context length of the text tower.

        Raises:
            BackboneError: `lacks_texts`, if there is one.
        """
        if self.lacks_texts is not None:
            raise self.lacks_texts
        return sum(is_cut(self._tokenizer, text) for text in texts)

    def check_variants(self, variants: Sequence[str]) -> None:
        """Refuse patch variants, and tokens, that this tower does not have.

        Raises:
            UnknownNameError: If a variant is unknown.
            BackboneError: If this tower does not have it.
        """
        for variant in variants:
            if variant in TOKENS and not self.tokens:
                self.last_block()  # says why not
            if variant in TOKENS:
                continue
            if variant not in VARIANTS:
                raise UnknownNameError("patch variant", variant, (*VARIANTS, "none"))
            if variant not in self.variants and self.variants:
                raise BackboneError(
                    f"The image tower of {self.name} has patch tokens in the joint space as "
                    f"'{self.variants[0]}' only, not as '{variant}'. Use ",
                    Argument("patches", self.variants[0]),
                    ", or ",
                    Argument("patches", "none"),
                    ".",
                )
            if variant not in self.variants:
                raise BackboneError(
                    f"The image tower of {self.name} pools its patch tokens in a way that leaves "
                    f"none in the joint space, so it has no '{variant}'. Use ",
                    Argument("patches", "none"),
                    ".",
                )


def _copied(block: LastBlock) -> LastBlock:
    """Copy a last block to main memory, so that it does not change with its tower."""
    return replace(block, tensors={n: t.cpu().clone() for n, t in block.tensors.items()})
