from __future__ import annotations

import itertools
import signal
import sys
import threading
import time
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.pipeline.overlap import Overlap


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before, interval_s = set(threading.enumerate()), sys.getswitchinterval()
    yield
    assert set(threading.enumerate()) <= before
    assert sys.getswitchinterval() == interval_s


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def run(items, prepare, decide, use, *, in_flight=2, room=1) -> None:
    """The shape of the pipeline: two stages ahead, one here, one behind."""
    with Overlap() as overlap:
        behind = overlap.behind(use, in_flight=in_flight)
        for item in overlap.ahead(map(prepare, overlap.ahead(items, room=room)), room=room):
            behind.wait_for_room()
            behind.put(decide(item))


def same(item):
    return item


# ---------------------------------------------------------------- order, bounds, overlap


@pytest.mark.parametrize("n", [0, 1, 2, 100])
@pytest.mark.parametrize(("in_flight", "room"), [(1, 1), (2, 1), (5, 3)])
def test_items_come_out_in_order(n, in_flight, room):
    out: list[int] = []
    run(range(n), lambda x: 2 * x, lambda x: x + 1, out.append, in_flight=in_flight, room=room)
    assert out == [2 * x + 1 for x in range(n)]


def test_all_stages_run_at_the_same_time():
    # passes only if the four are waited for in four threads, each at another item
    meeting = threading.Barrier(4, timeout=30)

    def stage(at):
        return lambda item: (meeting.wait() if item == at else None, item)[1]

    out: list[int] = []
    run(map(stage(3), range(6)), stage(2), stage(1), lambda item: out.append(stage(0)(item)))
    assert out == list(range(6))


def test_stages_that_overlap_take_as_long_as_the_slowest():
    def stage(item):
        time.sleep(0.03)
        return item

    start = time.perf_counter()
    run(map(stage, range(10)), stage, stage, stage)
    assert 10 * 0.03 <= time.perf_counter() - start < 0.8 * 4 * 10 * 0.03


@pytest.mark.parametrize("room", [1, 2, 5])
def test_a_source_is_not_read_further_than_there_is_room(room):
    taken: list[int] = []

    def source():
        for i in itertools.count():
            taken.append(i)
            yield i

    with Overlap() as overlap:
        ahead = overlap.ahead(source(), room=room)
        wait_for(lambda: len(taken) == room + 1)
        time.sleep(0.05)
        assert len(taken) == room + 1
        assert next(ahead) == 0
        wait_for(lambda: len(taken) == room + 2)
        time.sleep(0.05)
        assert len(taken) == room + 2


@pytest.mark.parametrize("in_flight", [1, 2, 3])
def test_no_more_items_are_in_flight_than_allowed(in_flight):
    n_made = n_used = most = 0
    lock = threading.Lock()

    def decide(item):
        nonlocal n_made, most
        with lock:
            n_made += 1
            most = max(most, n_made - n_used)

    def use(_):
        nonlocal n_used
        time.sleep(0.001)
        with lock:
            n_used += 1

    run(range(40), same, decide, use, in_flight=in_flight)
    assert most == in_flight


def test_putting_waits_for_room_too():
    go = threading.Event()
    with Overlap() as overlap:
        behind = overlap.behind(lambda _: go.wait(30), in_flight=2)
        behind.put(1)
        behind.put(2)
        threading.Timer(0.05, go.set).start()
        start = time.perf_counter()
        behind.put(3)
        assert time.perf_counter() - start > 0.04
    wait_for(lambda: not any(isinstance(thread, threading.Timer) for thread in threading.enumerate()))


def test_an_item_that_is_used_is_held_by_nobody():
    class Item:
        pass

    alive: weakref.WeakSet[Item] = weakref.WeakSet()

    def source():
        while True:
            item = Item()
            alive.add(item)
            yield item
            del item

    with Overlap() as overlap:
        behind = overlap.behind(lambda item: None, in_flight=2)
        ahead = overlap.ahead(map(same, overlap.ahead(source())))
        for _ in range(20):
            behind.put(next(ahead))
        # two queues of one, two hands; nothing of what was used
        wait_for(lambda: len(alive) == 4)
        time.sleep(0.02)
        assert len(alive) == 4


