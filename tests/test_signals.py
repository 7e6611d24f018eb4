from __future__ import annotations

import asyncio
import os
import signal

import pytest

from gpu_select.signals import signal_handlers

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
