"""The patches closest to each text, against brute force over all of them at once."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from featcache.errors import MissingComponentError
from heads import patch_corpus
from heads.contract.rows import Kind, Rows
from heads.patch_corpus import Closest, Layout, closest_patches, parts_of

N, V, P, D, C = 7, 2, 5, 6, 4


def unit(seed: int, *shape: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=rng, dtype=torch.float64), dim=-1)


def brute_force(patches: list[tuple[int, int, int, Tensor]], text: Tensor, k: int) -> list[int]:
    """Return the places of the k closest patches of (image, view, patch, row), closest first."""
    ranked = sorted(patches, key=lambda one: -float(one[3] @ text))
    return [(i * (1 + V) + v) * P + p for i, v, p, _ in ranked[:k]]


def listed(
    clean: Tensor, views: Tensor | None, first: int = 0
) -> list[tuple[int, int, int, Tensor]]:
    found = [(first + i, 0, p, clean[i, p]) for i in range(len(clean)) for p in range(P)]
    if views is not None:
        found += [
            (first + i, 1 + v, p, views[i, v, p])
            for i in range(len(views))
            for v in range(V)
            for p in range(P)
        ]
    return found


@pytest.fixture(params=[1, 3, 10_000], ids=["single", "few", "all"])
def compared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Read two images, and compare so many patches, at a time."""
    monkeypatch.setattr(patch_corpus, "COMPARED", request.param)
    monkeypatch.setattr(patch_corpus, "READ_BYTES", 2 * 4 * P * D)
    return int(request.param)


@pytest.mark.usefixtures("compared")
@pytest.mark.parametrize("k", [1, 4, 50, 500])
def test_equals_brute_force_over_two_sets(k: int) -> None:
    clean, views, pool, texts = (
        unit(0, N, P, D),
        unit(1, N, V, P, D),
        unit(2, 3, P, D),
        unit(3, C, D),
    )
    found = closest_patches([[clean, views], [pool]], texts, k)
    everything = listed(clean, views) + listed(pool, None, first=N)
    assert found.place.tolist() == [brute_force(everything, text, k) for text in texts]
    assert found.cosines.shape == (C, min(k, len(everything)))
    row = {(i * (1 + V) + v) * P + p: r for i, v, p, r in everything}
    for c in range(C):
        for place, cosine, got in zip(
            found.place[c].tolist(), found.cosines[c].tolist(), found.rows[c], strict=True
        ):
            assert torch.equal(got, row[place])
            assert cosine == pytest.approx(float(row[place] @ texts[c]), abs=1e-12)
    at = {(i * (1 + V) + v) * P + p: (i, v) for i, v, p, _ in everything}
    pairs = zip(found.image.flatten().tolist(), found.view.flatten().tolist(), strict=True)
    assert list(pairs) == [at[place] for place in found.place.flatten().tolist()]


def test_a_patch_that_several_texts_find_counts_for_the_closest() -> None:
    texts = F.normalize(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), dim=-1)
    patches = F.normalize(torch.tensor([[[1.0, 0.1], [0.7, 0.7], [0.1, 1.0]]]), dim=-1)
    found = closest_patches([[patches]], texts, k=2)
    assert found.place.tolist() == [[0, 1], [1, 0], [2, 1]]
    assert found.once().tolist() == [[True, False], [True, False], [True, False]]


def test_every_place_is_marked_once_with_its_largest_cosine() -> None:
    rng = torch.Generator().manual_seed(4)
    place = torch.randint(9, (6, 4), generator=rng)
    cosines = torch.rand(6, 4, generator=rng)
    layout = Layout(views=1, patches=9)
    found = Closest(rows=torch.zeros(6, 4, 1), cosines=cosines, place=place, layout=layout)
    marks = found.once()
    for number in sorted(set(place.flatten().tolist())):
        own = place == number
        assert int(marks[own].sum()) == 1
        assert float(cosines[own & marks]) == float(cosines[own].max())


def test_an_empty_corpus_is_refused() -> None:
    with pytest.raises(MissingComponentError, match="corpus of patches is empty"):
        closest_patches([[torch.zeros(0, P, D)]], unit(0, C, D).float(), 2)


def test_parts_are_the_clean_patches_and_those_of_views_where_there_are_any() -> None:
    kinds = {Kind("patches"): unit(0, N, P, D), Kind("view_patches", "cdfsl"): unit(1, N, V, P, D)}
    rows = Rows.of(unit(2, N, D), kinds=kinds)
    assert [p.shape for p in parts_of(rows, "cdfsl", views=True)] == [(N, P, D), (N, V, P, D)]
    assert [p.shape for p in parts_of(rows, "cdfsl", views=False)] == [(N, P, D)]
    bare = Rows.of(rows.x, kinds={Kind("patches"): kinds[Kind("patches")]})
    assert [p.shape for p in parts_of(bare, "cdfsl", views=True)] == [(N, P, D)]
