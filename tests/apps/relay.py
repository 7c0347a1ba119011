"""The application of the relay tests: says who answers, is busy in every way there is, and looks for the
relay's descriptors to do harm with them."""

import collections
import ctypes
import itertools
import json
import multiprocessing
import os
import socket
import threading
import time
import warnings

from talk import append, note, wait_at

PLAIN = [("Content-Type", "text/plain")]
HELD = []


def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/").partition("/")[0].replace("-", "_")
    body = globals()["answer_" + name](environ)
    if not isinstance(body, str):
        start_response("200 OK", PLAIN)
        return body
    body = body.encode()
    headers = [("Content-Length", str(len(body))), ("X-Pid", str(os.getpid()))]
    start_response("200 OK", PLAIN + headers)
    return [body]


def answer_ready_yet(environ):
    return "ready"


def answer_pid(environ):
    return str(os.getpid())


def answer_echo(environ):
    """What was asked, and what was sent with it."""
    body = environ["wsgi.input"].read().decode("latin-1")
    return environ["QUERY_STRING"] + ":" + body


def answer_origin(environ):
    """Where the connection comes from and where it has arrived."""
    names = ["REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT"]
    return " ".join([str(os.getpid())] + [environ[name] or "-" for name in names])


def answer_served(environ):
    """Leaves a line for each time that it runs."""
    append("served", "%s %d" % (environ["QUERY_STRING"], os.getpid()))
    return str(os.getpid())


def answer_wait(environ):
    note("waiting %d" % os.getpid())
    wait_at(environ["QUERY_STRING"] or "gate")
    return str(os.getpid())


def answer_linger(environ):
    """Goes on for a while, so that what is sent on meanwhile has left."""
    text = answer_wait(environ)
    time.sleep(0.2)
    return text


def answer_stubborn(environ):
    """Takes no notice of the end of its time, and comes back when the client has its answer."""
    note("stuck %d" % os.getpid())
    try:
        time.sleep(3600)
    except BaseException:
        wait_at("gate")
    return "too late"


# --- stuck: holds the interpreter lock, and no signal brings it back


def answer_stuck_asleep(environ):
    """PyDLL keeps the interpreter lock, and waiting for a mutex goes on after a signal."""
    libc = ctypes.PyDLL(None)
    mutex = ctypes.create_string_buffer(128)
    libc.pthread_mutex_lock(mutex)
    note("stuck %d" % os.getpid())
    libc.pthread_mutex_lock(mutex)


def answer_stuck_computing(environ):
    """A loop in C that never looks up."""
    note("stuck %d" % os.getpid())
    collections.deque(itertools.repeat(None), maxlen=0)


def answer_stuck_within(environ):
    """After a part of its response."""

    def blocks():
        yield b"some"
        answer_stuck_asleep(environ)

    return blocks()


def answer_blocks(environ):
    """Blocks in quick succession, then nothing before the test opens the gate."""

    def blocks():
        for block in [b"one ", b"two ", b"three "]:
            yield block
        wait_at("gate")
        yield b"four"

    return blocks()


# --- processes and threads of its own


def busy():
    """Longer than any --relay-after in these tests: whatever watches, watches now."""
    note("busy %d" % os.getpid())
    wait_at("gate")


def answer_fork(environ):
    busy()
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    return "child %d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def answer_fork_twice(environ):
    """A child that has a child itself. It has one thread, whatever its parent does."""
    busy()
    pid = os.fork()
    if pid == 0:
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0)
        os.waitpid(grandchild, 0)
        for _ in range(10000):
            pass  # what is to be done between two instructions is done
        time.sleep(0.05)
        os._exit(len(os.listdir("/proc/self/task")))
    return "threads %d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def answer_fork_and_stay(environ):
    """The child holds all that it has inherited, until the test opens its gate."""
    busy()
    if os.fork() == 0:
        note("child %d" % os.getpid())
        wait_at("child-gate")
        os._exit(0)
    return "forked"


def answer_fork_and_return(environ):
    busy()
    os.fork()
    note("returns %d" % os.getpid())
    return str(os.getpid())


def double(number):
    return 2 * number


def pool(method):
    busy()
    with multiprocessing.get_context(method).Pool(2) as processes:
        return str(processes.map(double, [1, 2, 3]))


def answer_pool_by_fork(environ):
    return pool("fork")


def answer_pool_by_spawn(environ):
    return pool("spawn")