def test_an_item_is_held_by_nobody_while_its_source_waits():
    class Item:
        pass

    def source():
        gone = weakref.ref(item := Item())
        yield item
        del item
        wait_for(lambda: gone() is None)

    with Overlap() as overlap:
        behind = overlap.behind(lambda item: None)
        behind.put(next(ahead := overlap.ahead(map(same, overlap.ahead(source())))))
        assert list(ahead) == []


# ---------------------------------------------------------------- errors


def failing(at, error):
    def stage(item):
        if item == at:
            raise error
        return item

    return stage


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("at", [0, 1, 7])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_error_of_any_stage_is_raised_as_it_is(stage, at, kind):
    error, out = kind("mine"), []
    stages = [same, same, same, out.append]
    stages[stage] = failing(at, error) if stage < 3 else lambda item: (failing(at, error)(item), out.append(item))
    with pytest.raises(kind) as caught:
        run(map(stages[0], itertools.count()), *stages[1:])
    assert caught.value is error
    assert error.__cause__ is None
    if issubclass(kind, Exception):
        assert out == list(range(at))  # what lies before an error comes out, and nothing else
    else:
        assert out == list(range(len(out)))
        assert len(out) <= at


def test_the_cause_of_an_error_stays():
    def broken(item):
        raise OSError("cannot write") from BrokenPipeError()

    with pytest.raises(OSError, match="cannot write") as caught:
        run(range(9), same, same, broken)
    assert isinstance(caught.value.__cause__, BrokenPipeError)


def test_of_two_errors_the_one_of_the_earlier_item_is_raised():
    # by the clock, the later item fails first
    failed = threading.Event()

    def decide(item):
        if item == 3:
            failed.set()
            raise ValueError("decide 3")
        return item

    def use(item):
        if item == 2:
            failed.wait(30)
            time.sleep(0.02)
            raise ValueError("use 2")

    with pytest.raises(ValueError, match="use 2"):
        run(range(9), same, decide, use)


def test_an_error_behind_ends_an_endless_source_at_once():
    taken = []

    def source():
        for i in itertools.count():
            taken.append(i)
            yield i

    with pytest.raises(ValueError, match="mine"):
        run(source(), same, same, failing(2, ValueError("mine")))
    assert len(taken) <= 2 + 2 + 2 + 2 + 2  # what queues, hands and flight hold beyond it


def test_an_error_behind_is_noticed_while_the_source_waits():
    ended = threading.Event()

    def source():
        yield 1
        ended.wait(30)

    def routed():
        with Overlap(ended.set) as overlap:
            behind = overlap.behind(failing(1, ValueError("mine")))
            for item in overlap.ahead(source()):
                behind.put(item)

    with pytest.raises(ValueError, match="mine"):
        routed()


def put_three_and_raise(error, use):
    with Overlap() as overlap:
        behind = overlap.behind(use, in_flight=3)
        for i in range(3):
            behind.put(i)
        raise error


def test_an_error_of_the_block_itself_lets_what_was_put_pass():
    out = []
    with pytest.raises(ValueError, match="block"):
        put_three_and_raise(ValueError("block"), lambda item: (time.sleep(0.02), out.append(item)))
    assert out == [0, 1, 2]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit, SystemExit])
def test_an_interrupt_of_the_block_stops_at_once(kind):
    out = []
    with pytest.raises(kind):
        put_three_and_raise(kind(), lambda item: (time.sleep(0.05), out.append(item)))
    assert len(out) <= 1


def test_an_interrupt_is_raised_whatever_else_fails_because_of_it():
    stopped, used = threading.Event(), threading.Event()

    def use(_):
        used.set()
        stopped.wait(30)
        raise OSError("it has been stopped")

    def routed():
        with Overlap(stopped.set) as overlap:
            overlap.behind(use).put(1)
            used.wait(30)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        routed()


def test_a_thread_that_cannot_start_ends_the_others(monkeypatch):
    start, started = threading.Thread.start, []

    def limited(thread):
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run(itertools.count(), same, same, same)
    assert len(started) == 2


# ---------------------------------------------------------------- leaving


