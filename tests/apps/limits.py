"""The application of the tests of time limits: takes too long in every way there is."""

import ctypes
import json
import os
import signal
import socket
import threading
import time

import rswsgi
from rswsgi import RequestTimeout
from talk import note, wait_at

if os.environ.get("TAKE_SIGNALS"):
    for name in ["HUP", "ALRM", "PROF", "USR1", "USR2", "CHLD"]:
        number = getattr(signal, "SIG" + name)
        signal.signal(number, lambda *_, name=name: note("%s %d" % (name, os.getpid())))


def application(environ, start_response):
    answer = globals()["answer_" + environ["PATH_INFO"].strip("/").replace("-", "_")]
    body = answer(environ)
    if isinstance(body, str):
        body = [body.encode()]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return body


def answer_ready_yet(environ):
    return "ready"


def answer_wait_at_gate(environ):
    note("waiting at the gate")
    wait_at("gate")
    return "passed"


def answer_pid(environ):
    return str(os.getpid())


def interrupted(way, environ):
    """Runs `way`, which takes for ever; notes that it was left, and by how much it missed the deadline."""
    try:
        way(environ)
    except Exception as error:  # noqa: the point is that this does not catch it
        note("caught as Exception: %r" % error)
    finally:
        early = time.monotonic() < environ["rswsgi.deadline"]
        note("finally in %s, %s" % (way.__name__, "too early" if early else "after the deadline"))


def computing(environ):
    count = 0
    while True:
        count += 1


def sleeping(environ):
    time.sleep(3600)


def receiving(environ):
    here, there = socket.socketpair()
    with here, there:
        here.recv(1)


def locking(environ):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def answer_compute(environ):
    interrupted(computing, environ)


def answer_sleep(environ):
    interrupted(sleeping, environ)


def answer_receive(environ):
    interrupted(receiving, environ)


def answer_lock(environ):
    interrupted(locking, environ)


def answer_stream_and_sleep(environ):
    """Part of a response, then too long."""

    def blocks():
        yield b"some"
        interrupted(sleeping, environ)

    return blocks()


def answer_kind(environ):
    try:
        sleeping(environ)
    except RequestTimeout as error:
        kind = type(error)
        return json.dumps(
            {
                "name": kind.__module__ + "." + kind.__qualname__,
                "bases": [base.__name__ for base in kind.__mro__[1:]],
                "same": kind is rswsgi.RequestTimeout,
            }
        )


def answer_deadline(environ):
    return json.dumps({"left": environ["rswsgi.deadline"] - time.monotonic(), "type": type(environ["rswsgi.deadline"]).__name__})


def answer_just_in_time(environ):
    """Ends shortly before the deadline. It may end late on a busy machine; it must not be told early."""
    try:
        time.sleep(max(0, environ["rswsgi.deadline"] - 0.3 - time.monotonic()))
        return "in time"
    except RequestTimeout:
        return "too early" if time.monotonic() < environ["rswsgi.deadline"] else "late"


def answer_extend(environ):
    before = environ["rswsgi.deadline"]
    after = rswsgi.extend_deadline(3600)
    time.sleep(max(0, before + 1 - time.monotonic()))
    return json.dumps({"more": after - before, "over": time.monotonic() > before + 0.9})


def answer_extend_a_little(environ):
    after = rswsgi.extend_deadline(0.5)
    try:
        time.sleep(3600)
    except RequestTimeout:
        return "too early" if time.monotonic() < after else "after the moved deadline"


def answer_extend_again(environ):
    """Catches it, then asks for more time."""
    try:
        time.sleep(3600)
    except RequestTimeout:
        rswsgi.extend_deadline(3600)
        time.sleep(1)
        return "went on"


def answer_extend_by_nothing(environ):
    return json.dumps(rswsgi.extend_deadline(0) == environ["rswsgi.deadline"])


def answer_extend_wrongly(environ):
    refused = []
    for value in [-1, float("nan"), float("inf"), "x", None]:
        try:
            rswsgi.extend_deadline(value)
        except (ValueError, TypeError) as error:
            refused.append(type(error).__name__)
    return " ".join(refused)


def swallow_every_exception():
    while True:
        try:
            time.sleep(3600)
        except BaseException:
            note("swallowed")


def hold_the_interpreter():
    """PyDLL keeps the interpreter lock, and waiting for a mutex goes on after a signal."""
    libc = ctypes.PyDLL(None)
    mutex = ctypes.create_string_buffer(128)
    libc.pthread_mutex_lock(mutex)
    note("holding")
    libc.pthread_mutex_lock(mutex)


def stand_beside(ready):
    ready.set()
    threading.Event().wait()


def start_thread():
    ready = threading.Event()
    threading.Thread(target=stand_beside, args=(ready,), daemon=True).start()
    ready.wait()


def answer_swallow(environ):
    start_thread()
    swallow_every_exception()


def answer_hold(environ):
    start_thread()
    hold_the_interpreter()


def answer_crash(environ):
    crash_in_c_code()


def crash_in_c_code():
    ctypes.string_at(0)


def answer_wait(environ):
    note("waiting %d" % os.getpid())
    wait_at("gate")
    return str(os.getpid())


def answer_wait_and_work(environ):
    """Goes on for a while after the gate."""
    note("waiting %d" % os.getpid())
    wait_at("gate")
    time.sleep(0.3)
    return str(os.getpid())


def answer_signals(environ):
    """Raises every signal of the application in the middle of a request."""
    own = {"HUP", "USR1", "USR2"}
    for name in sorted(own):
        os.kill(os.getpid(), getattr(signal, "SIG" + name))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    signal.pause()
    signal.setitimer(signal.ITIMER_PROF, 0.01)
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    return "done"


def answer_stream(environ):
    """Far more than any buffer holds, so that it waits for its reader."""
    block = b"x" * 65536
    count = int(environ["QUERY_STRING"])
    return (block for _ in range(count))
