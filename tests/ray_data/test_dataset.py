"""Ray Data with two actors of a real cluster on this machine."""

from __future__ import annotations

import os
import signal
import time

import pytest

from gpu_select import batch

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'gpu-select[ray]'")
pa = pytest.importorskip("pyarrow", reason="needs pyarrow")
pytest.importorskip("pyarrow.fs")
pytest.importorskip("pyarrow.parquet")

from gpu_select.ray_data import RouterBatch  # noqa: E402 - needs Ray
from gpu_select.ray_data.dataset import assigned_device  # noqa: E402

pytestmark = pytest.mark.slow


def two_actors(dataset, callable_class, options, **settings):
    """The dataset, routed."""
    pool = ray.data.ActorPoolStrategy(size=2, max_tasks_in_flight_per_actor=1)
    settings = {"batch_format": "pyarrow", "batch_size": 32, "compute": pool, **settings}
    return dataset.map_batches(callable_class, fn_constructor_kwargs=options, **settings)


def in_blocks(rows):
    """A dataset that both actors get something of."""
    return ray.data.from_arrow(pa.Table.from_pylist(rows)).repartition(8)


def by_id(rows):
    """Ray gives blocks in the order in which they are done."""
    return sorted(rows, key=lambda row: row["id"])


def at_once(rows, options):
    """The same by one call in this process."""
    return batch.RouterBatch(**options, device="cpu")(pa.Table.from_pylist(rows)).to_pylist()


def test_two_actors_without_gpus_give_what_one_process_gives_bit_for_bit(cluster, rows, router_options, tmp_path):
    # as on S3: Parquet through a file system of pyarrow, here one that begins in a folder
    files = pa.fs.SubTreeFileSystem(str(tmp_path), pa.fs.LocalFileSystem())
    files.create_dir("log")
    table = pa.Table.from_pylist(rows)
    for i in range(8):
        pa.parquet.write_table(table.slice(50 * i, 50), f"log/{i}.parquet", filesystem=files)

    class Both(RouterBatch):
        """Begins when both actors are there, and says who it is."""

        def __call__(self, table):
            (tmp_path / f"{os.getpid()}.actor").touch()
            until = time.monotonic() + 60
            while len(list(tmp_path.glob("*.actor"))) < 2:
                assert time.monotonic() < until, "the other actor never began"
                time.sleep(0.05)
            routed = super().__call__(table)
            who = [f"{os.getpid()} {self.device}"] * routed.num_rows
            return routed.append_column("who", pa.array(who))

    log = ray.data.read_parquet("log", filesystem=files).repartition(8)
    two_actors(log, Both, router_options).write_parquet("routed", filesystem=files)
    schemas = {str(pa.parquet.read_schema(path)) for path in (tmp_path / "routed").iterdir()}
    assert len(schemas) == 1  # whatever a file's rows hold
    routed = by_id(pa.parquet.read_table("routed", filesystem=files).to_pylist())
    who = {row.pop("who") for row in routed}
    assert len(who) == 2
    assert {name.partition(" ")[2] for name in who} == {"cpu"}
    assert routed == at_once(rows, router_options)
    assert len({row["model"] for row in routed}) > 2
    assert routed[49]["error"] == "query: expected a text that is not empty, got None"


def test_what_an_actor_had_when_it_was_killed_is_routed_by_another(cluster, rows, router_options, tmp_path):
    mark = tmp_path / "killed"

    class Killed(RouterBatch):
        """Dies once, with a batch in hand."""

        def __call__(self, columns):
            if 200 in columns["id"] and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(columns)

    settings = {"batch_format": "numpy", "compute": None, "concurrency": 2}
    routed = by_id(two_actors(in_blocks(rows), Killed, router_options, **settings).take_all())
    expected = at_once(rows, router_options)
    names = ("id", "query", "domain", "model", "score", "margin", "error")
    assert mark.exists()
    assert [[row[name] for name in names] for row in routed] == [[row[name] for name in names] for row in expected]


@pytest.mark.parametrize(("n_gpus", "device"), [(0, "cpu"), (0.5, "cuda")])
def test_an_actor_computes_on_the_gpu_that_ray_gave_it(n_gpus, device, cluster):
    class Asked:
        def device(self):
            from gpu_select.ray_data.dataset import assigned_device

            return assigned_device()

    actor = ray.remote(Asked).options(num_gpus=n_gpus).remote()
    assert ray.get(actor.device.remote()) == device
    ray.kill(actor)


def test_outside_of_an_actor_the_best_there_is_is_taken(cluster):
    assert assigned_device() == "auto"
