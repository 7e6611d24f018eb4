"""An actor in the place of a process of `gpu_select.shards.pool`: the same orders and replies, on any node."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import traceback
from typing import Any

import ray

from gpu_select.ray_data.cluster import RaySeat
from gpu_select.shards.job import Job
from gpu_select.shards.plan import Shard
from gpu_select.shards.worker import work

__all__ = ["RayWorker"]

_log = logging.getLogger("gpu_select")

_PATIENCE_S = 60
"""So long nobody wonders where an actor is."""


class RayWorker:
    """What `gpu_select.shards.pool.Worker` is, as an actor. Its node has to see all files under the same names.

    Args:
        job: what it is part of.
        seat: what it asks of the cluster.
        replies: gets (worker, reply), and (worker, None) after its end.
        lock: of the folder; this process holds it, and Ray ends the actor with this process.
    """

    def __init__(
        self, job: Job, seat: RaySeat, replies: queue.SimpleQueue[tuple[RayWorker, dict[str, Any] | None]], lock: int
    ) -> None:
        self.seat = seat
        self.ending = "ended by an error, which its log shows"
        """How it ended, once it has."""
        actor = ray.remote(ShardActor).options(
            num_cpus=seat.n_cpus,
            num_gpus=seat.n_gpus,
            max_concurrency=2,  # one call waits for a reply while another brings an order
            max_restarts=0,  # the run decides who takes over
            runtime_env={"env_vars": dict(seat.environment)},
        )
        self._actor = actor.remote({"job": job.to_json(), "device": seat.device}, os.getcwd())
        self._listener = threading.Thread(target=self._listen, args=(replies,), daemon=True)
        self._listener.start()

    def route(self, shard: Shard) -> None:
        """Have it route a shard, after those that it was given before."""
        self._actor.order.remote({"number": shard.number, "spans": shard.spans})

    def kill(self) -> None:
        """End it at once. What it was writing keeps its temporary name."""
        ray.kill(self._actor)
        self._listener.join()

    def _listen(self, replies: queue.SimpleQueue[tuple[RayWorker, dict[str, Any] | None]]) -> None:
        try:
            waiting = self._actor.reply.remote()
            if not ray.wait([waiting], timeout=_PATIENCE_S)[0]:
                _log.warning(
                    "%s has not begun after %d s: it waits for %d CPUs and %d GPUs, or its router takes long to load "
                    "(ray status shows what the cluster is busy with)",
                    *(self.seat.name, _PATIENCE_S, self.seat.n_cpus, self.seat.n_gpus),
                )
            while (reply := ray.get(waiting)) is not None:
                replies.put((self, reply))
                waiting = self._actor.reply.remote()
        except ray.exceptions.RayError as error:
            self.ending = _ending(error)
        replies.put((self, None))


class ShardActor:
    """Works in a thread of its own, while Ray's threads bring orders and fetch replies."""

    def __init__(self, first: dict[str, Any], folder: str) -> None:
        with contextlib.suppress(OSError):  # names that begin at the root do without
            os.chdir(folder)
        self._orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._orders.put(first)
        threading.Thread(target=self._work, daemon=True).start()

    def order(self, order: dict[str, Any]) -> None:
        """Take an order."""
        self._orders.put(order)

    def reply(self) -> dict[str, Any] | None:
        """Wait for the next one; None after the last."""
        return self._replies.get()

    def _work(self) -> None:
        try:
            work(self._orders, lambda **reply: self._replies.put(reply))
        except BaseException:
            traceback.print_exc()
        self._replies.put(None)


def _ending(error: ray.exceptions.RayError) -> str:
    """One line of what Ray says in many."""
    lines = [line.strip() for line in str(error).splitlines()]
    detail = next((line for line in lines if line.startswith("The actor is dead because")), lines[0] if lines else "")
    return f"ended: {detail[:200]}"
