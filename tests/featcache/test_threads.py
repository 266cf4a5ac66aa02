from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any

import pytest
import torch

from featcache.threads import single_threaded


def threads_of_a_new_thread() -> int:
    found: list[int] = []
    thread = Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture
def three() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three")
def test_each_thread_has_one_and_later_ones_what_was_before() -> None:
    with single_threaded(2, "test") as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == threads_of_a_new_thread() == 3


@pytest.mark.usefixtures("three")
def test_a_second_interruption_restores_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    shutdown = ThreadPoolExecutor.shutdown

    def interrupted(pool: Any, **options: Any) -> None:
        shutdown(pool, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", interrupted)
    with pytest.raises(KeyboardInterrupt), single_threaded(1, "test") as pool:
        pool.submit(torch.get_num_threads).result()
    assert threads_of_a_new_thread() == 3
