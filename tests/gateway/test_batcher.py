"""Who shares a batch, who waits, who is refused, and who is dropped."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gpu_select.gateway.batcher import Batcher, BatchLimits, QueueFullError


class Doubling:
    """Doubles numbers, and remembers the batches. Waits for `go` where told to."""

    def __init__(self, *, waits=False):
        self.batches = []
        self.go = threading.Event()
        self.running = threading.Event()
        self.threads = set()
        if not waits:
            self.go.set()

    def __call__(self, items):
        self.threads.add(threading.get_ident())
        self.batches.append(items)
        self.running.set()
        assert self.go.wait(10)
        for item in items:
            if item < 0:
                raise ValueError(f"negative: {item}")
        return [2 * item for item in items]


def run(use, doubling, *, max_batch=8, max_wait_s=0.02, max_queue=100, observe=None):
    """Run a coroutine function with a batcher."""

    async def main():
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(doubling, executor, BatchLimits(max_batch, max_wait_s, max_queue), observe)
            try:
                return await asyncio.wait_for(use(batcher), 20)
            finally:
                doubling.go.set()
                await batcher.close()

    return asyncio.run(main())


async def until(condition):
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("waited in vain")


def test_items_that_arrive_together_share_a_batch_and_get_their_own_results():
    doubling = Doubling()

    async def use(batcher):
        return await asyncio.gather(*(batcher.submit([i]) for i in range(5)))

    assert run(use, doubling) == [[0], [2], [4], [6], [8]]
    assert doubling.batches == [[0, 1, 2, 3, 4]]


def test_a_full_batch_does_not_wait():
    doubling = Doubling()

    async def use(batcher):
        return await asyncio.gather(*(batcher.submit([i]) for i in range(7)))

    assert run(use, doubling, max_batch=7, max_wait_s=3600) == [[2 * i] for i in range(7)]
    assert doubling.batches == [[*range(7)]]


def test_what_arrives_while_a_batch_runs_is_the_next_one():
    doubling = Doubling(waits=True)

    async def use(batcher):
        first = asyncio.ensure_future(batcher.submit([1]))
        await until(doubling.running.is_set)
        others = [asyncio.ensure_future(batcher.submit([i])) for i in (2, 3, 4)]
        await asyncio.sleep(0.05)
        assert len(doubling.batches) == 1
        doubling.go.set()
        return await asyncio.gather(first, *others)

    assert run(use, doubling, max_batch=2, max_wait_s=0) == [[2], [4], [6], [8]]
    assert doubling.batches == [[1], [2, 3], [4]]
    assert len(doubling.threads) == 1


def test_many_items_of_one_caller_come_back_in_order():
    doubling = Doubling()

    async def use(batcher):
        return await batcher.submit(range(20))

    assert run(use, doubling, max_batch=8) == [2 * i for i in range(20)]
    assert [len(batch) for batch in doubling.batches] == [8, 8, 4]


def test_nothing_is_no_batch():
    doubling = Doubling()

    async def use(batcher):
        return await batcher.submit([])

    assert run(use, doubling) == []
    assert doubling.batches == []


def test_a_full_queue_refuses_and_says_for_how_long():
    doubling = Doubling(waits=True)

    async def use(batcher):
        first = asyncio.ensure_future(batcher.submit([1]))
        await until(doubling.running.is_set)
        waiting = asyncio.ensure_future(batcher.submit([2, 3]))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError, match=r"the queue is full; try again in .* s") as error:
            await batcher.submit([4, 5])
        assert error.value.retry_after_s >= 0
        assert batcher.n_waiting == 2
        last = asyncio.ensure_future(batcher.submit([6]))
        await asyncio.sleep(0)
        doubling.go.set()
        return await asyncio.gather(first, waiting, last)

    assert run(use, doubling, max_queue=3) == [[2], [4, 6], [12]]


def test_more_than_the_queue_holds_is_taken_while_nothing_waits():
    async def use(batcher):
        return await batcher.submit(range(30))

    assert run(use, Doubling(), max_queue=3) == [2 * i for i in range(30)]


def test_many_items_of_one_caller_keep_nobody_else_out():
    doubling = Doubling(waits=True)

    async def use(batcher):
        many = asyncio.ensure_future(batcher.submit(range(40)))
        await until(doubling.running.is_set)
        assert batcher.n_waiting == 0
        one = asyncio.ensure_future(batcher.submit([100]))
        others = [asyncio.ensure_future(batcher.submit([i])) for i in (200, 300)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await batcher.submit([400])
        doubling.go.set()
        assert await one == [200]
        assert not many.done()
        return await asyncio.gather(many, *others)

    # the many go on although the queue of three is full when their next four come
    assert run(use, doubling, max_batch=4, max_wait_s=0, max_queue=3) == [[2 * i for i in range(40)], [400], [600]]


def test_a_caller_of_many_items_that_left_asks_for_no_more():
    doubling = Doubling(waits=True)

    async def use(batcher):
        many = asyncio.ensure_future(batcher.submit(range(40)))
        await until(doubling.running.is_set)
        many.cancel()
        await asyncio.sleep(0)
        doubling.go.set()
        return await batcher.submit([100])

    assert run(use, doubling, max_batch=4) == [200]
    assert doubling.batches == [[0, 1, 2, 3], [100]]


def test_a_caller_that_left_is_dropped_and_leaves_room():
    doubling = Doubling(waits=True)

    async def use(batcher):
        first = asyncio.ensure_future(batcher.submit([1]))
        await until(doubling.running.is_set)
        left = asyncio.ensure_future(batcher.submit([2, 3]))
        stays = asyncio.ensure_future(batcher.submit([4]))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.sleep(0)
        fits = asyncio.ensure_future(batcher.submit([5, 6]))
        await asyncio.sleep(0)
        doubling.go.set()
        with pytest.raises(asyncio.CancelledError):
            await left
        return await asyncio.gather(first, stays, fits)

    assert run(use, doubling, max_queue=3) == [[2], [8], [10, 12]]
    assert doubling.batches == [[1], [4, 5, 6]]


def test_one_that_leaves_while_its_batch_runs_does_not_disturb_the_others():
    doubling = Doubling(waits=True)

    async def use(batcher):
        left = asyncio.ensure_future(batcher.submit([1]))
        stays = asyncio.ensure_future(batcher.submit([2]))
        await until(doubling.running.is_set)
        left.cancel()
        await asyncio.sleep(0)
        doubling.go.set()
        return await stays

    assert run(use, doubling) == [4]


def test_an_item_that_breaks_its_batch_fails_alone():
    doubling = Doubling()

    async def use(batcher):
        return await asyncio.gather(*(batcher.submit([i]) for i in (1, -5, 3)), return_exceptions=True)

    first, error, third = run(use, doubling)
    assert (first, third) == ([2], [6])
    assert isinstance(error, ValueError)
    assert str(error) == "negative: -5"
    assert doubling.batches == [[1, -5, 3], [1], [-5], [3]]


def test_a_wrong_number_of_results_is_an_error():
    async def use(batcher):
        with pytest.raises(RuntimeError, match="expected 1 results, got 0"):
            await batcher.submit([1])

    doubling = Doubling()
    doubling.__class__ = type("Empty", (Doubling,), {"__call__": lambda self, items: []})
    run(use, doubling)


def test_the_event_loop_goes_on_while_a_batch_runs():
    doubling = Doubling(waits=True)

    async def use(batcher):
        first = asyncio.ensure_future(batcher.submit([1]))
        await until(doubling.running.is_set)
        for _ in range(10):
            await asyncio.sleep(0.001)
        assert not first.done()
        doubling.go.set()
        return await first

    assert run(use, doubling) == [2]


def test_a_swap_takes_effect_between_batches():
    doubling = Doubling(waits=True)

    async def use(batcher):
        first = asyncio.ensure_future(batcher.submit([1]))
        await until(doubling.running.is_set)
        second = asyncio.ensure_future(batcher.submit([10]))
        await asyncio.sleep(0)
        batcher.swap(lambda items: [item + 1 for item in items], BatchLimits(8, 0.01, 100))
        third = asyncio.ensure_future(batcher.submit([20]))
        doubling.go.set()
        return await asyncio.gather(first, second, third)

    assert run(use, doubling) == [[2], [11], [21]]


def test_a_swap_to_a_shorter_wait_counts_for_what_waits_already():
    async def use(batcher):
        first = asyncio.ensure_future(batcher.submit([1]))
        await asyncio.sleep(0.02)
        batcher.swap(Doubling(), BatchLimits(8, 0.0, 100))
        return await first

    assert run(use, Doubling(), max_wait_s=3600) == [2]


def test_closing_waits_for_the_batch_that_runs_and_cancels_the_rest():
    doubling = Doubling(waits=True)

    async def use(batcher):
        first = asyncio.ensure_future(batcher.submit([1]))
        await until(doubling.running.is_set)
        second = asyncio.ensure_future(batcher.submit([2]))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(batcher.close())
        await asyncio.sleep(0)
        doubling.go.set()
        await closing
        assert await first == [2]
        with pytest.raises(asyncio.CancelledError):
            await second
        with pytest.raises(RuntimeError, match="the batcher is closed"):
            await batcher.submit([3])

    run(use, doubling)


def test_batches_are_observed():
    seen = []

    async def use(batcher):
        await batcher.submit([1, 2, 3])

    run(use, Doubling(), max_batch=2, observe=lambda n, seconds: seen.append((n, seconds >= 0)))
    assert seen == [(2, True), (1, True)]
