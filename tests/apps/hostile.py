"""Applications that do what servers do not expect: forks that stay or return, threads that write, files
that are not what they seem. The first segment of the path picks one."""

import atexit
import gzip
import multiprocessing
import os
import signal
import threading
import time

from talk import append, note, path, wait_at

PLAIN = [("Content-Type", "text/plain")]
served = 0  # requests that this worker has taken

if os.environ.get("SLOW_EXIT"):

    def leave_slowly():
        note("leaving %d" % os.getpid())
        wait_at("gate")

    os.register_at_fork(after_in_child=lambda: atexit.register(leave_slowly))

terminate_at_birth = False  # what Pool.terminate() does to a process that has only just been forked
os.register_at_fork(
    after_in_child=lambda: terminate_at_birth and os.kill(os.getpid(), signal.SIGTERM)
)

if os.environ.get("THREAD_AT_IMPORT"):
    threading.Thread(target=threading.Event().wait, name="for-ever").start()


def application(environ, start_response):
    global served
    served += 1
    name = environ["PATH_INFO"].strip("/").partition("/")[0].replace("-", "_")
    return globals()["app_" + name](environ, start_response)


def text(start_response, body):
    start_response("200 OK", PLAIN)
    return [body.encode()]


def app_ready_yet(environ, start_response):
    return text(start_response, "ready")


def app_pid(environ, start_response):
    return text(start_response, str(os.getpid()))


def app_wait(environ, start_response):
    note("waiting %d" % os.getpid())
    wait_at("gate")
    return text(start_response, str(served))


def app_count(environ, start_response):
    """How many requests this worker had taken when it came to this one; each takes a little time."""
    time.sleep(0.002)
    append("counted", str(served))
    return text(start_response, str(served))


# --- bodies


def app_write_then_file(environ, start_response):
    length = environ["QUERY_STRING"]
    write = start_response("200 OK", PLAIN + ([("Content-Length", length)] if length else []))
    write(b"x")
    return environ["wsgi.file_wrapper"](open(path("served"), "rb"))


def app_gzip(environ, start_response):
    with gzip.open(path("compressed"), "wb") as file:
        file.write(b"to be compressed " * 10_000)
    start_response("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](gzip.open(path("compressed")))


def app_file(environ, start_response):
    start_response("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](open(environ["QUERY_STRING"], "rb"))


def app_keyword(environ, start_response):
    start_response("200 OK", PLAIN, exc_info=None)
    return [b"by keyword"]


class TwoForOne:
    def __len__(self):
        return 1

    def __iter__(self):
        yield b"one"
        yield b"two"


def app_two_for_one(environ, start_response):
    start_response("200 OK", PLAIN)
    return TwoForOne()


def app_endless(environ, start_response):
    start_response("200 OK", PLAIN)
    try:
        while True:
            yield b"x" * 100_000
    finally:
        note("closed")


# --- forks and threads


def app_fork_and_stay(environ, start_response):
    """The child lives on when the request is over and holds all that it has inherited."""
    if os.fork() == 0:
        note("child %d" % os.getpid())
        wait_at("gate")
        os._exit(0)
    return text(start_response, "forked")


def app_fork_and_return(environ, start_response):
    """The child comes back from the application as its parent does."""
    os.fork()
    note(str(os.getpid()))
    return text(start_response, str(os.getpid()))


def app_fork_and_fail(environ, start_response):
    pid = os.fork()
    note(str(os.getpid()))
    if pid == 0:
        raise LookupError("a fork fails on purpose")
    return text(start_response, str(os.getpid()))


def app_fork_in_block(environ, start_response):
    start_response("200 OK", PLAIN)
    yield b"before, "
    os.fork()
    note(str(os.getpid()))
    yield b"after"


def sit(ready):
    os.write(ready, b".")
    wait_at("gate")


def app_terminate(environ, start_response):
    here, there = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=sit, args=(there,))
    process.start()
    os.read(here, 1)
    process.terminate()
    process.join(10)
    if process.exitcode is None:
        process.kill()
        return text(start_response, "still there")
    return text(start_response, str(process.exitcode))


def app_fork_and_reap(environ, start_response):
    global terminate_at_birth
    terminate_at_birth = True
    child = os.fork()
    terminate_at_birth = False
    if child == 0:
        os._exit(3)
    _, status = os.waitpid(child, 0)
    return text(start_response, str(os.waitstatus_to_exitcode(status)))


def app_pool(environ, start_response):
    """Leaves the pool while one of its processes is still at work, which terminates them all."""
    here, there = os.pipe()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        result = pool.map(abs, [1, -2])
        pool.apply_async(sit, (there,))
        os.read(here, 1)
    return text(start_response, str(result))


def app_write_in_thread(environ, start_response):
    """Ends the request while a thread of its own is in the middle of write()."""
    write = start_response("200 OK", PLAIN)

    def body():
        try:
            while True:
                write(b"x" * 10_000_000)
        except BaseException as end:
            note("thread: " + type(end).__name__)

    threading.Thread(target=body, daemon=True).start()
    wait_at("gate")
    note("over")
    yield from ()


def app_thread(environ, start_response):
    """A thread that keeps the process from ending."""
    threading.Thread(target=wait_at, args=("gate",)).start()
    return text(start_response, str(os.getpid()))


def app_raise(environ, start_response):
    raise LookupError("raised on purpose")


# --- the process


def app_close_standard(environ, start_response):
    for fd in (0, 1, 2):
        os.close(fd)
    return text(start_response, "closed")


def app_print_everywhere(environ, start_response):
    print("printed by the application", flush=True)
    for fd in (0, 1, 2):
        try:
            os.write(fd, b"written by the application\n")
        except OSError:
            pass  # what nobody can write to harms nobody
    return text(start_response, "printed")


def app_write_for_ever(environ, start_response):
    write = start_response("200 OK", PLAIN)
    try:
        while True:
            write(b"x" * 100_000)
    except OSError as end:
        note(type(end).__name__)
        raise


def app_block_signals(environ, start_response):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(60)
    return text(start_response, "slept")
