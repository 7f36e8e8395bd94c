"""Workers: the same ordered results whatever their number; a lost worker costs only its item."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.raw import write_books, write_web

from groundup.errors import GroundupError, SourceError
from groundup.flow import WORKER_MODULES
from groundup.runtime.workers.fork_server import AVAILABLE, ForkedProcess
from groundup.runtime.workers.map import Workers, default_workers, map_ahead
from groundup.runtime.workers.processes import Outcome, ProcessPool, attempt


@pytest.fixture
def two() -> Iterator[Workers]:
    workers = Workers(2)
    yield workers
    workers.close()


def slow_square(n: int) -> int:
    time.sleep(0.05 if n == 0 else 0)
    return n * n


def imported(name: str) -> bool:
    return name in sys.modules


def die_until(n: int, log: Path, times: int) -> int:
    """Kill this worker, as the system does when out of memory, until it happened `times` times."""
    with log.open("a") as file:
        file.write(f"{n}\n")
    if n == 3 and log.read_text().split().count("3") <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def fail_at(n: int, bad: int, done: Path) -> int:
    if n == bad:
        raise SourceError(f"item {n} is bad")
    (done / str(n)).touch()
    return n


class OddError(Exception):
    """An error that cannot be unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def fail_oddly(n: int) -> int:
    raise OddError(n, n)


@pytest.mark.parametrize("count", [1, 2])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    workers = Workers(count)
    try:
        assert list(workers.map(slow_square, [(n,) for n in range(5)])) == [0, 1, 4, 9, 16]
    finally:
        workers.close()


