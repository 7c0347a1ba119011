"""The application of the pool tests: wears out, grows, waits, burns, crashes, and can be hard to start."""

import atexit
import os
import subprocess
import sys
import time

from talk import append, note, path, wait_at

HELD = []


def after_fork():
    append("forks", "%d %.6f" % (os.getpid(), time.monotonic()))
    if os.path.exists(path("die-after-fork")):
        os._exit(3)
    if os.path.exists(path("hold-after-fork")):
        note("held %d" % os.getpid())
        wait_at("fork-gate")


os.register_at_fork(after_in_child=after_fork)


@atexit.register
def leave():
    append("exits", "%d %.6f" % (os.getpid(), time.monotonic()))


def application(environ, start_response):
    answer = globals()["answer_" + environ["PATH_INFO"].strip("/").replace("-", "_")]
    body = answer(environ).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Pid", str(os.getpid()))])
    return [body]


def answer_ready_yet(environ):
    return "ready"


def answer_pid(environ):
    return str(os.getpid())


def answer_served(environ):
    append("served", "%d %.6f" % (os.getpid(), time.monotonic()))
    return str(os.getpid())


def answer_wait(environ):
    note("waiting %d" % os.getpid())
    wait_at("gate")
    append("served", "%d %.6f" % (os.getpid(), time.monotonic()))
    return str(os.getpid())


def answer_burn(environ):
    """Computes for a while, by its own CPU time: the same work however busy the machine is."""
    until = time.thread_time() + 0.04
    while time.thread_time() < until:
        pass
    return str(os.getpid())


def answer_leak(environ):
    """Keeps so many MiB, all of them written to."""
    HELD.append(bytearray(b"x") * (int(environ["QUERY_STRING"]) << 20))
    return str(os.getpid())


def answer_crash(environ):
    os._exit(7)


def answer_orphan(environ):
    """Leaves a grandchild behind whose parent is gone."""
    done = path("orphans")
    script = "(echo done >> '%s') & exit 0" % done
    subprocess.run(["sh", "-c", script], check=True)
    return "left"
