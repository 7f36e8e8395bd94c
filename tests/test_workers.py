"""Workers: the same results in the same order whatever their number; a lost worker is one line."""

import os
import time

import pytest

from groundup.errors import GroundupError
from groundup.workers import Workers


def slow_square(n: int) -> int:
    time.sleep(0.05 if n == 0 else 0)
    return n * n


def die(n: int) -> int:
    if n == 1:
        os._exit(9)
    return n


def fail(n: int) -> int:
    raise GroundupError(f"item {n} is bad")


@pytest.mark.parametrize("count", [1, 2])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    workers = Workers(count)
    try:
        assert list(workers.map(slow_square, [(n,) for n in range(5)])) == [0, 1, 4, 9, 16]
    finally:
        workers.close()


def test_a_worker_that_dies_is_said_in_one_line_and_the_next_map_works() -> None:
    workers = Workers(2)
    try:
        with pytest.raises(GroundupError, match="a worker process died"):
            list(workers.map(die, [(0,), (1,), (2,)]))
        assert list(workers.map(slow_square, [(1,), (2,)])) == [1, 4]
    finally:
        workers.close()


def test_an_error_of_an_item_reaches_the_caller() -> None:
    workers = Workers(2)
    try:
        with pytest.raises(GroundupError, match="item 0 is bad"):
            list(workers.map(fail, [(0,), (1,)]))
    finally:
        workers.close()