@pytest.mark.parametrize("times", [1, 2])
def test_a_worker_that_dies_costs_its_own_item_only(
    two: Workers, times: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    assert list(
        two.map(die_until, [(n, log, times) for n in range(8)], [f"shard {n}" for n in range(8)])
    ) == list(range(8))
    assert sorted(log.read_text().split()) == sorted([*"01234567", *"3" * times])
    assert (
        capfd.readouterr().err.count(
            "warning: shard 3: its worker process died (SIGKILL: out of memory?); it is tried again"
        )
        == times
    )


def test_workers_are_forked_from_one_process_that_has_imported_the_stages() -> None:
    # Protects: a module that starts a thread when it is imported would end forking, unnoticed.
    if not AVAILABLE:
        pytest.skip("nothing is forked here")
    workers = Workers(2, modules=list(WORKER_MODULES.values()))
    try:
        modules = list(WORKER_MODULES.values())
        assert list(workers.map(imported, [(modules[0],)] * 2)) == [True, True]
        pool = workers.pool
        assert isinstance(pool, ProcessPool)
        # Those that were forked before all was loaded end with their map.
        deadline = time.monotonic() + 60
        while not pool.workers:
            assert time.monotonic() < deadline
            list(workers.map(abs, [(1,), (2,), (3,)]))
        assert {type(worker.process) for worker in pool.workers} == {ForkedProcess}
        assert all(workers.map(imported, [(name,) for name in modules]))
    finally:
        workers.close()


def test_a_server_that_has_threads_or_is_killed_costs_time_only(two: Workers) -> None:
    threaded = Workers(2, modules=[__name__ + "_threads"])
    pool = two.pool
    assert isinstance(pool, ProcessPool)
    assert list(two.map(slow_square, [(1,), (2,)])) == [1, 4]
    assert pool.server is not None or not AVAILABLE
    if pool.server is not None:
        pool.server.process.kill()
    assert list(two.map(slow_square, [(n,) for n in range(5)])) == [0, 1, 4, 9, 16]
    try:
        assert list(threaded.map(slow_square, [(1,), (2,)])) == [1, 4]
        assert isinstance(threaded.pool, ProcessPool)
        assert not any(isinstance(w.process, ForkedProcess) for w in threaded.pool.workers)
    finally:
        threaded.close()


class Interrupted:
    """A pipe to the server at which Ctrl-C comes before the answer."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pipe, name)

    def recv(self) -> Any:
        raise KeyboardInterrupt


def test_an_interrupted_exchange_ends_the_server(two: Workers) -> None:
    # Protects: what is left of its answer would be read as the next one, which may never end.
    pool = two.pool
    assert isinstance(pool, ProcessPool)
    pool.start()
    server = pool.server
    if server is None:
        pytest.skip("nothing is forked here")
    server.control = Interrupted(server.control)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        list(two.map(slow_square, [(1,), (2,)]))
    assert not server.alive
    assert list(two.map(slow_square, [(1,), (2,)])) == [1, 4]


def test_an_item_that_kills_three_workers_is_named(two: Workers, tmp_path: Path) -> None:
    log, results = tmp_path / "log", list[int]()
    with pytest.raises(
        GroundupError,
        match=(
            r"^shard 3: its worker process died \(SIGKILL: out of memory\?\), 3 times; run again"
            r" with fewer"
        ),
    ):
        results += two.map(
            die_until, [(n, log, 99) for n in range(5)], [f"shard {n}" for n in range(5)]
        )
    assert log.read_text().split().count("3") == 3
    assert list(two.map(slow_square, [(1,), (2,)])) == [1, 4]


def test_an_error_comes_after_the_results_before_it_and_stops_the_map(
    two: Workers, tmp_path: Path
) -> None:
    results = []
    with pytest.raises(SourceError, match="item 2 is bad") as caught:
        for value in two.map(fail_at, [(n, 2, tmp_path) for n in range(50)]):
            results.append(value)
    assert (results, str(caught.value)) == ([0, 1], "item 2 is bad")
    assert len(list(tmp_path.iterdir())) < 40
    # Where in the worker, for those who ask.
    assert "fail_at" in "".join(caught.value.__notes__)


def test_an_error_that_does_not_pickle_arrives_as_text(two: Workers) -> None:
    with pytest.raises(RuntimeError, match="OddError: 0 and 0"):
        list(two.map(fail_oddly, [(0,), (1,)]))


class Counting:
    """A pool that ends one call at a time, chosen by `pick`, and counts the calls that it has."""

    cores = node_cores = 1

    def __init__(self, pick: Callable[..., int], lost: int = 0) -> None:
        self.pick, self.lost = pick, lost
        self.calls: dict[int, bytes] = {}
        self.most = self.dropped = 0
        # Index of the first item of each call, and those that got a machine for themselves.
        self.submitted: list[int] = []
        self.alone: list[int] = []

    def start(self) -> None: ...

    def has_room(self) -> bool:
        return len(self.calls) < 3

    def submit(self, number: int, call: bytes) -> None:
        self.calls[number] = call
        self.submitted.append(number)
        self.most = max(self.most, len(self.calls))

    def submit_alone(self, number: int, call: bytes) -> None:
        self.alone.append(number)
        self.submit(number, call)

    def wait(self) -> list[tuple[int, Outcome]]:
        number = self.pick(self.calls)
        call = self.calls.pop(number)
        if self.lost:
            self.lost -= 1
            return [(number, Outcome(lost="its node died"))]
        return [(number, Outcome(attempt(call)))]

    def cancel(self) -> None:
        self.dropped = len(self.calls)

    def close(self) -> None: ...


def test_a_pool_gets_only_as_many_calls_as_it_has_room_for() -> None:
    # Protects: a cluster is not handed a hundred thousand shards at once, and the order is kept all
    # the same.
    pool = Counting(max)
    assert list(Workers(pool=pool).map(slow_square, [(n,) for n in range(1000)])) == [
        n * n for n in range(1000)
    ]
    assert (pool.most, pool.dropped) == (3, 0)


def test_small_items_go_to_a_cluster_together_and_large_ones_alone() -> None:
    pool, names = Counting(max), [str(n) for n in range(40)]
    sizes = [4e6] * 20 + [64e6] * 20
    results = Workers(pool=pool).map(slow_square, [(n,) for n in range(40)], names, sizes)
    assert list(results) == [n * n for n in range(40)]
    # 16 MB a call.
    assert pool.submitted == [0, 4, 8, 12, 16, *range(20, 40)]
    # Few items: each core is to get some.
    pool = Counting(max)
    list(Workers(pool=pool).map(slow_square, [(n,) for n in range(8)], names[:8], [1e6] * 8))
    assert pool.submitted == list(range(8))


def test_items_of_a_call_whose_node_died_are_tried_again_one_by_one(
    capfd: pytest.CaptureFixture[str],
) -> None:
    pool, names = Counting(min, lost=1), [f"shard {n}" for n in range(40)]
    results = Workers(pool=pool).map(slow_square, [(n,) for n in range(40)], names, [4e6] * 40)
    assert list(results) == [n * n for n in range(40)]
    assert pool.submitted[3:7] == [0, 1, 2, 3]
    assert capfd.readouterr().err.count("its node died; it is tried again") == 4


def test_an_error_in_a_call_of_several_items_comes_after_the_results_before_it(
    tmp_path: Path,
) -> None:
    items, names = [(n, 2, tmp_path) for n in range(40)], [str(n) for n in range(40)]
    results = Workers(pool=Counting(min)).map(fail_at, items, names, [4e6] * 40)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(SourceError, match="item 2 is bad"):
        next(results)


def test_a_single_item_runs_on_a_node_and_after_the_cluster_was_left_here() -> None:
    # Protects: a list over the whole corpus in the memory of a machine that only starts the run.
    pool = Counting(min)
    workers = Workers(pool=pool)
    assert list(workers.map(slow_square, [(3,)])) == [9]
    assert pool.alone == [0]
    workers.close()
    assert list(workers.map(slow_square, [(4,)])) == [16]
    assert (pool.alone, workers.count) == ([0], default_workers())


def test_calls_are_canceled_when_a_map_ends_early() -> None:
    # Protects: Ctrl-C ends what works for it elsewhere.
    pool = Counting(min)
    results = Workers(pool=pool).map(slow_square, [(n,) for n in range(10)])
    assert isinstance(results, Generator)
    next(results)
    results.close()
    assert pool.dropped > 0


def test_workers_end_with_close_and_with_their_parent() -> None:
    code = (
        "import os, signal, psutil\nfrom groundup.runtime.workers.map import Workers\n"
        "workers = Workers(2)\nlist(workers.map(abs, [(1,), (2,), (3,)]))\n"
        "print(*[one.process.pid for one in workers.pool.workers], flush=True)\n"
        "{}\n"
    )
    for end in ("workers.close()", "os.kill(os.getpid(), signal.SIGKILL)"):
        results = subprocess.run(
            [sys.executable, "-c", code.format(end)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        pids = [int(pid) for pid in results.stdout.split()]
        assert len(pids) == 2, results.stderr
        deadline = time.monotonic() + 20
        while any(map(_runs, pids)):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return (
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        if Path("/proc").is_dir()
        else True
    )


def test_a_script_without_a_main_guard_runs_a_recipe(tmp_path: Path) -> None:
    # Protects: multiprocessing would run the script again in each of its workers; this one is no
    # file, even.
    write_books(tmp_path / "books")
    write_web(tmp_path / "web")
    (tmp_path / "recipe.toml").write_text(
        "".join(f'[[source]]\nkind = "{kind}"\npath = "{kind}"\n' for kind in ("books", "web"))
    )
    script = (
        "from pathlib import Path\nfrom groundup import load_recipe, run_recipe\nprint('once')\n"
        "run_recipe(load_recipe(Path('recipe.toml')), Path('run'), until='collect', workers=2)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-"],
        input=script,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "once\n"), done.stderr
    assert len(list((tmp_path / "run" / "collect" / "documents").glob("*.parquet"))) >= 2


def test_threads_work_ahead_in_order_and_take_few_items_at_once() -> None:
    # Protects: memory does not grow with the items, and bytes do not depend on the threads.
    taken = []

    def items() -> Iterator[int]:
        for n in range(20):
            taken.append(n)
            yield n

    results = map_ahead(slow_square, items(), 3)
    assert next(results) == 0
    assert len(taken) == 4
    assert list(results) == [n * n for n in range(1, 20)]
    assert list(map_ahead(slow_square, range(4), 1)) == [0, 1, 4, 9]


def test_an_error_of_a_thread_comes_in_its_turn(tmp_path: Path) -> None:
    results = map_ahead(lambda n: fail_at(n, 2, tmp_path), range(50), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(SourceError, match="item 2 is bad"):
        next(results)
    assert len(list(tmp_path.iterdir())) < 10