def test_leaving_early_finishes_what_was_put_and_ends_the_source():
    out, closed = [], []

    def source():
        try:
            yield from itertools.count()
        finally:
            closed.append(threading.current_thread())

    with Overlap() as overlap:
        behind = overlap.behind(lambda item: (time.sleep(0.005), out.append(item)))
        for item in overlap.ahead(source()):
            behind.put(item)
            if item == 4:
                break
    assert out == list(range(5))
    assert [thread.name for thread in closed] == ["gpu_select ahead"]  # where it ran


def test_an_error_while_the_source_is_closed_is_no_loss():
    def source():
        try:
            yield from range(3)
        finally:
            raise OSError("cannot close")

    with pytest.raises(OSError, match="cannot close"):
        run(source(), same, same, same)


def test_closing_a_generator_that_overlaps_leaves_nothing():
    def rows():
        with Overlap() as overlap:
            yield from overlap.ahead(itertools.count())

    generator = rows()
    assert [next(generator) for _ in range(5)] == list(range(5))
    generator.close()


def test_on_stop_is_called_once_however_it_ends():
    for error in (None, ValueError, KeyboardInterrupt):
        calls = []
        with (
            pytest.raises(error) if error else pytest.MonkeyPatch.context(),
            Overlap(lambda calls=calls: calls.append(1)) as overlap,
        ):
            assert list(overlap.ahead(range(3))) == [0, 1, 2]
            assert calls == []
            if error is not None:
                raise error
        assert calls == [1]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals to threads")
@pytest.mark.parametrize("where", ["ahead", "room", "finish"])
def test_an_interrupt_while_waiting(where):
    """A real signal, which reaches the main thread while it waits in one of the three places."""
    main, ended, used = threading.main_thread().ident, threading.Event(), []

    def source():
        yield from range(1 if where != "room" else 9)
        if where == "ahead":
            ended.wait(30)

    def use(item):
        used.append(item)
        if where != "ahead":
            ended.wait(30)

    def interrupt():
        wait_for(lambda: used)
        time.sleep(0.1)
        signal.pthread_kill(main, signal.SIGINT)

    def routed():
        with Overlap(ended.set) as overlap:
            behind = overlap.behind(use)
            for item in overlap.ahead(source()):
                behind.put(item)

    killer = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    killer.start()
    try:
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            routed()
        assert time.monotonic() - start < 20
    finally:
        killer.join()
        signal.signal(signal.SIGINT, before)
    assert used == [0]


@pytest.mark.parametrize(("before_s", "within_s"), [(0.005, 1e-4), (1e-5, 1e-5)])
def test_threads_take_turns_often_while_stages_overlap(before_s, within_s):
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(before_s)
    try:
        with Overlap():
            assert sys.getswitchinterval() == pytest.approx(within_s)
        assert sys.getswitchinterval() == pytest.approx(before_s)
    finally:
        sys.setswitchinterval(usual_s)


# ---------------------------------------------------------------- as if in turn

places = st.sets(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=3)
pauses = st.lists(st.sampled_from([0, 0, 0, 0.001, 0.004]), min_size=8, max_size=8)


@given(st.integers(0, 9), places, pauses, st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=150)
def test_whatever_fails_and_however_slow_it_is_as_if_they_took_turns(n, broken, pause, in_flight, room):
    def stages(out, pause):
        def stage(number):
            def work(item):
                time.sleep(pause[(3 * item + number) % len(pause)])
                if (number, item) in broken:
                    raise ValueError(f"stage {number} at {item}")
                if number == 3:
                    out.append(item)
                return item

            return work

        return [stage(number) for number in range(4)]

    def outcome(function) -> str:
        try:
            function()
        except ValueError as error:
            return str(error)
        return "done"

    expected: list[int] = []
    first, *rest = stages(expected, [0])

    def in_turn():
        for item in map(first, range(n)):
            for work in rest:
                work(item)

    out: list[int] = []
    first_too, *rest_too = stages(out, pause)
    result = outcome(lambda: run(map(first_too, range(n)), *rest_too, in_flight=in_flight, room=room))
    assert result == outcome(in_turn)
    assert out == expected
