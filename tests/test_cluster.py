"""Clusters by name, address and file."""

import os

import pytest

from cryodask.cluster import open_cluster, parse_device, parse_memory, task_memory
from cryodask.errors import ClusterError, InputError


@pytest.mark.parametrize(
    ("size", "count"), [("2GiB", 2 * 2**30), ("500MB", 500_000_000), ("1.5 GiB", 1610612736), (1024, 1024)]
)
def test_sizes_are_read_with_their_units(size, count):
    assert parse_memory(size) == count


@pytest.mark.parametrize("size", ["lots", "-1GiB", "0", "", "GiB"])
def test_a_wrong_size_says_what_is_expected(size):
    with pytest.raises(InputError, match="expected a size such as 2GiB or 500MB"):
        parse_memory(size)


def test_devices_are_read_with_their_numbers():
    assert [parse_device(text) for text in ("cpu", "cuda", "cuda:0,1")] == [
        ("cpu", ()),
        ("cuda", ()),
        ("cuda", (0, 1)),
    ]
    for text in ("gpu", "cpu:0", "cuda:", "cuda:a"):
        with pytest.raises(InputError, match=f"device = {text}: expected cpu, cuda or cuda:0,1"):
            parse_device(text)


def test_local_workers_are_processes_with_one_thread_and_room_beyond_their_tiles():
    with open_cluster("local", workers=1, memory="256MiB") as client:
        assert client.submit(os.getpid).result() != os.getpid()
        (worker,) = client.scheduler_info()["workers"].values()
        assert worker["nthreads"] == 1
        assert parse_memory("256MiB") < worker["memory_limit"] <= 4 * parse_memory("256MiB")


def test_threads_work_in_this_process():
    with open_cluster("threads", workers=2) as client:
        assert client.submit(os.getpid).result() == os.getpid()
        assert sum(client.nthreads().values()) == 2


def test_a_running_cluster_is_reached_by_address_and_by_file(tmp_path):
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0", protocol="tcp"
    ) as own:
        with open_cluster(own.scheduler_address) as client:
            assert client.submit(sum, [1, 2]).result() == 3
        file = tmp_path / "scheduler.json"
        with open_cluster(own.scheduler_address) as client:
            client.write_scheduler_file(str(file))
        with open_cluster(str(file)) as client:
            assert client.submit(sum, [3, 4]).result() == 7


def test_running_workers_that_are_too_small_for_the_plan_are_told(caplog):
    from distributed import LocalCluster

    own = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "protocol": "tcp"}
    with LocalCluster(**own, memory_limit="4GiB", dashboard_address=":0") as cluster:
        for memory, told in (("2GiB", True), ("1GiB", False)):
            caplog.clear()
            with open_cluster(cluster.scheduler_address, memory=memory):
                pass
            messages = [record.message for record in caplog.records if record.name == "cryodask"]
            assert len(messages) == told
            if told:
                assert "limited to 4.00 GiB and may need 6.50 GiB for tasks of 2.00 GiB (2 at" in messages[0]
                assert "up to 1.17 GiB are safe, see --memory" in messages[0]


def test_the_threads_of_a_worker_share_its_memory():
    assert task_memory("2GiB", 4) == 2**29
    assert task_memory("2GiB", None) == 2**31


@pytest.mark.parametrize("where", ["tcp://127.0.0.1:1", "nowhere", "missing.json"])
def test_a_cluster_that_is_not_there_cannot_be_reached(where, monkeypatch):
    monkeypatch.setattr("cryodask.cluster.CONNECT_SECONDS", 0.3)
    with pytest.raises(ClusterError, match=f"cannot reach {where}: "), open_cluster(where):
        pass


def test_a_file_that_is_no_scheduler_file_is_named(tmp_path):
    path = tmp_path / "scheduler.json"
    path.write_text("[]")
    with pytest.raises(ClusterError, match="expected a scheduler file"), open_cluster(str(path)):
        pass


@pytest.mark.parametrize(("where", "device"), [("cuda", "cpu"), ("local", "cuda"), ("threads", "cuda")])
def test_without_a_gpu_a_cuda_cluster_is_refused(where, device, monkeypatch):
    monkeypatch.setattr("cryodask.arrays.module.cuda_is_available", lambda: False)
    with pytest.raises(ClusterError, match="no CUDA device found"), open_cluster(where, device=device):
        pass
