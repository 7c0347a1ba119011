"""Starts the servers that are libraries: serve.py SERVER PORT WORKERS MODULE THREADS.

A listener is bound once and inherited by WORKERS processes, as a prefork server does it; a server
that binds by itself shares the port by SO_REUSEPORT.
"""

import ctypes
import importlib
import os
import signal
import socket
import sys


def listener(port):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(1024)
    sock.setblocking(False)
    return sock


def forked(workers, run):
    """One worker is this very process; more are its children."""
    if workers == 1:
        return run()
    for _ in range(workers):
        if os.fork() == 0:
            run()
            os._exit(0)
    while True:
        signal.pause()


def bjoern(port, workers, app, threads):
    import bjoern

    sock = listener(port)
    forked(workers, lambda: bjoern.server_run(sock, app))


def fastwsgi(port, workers, app, threads):
    import fastwsgi

    fastwsgi.run(app, "127.0.0.1", port, workers=workers)


def waitress(port, workers, app, threads):
    import waitress

    sock = listener(port)
    forked(workers, lambda: waitress.serve(app, sockets=[sock], threads=threads, _quiet=True))


def end_with_parent():
    """In each worker, also those a library forks: an interrupted benchmark leaves none behind."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main():
    if int(sys.argv[3]) > 1:
        os.register_at_fork(after_in_child=end_with_parent)
    server, port, workers, module, threads = sys.argv[1:]
    sys.path.insert(0, os.getcwd())
    app = importlib.import_module(module).application
    {"bjoern": bjoern, "fastwsgi": fastwsgi, "waitress": waitress}[server](
        int(port), int(workers), app, int(threads)
    )


if __name__ == "__main__":
    main()
