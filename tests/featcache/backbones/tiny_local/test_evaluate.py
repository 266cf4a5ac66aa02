import pytest
import torch
from torch.nn import functional as F

from featcache.backbones.registry import load_backbone
from featcache.backbones.tiny.captions import all_statements
from featcache.backbones.tiny_local.evaluate import Drawings, held_out, scores
from featcache.backbones.tiny_local.parts import BACKGROUND, states
from featcache.sources.fieldguide.traits import PARTS


def oracle(drawings: Drawings) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Patches that are the sum of what is true of them, and the sentences' own axes."""
    axes = torch.eye(len(states()) + len(PARTS))
    texts = {f"{part}.": axes[len(states()) + i] for i, part in enumerate(PARTS)}
    for i, state in enumerate(states()):
        texts |= dict.fromkeys(all_statements(state.kind, state.example), axes[i])
    shown = F.one_hot(drawings.parts.long(), 8)[..., : len(PARTS)]
    return torch.cat([drawings.told.float(), shown.float()], -1), texts


def test_a_patch_that_is_all_that_is_true_of_it_is_right() -> None:
    drawings = held_out("test", 12)
    patches, texts = oracle(drawings)
    found = scores(patches, drawings, lambda said: torch.stack([texts[t] for t in said]))
    assert found["word"] == found["statement"] == 1.0
    assert 0.01 < found["chance"] < 0.05


def test_every_part_counts_equally() -> None:
    drawings = held_out("test", 12)
    patches, texts = oracle(drawings)
    patches[drawings.parts == PARTS.index("forewings")] *= -1  # the commonest part, all wrong
    found = scores(patches, drawings, lambda said: torch.stack([texts[t] for t in said]))
    assert found["word"] == pytest.approx(5 / 6, abs=1e-4)
    assert found["statement"] == pytest.approx(5 / 6, abs=1e-4)


def test_noise_is_right_by_chance() -> None:
    drawings = held_out("test", 48)
    noise = torch.Generator().manual_seed(0)
    patches = torch.randn(*drawings.parts.shape, 16, generator=noise)
    found = scores(patches, drawings, lambda said: torch.randn(len(said), 16, generator=noise))
    assert found["part"] == pytest.approx(1 / 6, abs=0.05)
    assert found["statement"] == pytest.approx(found["chance"], abs=0.03)


def test_drawings_follow_their_name() -> None:
    one, same, other = held_out("test", 3), held_out("test", 3), held_out("report", 3)
    assert torch.equal(one.pixels, same.pixels)
    assert torch.equal(one.parts, same.parts)
    assert not torch.equal(one.pixels, other.pixels)


@pytest.mark.parametrize("variant", ["vanilla", "clearclip"])
def test_patches_of_tiny_local_name_what_they_show(variant: str) -> None:
    drawings = held_out("test", 16)
    found = {}
    for name in ("tiny", "tiny-local"):
        backbone = load_backbone(name, device="cpu", compute="fp32")
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (backbone.mean, backbone.std))
        _, patches = backbone.encode_images((drawings.pixels / 255 - mean) / std, [variant])
        assert patches[variant].shape == (16, 64, backbone.dim)
        found[name] = scores(patches[variant], drawings, backbone.encode_texts)
    assert found["tiny-local"]["part"] > 0.5 > 0.3 > found["tiny"]["part"]
    assert found["tiny-local"]["statement"] > 0.5 > 0.3 > found["tiny"]["statement"]
    assert (drawings.parts < BACKGROUND).sum() > 100
