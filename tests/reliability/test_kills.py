"""More than a hundred kills of forked extractions; `make soak` has thousands."""

import pytest

from tests.reliability.checks import snapshot
from tests.reliability.killing import Campaign, Death

pytestmark = pytest.mark.long

WINDOWS = 20
"""Further kills in the midst of a change of the disk, evenly spread over a run."""


def test_a_cache_killed_again_and_again_is_that_of_one_run(campaign: Campaign) -> None:
    for seed in range(1000):
        if campaign.count.kills >= 110:
            break
        campaign.trial(seed)
    assert campaign.count.kills >= 110
    assert campaign.count.resumes >= campaign.count.kills
    assert campaign.count.shards_verified > campaign.count.kills


def test_every_window_between_two_changes_of_the_disk(campaign: Campaign) -> None:
    calls = campaign.undisturbed()[1].calls
    for i in range(WINDOWS):
        before = campaign.count.kills
        campaign.kill_once(Death(call=1 + i * calls // WINDOWS, torn=i % 2 == 0))
        assert campaign.count.kills == before + 1


def test_every_run_that_writes_a_shard_brings_the_cache_on(campaign: Campaign) -> None:
    shards = campaign.undisturbed()[0].shards
    assert shards > 10
    assert campaign.kill_after_every_shard() == shards


def test_the_harness_sees_what_it_looks_for(campaign: Campaign) -> None:
    whole, _ = campaign.undisturbed()
    root = campaign.folder / "undisturbed-0"
    shard = next(root.glob("*/*/global/*.h5"))
    data = shard.read_bytes()
    (shard.parent / ".x.tmp-1").touch()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert [d.split(" ", 1)[1] for d in snapshot(root).differences(whole)] == [
        "is left over",
        "has other bytes",
    ]
