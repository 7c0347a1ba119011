"""The application of the process tests: says where it runs and what it has inherited."""

import json
import os
import subprocess
import sys
import threading

from talk import append, note, wait_at

append("imports", str(os.getpid()))
os.register_at_fork(
    before=lambda: append("before", str(os.getpid())),
    after_in_parent=lambda: append("parent", str(os.getpid())),
    after_in_child=lambda: append("child", str(os.getpid())),
)
if os.environ.get("START_THREAD"):
    threading.Thread(target=threading.Event().wait, name="started-at-import", daemon=True).start()


def application(environ, start_response):
    answer = globals()["answer_" + environ["PATH_INFO"].strip("/").replace("-", "_")]
    body = answer(environ).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


def answer_(environ):
    return "served"


def answer_ready_yet(environ):
    return "ready"


def answer_pid(environ):
    return str(os.getpid())


def answer_wait(environ):
    note("waiting %d" % os.getpid())
    wait_at("gate")
    return str(os.getpid())


def answer_die(environ):
    os._exit(7)


def answer_abort(environ):
    os.abort()


def answer_fds(environ):
    listed = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            listed[name] = os.readlink("/proc/self/fd/" + name)
        except FileNotFoundError:
            pass  # the one that listed
    return json.dumps(listed)


def answer_child(environ):
    """What a program that the application runs inherits when nobody cleans up for it."""
    script = 'cat /proc/self/status; for fd in /proc/self/fd/*; do echo "fd: $(basename $fd) $(readlink $fd)"; done'
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, close_fds=False, check=True)
    return ran.stdout


def answer_child_status(environ):
    """The application waits for its own children, by every way there is."""
    with subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(5)"]) as popen:
        first = popen.wait()
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 6"], os.environ)
    second = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    third = os.waitstatus_to_exitcode(os.system("exit 7"))
    return "%d %d %d" % (first, second, third)


def answer_signals(environ):
    with open("/proc/self/status") as status:
        return "".join(line for line in status if line.startswith("Sig"))


def answer_environment(environ):
    return json.dumps(dict(os.environ))


def answer_python(environ):
    import rswsgi  # it is there, wherever the interpreter comes from

    with open("/proc/self/maps") as maps:
        files = sorted({line.split()[-1] for line in maps if "rswsgi" in line and ".so" in line})
    return json.dumps({"version": sys.version_info[:2], "name": rswsgi.__name__, "files": files})
