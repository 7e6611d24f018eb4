from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from gpu_select.signals import signal_handlers, signals_held

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs signals")


def test_a_signal_calls_its_function_until_the_block_ends():
    seen = []

    async def main():
        with signal_handlers({"SIGUSR1": lambda: seen.append("usr1"), "SIGNONESUCH": lambda: None}):
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.sleep(0.01)
        return signal.getsignal(signal.SIGUSR1)

    before = signal.getsignal(signal.SIGUSR1)
    assert asyncio.run(main()) == before
    assert seen == ["usr1"]


@pytest.fixture
def interrupting():
    """SIGTERM raises KeyboardInterrupt, as in commands."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    yield interrupt
    signal.signal(signal.SIGTERM, before)


def test_signals_wait_for_the_end_of_a_block_whichever_thread_takes_them(interrupting):
    done, asleep = [], threading.Event()
    sleeper = threading.Thread(target=asleep.wait)
    sleeper.start()

    def block():
        with signals_held():
            signal.pthread_kill(sleeper.ident, signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(sum(range(100_000)))

    try:
        with pytest.raises(KeyboardInterrupt):
            block()
    finally:
        asleep.set()
        sleeper.join()
    assert len(done) == 1
    assert signal.getsignal(signal.SIGTERM) is interrupting


def test_without_a_signal_nothing_happens(interrupting):
    with signals_held():
        assert signal.getsignal(signal.SIGTERM) is not interrupting
    assert signal.getsignal(signal.SIGTERM) is interrupting


def test_an_error_of_the_block_brings_the_handlers_back(interrupting):
    with pytest.raises(ValueError, match="its own"), signals_held():
        raise ValueError("its own")
    assert signal.getsignal(signal.SIGTERM) is interrupting


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_held():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_are_let_be(interrupting):
    seen = []

    def look():
        with signals_held():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [interrupting]
