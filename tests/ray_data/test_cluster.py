"""Which actors a run asks for, on clusters of several shapes, and addresses where there is none."""

from __future__ import annotations

import logging
import socket
import sys

import pytest

from gpu_select.errors import ConfigError, DeviceError, MissingDependencyError

pytest.importorskip("ray", reason="needs Ray: pip install 'gpu-select[ray]'")

from gpu_select.ray_data import cluster as ray_cluster


@pytest.fixture
def nodes(monkeypatch):
    """Call with (CPUs, GPUs) of each node, and how many CPUs are free where not all are."""

    def nodes(*sizes, free=None):
        free = sum(cpus for cpus, _ in sizes) if free is None else free
        monkeypatch.setattr(ray_cluster.ray, "available_resources", lambda: {"CPU": float(free)} if free else {})
        found = [{"Alive": True, "Resources": {"CPU": float(c), **({"GPU": float(g)} if g else {})}} for c, g in sizes]
        found.append({"Alive": False, "Resources": {"CPU": 96.0, "GPU": 8.0}})
        monkeypatch.setattr(ray_cluster.ray, "nodes", lambda: found)

    return nodes


@pytest.mark.parametrize(
    ("sizes", "device", "workers", "expected"),
    [
        ([(4, 0)], "auto", None, [("cpu", 4, 0)]),
        ([(4, 0)], "auto", 2, [("cpu", 2, 0)] * 2),
        ([(4, 0), (8, 0), (0, 0)], "auto", None, [("cpu", 4, 0)] * 2),
        ([(4, 0), (8, 0)], "cpu", 3, [("cpu", 2, 0)] * 3),
        ([(32, 2), (8, 0)], "cpu", 1, [("cpu", 8, 0)]),
        ([(32, 2), (96, 8), (8, 0)], "auto", None, [("cuda", 12, 1)] * 10),
        ([(32, 2)], "cuda", 1, [("cuda", 16, 1)]),
        ([(1, 4)], "auto", None, [("cuda", 1, 1)] * 4),
    ],
)
def test_each_gpu_or_node_gets_an_actor_unless_somebody_counts(sizes, device, workers, expected, nodes, caplog):
    nodes(*sizes)
    seats = ray_cluster.ray_seats(device, workers)
    assert [(seat.device, seat.n_cpus, seat.n_gpus) for seat in seats] == expected
    assert [seat.name for seat in seats] == [f"Ray worker {i}" for i in range(len(expected))]
    assert {seat.environment["OMP_NUM_THREADS"] for seat in seats} == {str(expected[0][1])}
    assert caplog.messages == []


@pytest.mark.parametrize(("free", "n_cpus"), [(8, 4), (7, 3), (1, 1), (0, 1)])
def test_on_a_busy_cluster_what_is_free_is_shared(free, n_cpus, nodes):
    nodes((8, 0), free=free)
    assert [seat.n_cpus for seat in ray_cluster.ray_seats("cpu", 2)] == [n_cpus] * 2
    nodes((8, 2), free=free)
    assert [seat.n_cpus for seat in ray_cluster.ray_seats("auto", None)] == [n_cpus] * 2


@pytest.mark.parametrize(
    ("sizes", "device", "workers", "text"),
    [
        ([(4, 2)], "auto", 3, "the cluster has 2 GPUs: 1 of 3 workers wait for others"),
        ([(4, 0)], "cuda", None, "the cluster has 0 GPUs: 1 of 1 workers wait for others"),
        ([(2, 0), (1, 0)], "cpu", 8, "the cluster has 3 CPUs: 5 of 8 workers wait for others"),
    ],
)
def test_more_actors_than_there_is_room_for_are_said_to_wait(sizes, device, workers, text, nodes, caplog):
    nodes(*sizes)
    with caplog.at_level(logging.WARNING, logger="gpu_select"):
        seats = ray_cluster.ray_seats(device, workers)
    assert len(seats) == (workers or 1)
    assert {seat.n_cpus for seat in seats} <= {1, 2}
    assert caplog.messages == [text]


@pytest.mark.parametrize("device", ["cuda:1", "mps", "gpu"])
def test_a_device_of_its_own_is_refused(device, nodes):
    nodes((4, 2))
    with pytest.raises(ConfigError) as caught:
        ray_cluster.ray_seats(device, None)
    text = f"device: expected cpu, cuda or auto with Ray, which decides what GPU a worker gets, got {device!r}"
    assert str(caught.value) == text


def test_an_address_where_nobody_is_is_told_at_once(monkeypatch):
    monkeypatch.setattr(ray_cluster.ray, "is_initialized", lambda: False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(DeviceError) as caught, ray_cluster.connected(address):
            pass
    assert str(caught.value).startswith(f"address {address}: cannot reach a Ray cluster (")
    assert str(caught.value).endswith(
        "); start one (ray start --head), or give --address local for one on this machine alone"
    )


def test_what_ray_says_of_an_address_is_passed_on(monkeypatch):
    monkeypatch.setattr(ray_cluster.ray, "is_initialized", lambda: False)
    with pytest.raises(DeviceError) as caught, ray_cluster.connected("nonsense"):
        pass
    assert "address nonsense: cannot reach a Ray cluster (Invalid address format: nonsense); " in str(caught.value)


def test_without_ray_the_package_to_install_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("gpu_select.ray_data")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError) as caught:
        import gpu_select.ray_data  # noqa: F401 - the import is the test
    text = "routing on a cluster needs the package ray, which is not installed: pip install 'gpu-select[ray]'"
    assert str(caught.value) == text