def answer_threads(environ):
    busy()
    numbers = []
    threads = [threading.Thread(target=lambda n=n: numbers.append(2 * n)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return "%s, %d left" % (sorted(numbers), threading.active_count())


def answer_fork_and_join(environ):
    """Waits for a child that stays until the test opens the gate."""
    pid = os.fork()
    if pid == 0:
        note("joined %d" % os.getppid())
        wait_at("gate")
        os._exit(0)
    os.waitpid(pid, 0)
    return str(os.getpid())


def answer_thread_forks(environ):
    """A thread forks while the request waits in C, where nothing of Python can be run in its thread."""
    waits = threading.Lock()

    def work():
        time.sleep(0.2)
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        note("forked %d" % os.getpid())
        wait_at("gate")
        waits.release()

    waits.acquire()
    threading.Thread(target=work, daemon=True).start()
    waits.acquire()
    return str(os.getpid())


def answer_thread_stays(environ):
    """A thread that works on while other requests run."""

    def work():
        while True:
            time.sleep(0.001)

    threading.Thread(target=work, daemon=True).start()
    return "started"


def answer_warnings(environ):
    """Whether a warning would be an error: what this proves depends on it."""
    try:
        warnings.warn("a test", DeprecationWarning)
    except DeprecationWarning:
        return "errors"
    return "ignored"


# --- harm


def own_descriptors():
    """Descriptor numbers by what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found.setdefault(os.readlink("/proc/self/fd/" + name), []).append(int(name))
        except FileNotFoundError:
            pass  # the one that listed
    return found


def answer_descriptors(environ):
    """Those of sockets that keep messages apart."""
    kinds = {}
    for what, numbers in own_descriptors().items():
        if what.startswith("socket:") and kind(numbers[0]) == socket.SOCK_SEQPACKET:
            kinds[what] = len(numbers)
    return json.dumps(kinds)


def kind(fd):
    with socket.socket(fileno=os.dup(fd)) as sock:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)


def relay_ends(environ):
    """Copies of the sockets that the test takes for the relay's, by their inodes."""
    wanted = environ["QUERY_STRING"].split(",")
    found = own_descriptors()
    return [socket.socket(fileno=os.dup(found[what][0])) for what in wanted if what in found]


def offer(sock, bytes, descriptors=()):
    """True if the socket has taken it."""
    try:
        socket.send_fds(sock, [bytes], list(descriptors), socket.MSG_DONTWAIT)
        return True
    except OSError:
        return False


def answer_garbage(environ):
    """Messages that nobody ought to send, with and without descriptors."""
    sent = 0
    descriptors = wrong_descriptors()
    for sock in relay_ends(environ):
        for size in [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 79, 80, 81, 127, 128, 1000, 60000]:
            for byte in [b"\0", b"\1", b"\xff", b"R"]:
                for fds in descriptors:
                    sent += offer(sock, byte * size, fds)
        sock.close()
    close_held()
    return str(sent)


def answer_alter(environ):
    """Takes real messages off the relay, sends what they might be mistaken for, then the messages themselves."""
    busy()  # connections of this worker are on the relay, and nobody takes them
    sockets = relay_ends(environ)
    taken = []
    for end in sockets:
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(end, 1 << 18, 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            taken.append((data, fds))
        if taken:
            break
    sockets.remove(end)
    for data, _ in taken[:1]:
        altered = [data[:length] for length in range(min(len(data), 200))] + [data + b"x", data + data]
        for at in range(min(len(data), 120)):
            altered += [data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :] for bits in (1, 128, 255)]
        descriptors = wrong_descriptors()
        for number, message in enumerate([data] * len(descriptors) + altered):
            for sock in sockets:
                offer(sock, message, descriptors[number % len(descriptors)])
    for data, fds in taken:
        for sock in sockets:
            offer(sock, data, fds)
    for _, fds in taken:
        for fd in fds:
            os.close(fd)
    for sock in sockets:
        sock.close()
    close_held()
    return str(len(taken))


def close_held():
    while HELD:
        HELD.pop().close()


def wrong_descriptors():
    """None, too many, of the wrong kind, and of the right kind but with nobody behind them."""
    null = open("/dev/null", "r+b", buffering=0)
    blocking = socket.create_server(("127.0.0.1", 0))
    listener = socket.create_server(("127.0.0.1", 0))
    unconnected = socket.socket()
    alone, gone = socket.socketpair()
    gone.close()
    for sock in [listener, unconnected, alone]:
        sock.setblocking(False)
    HELD.extend([null, blocking, listener, unconnected, alone])
    single = [held.fileno() for held in HELD]
    return [(), (null.fileno(),) * 3, (alone.fileno(),) * 2] + [(fd,) for fd in single]


def answer_exhaust(environ):
    """Leaves no descriptor to its worker."""
    try:
        while True:
            HELD.append(open("/dev/null"))
    except OSError as error:
        return error.strerror


def answer_close(environ):
    """Closes the worker's own ends; whatever is opened next has their numbers."""
    wanted = environ["QUERY_STRING"].split(",")
    found = own_descriptors()
    numbers = [number for what in wanted for number in found.get(what, [])]
    for number in numbers:
        os.close(number)
    HELD.extend(open("/dev/null") for _ in numbers)
    return str(len(numbers))


def answer_fill(environ):
    """Fills the relay and stays until the test opens the gate."""
    sent = 0
    for sock in relay_ends(environ):
        with sock:
            while offer(sock, b"x" * 1000):
                sent += 1
            while offer(sock, b"x"):
                sent += 1
    note("filled %d %d" % (sent, os.getpid()))
    wait_at("gate")
    return str(sent)
