"""What a master does in Python; see startup.rs. Runs as the file "<rswsgi>"."""

import sys


def prepare(directory, paths):
    import faulthandler

    # Before the application is imported, which may crash too; workers inherit it.
    faulthandler.enable(file=2, all_threads=True)
    sys.argv[:] = ["rswsgi"]
    sys.path[0] = directory  # "" of `python -c`
    sys.path.extend(paths)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)


def load(module_name, expression, names):
    """Returns (application, None) or (None, (reason, traceback))."""
    import importlib

    try:
        module = importlib.import_module(module_name)
    except BaseException as error:
        return None, _import_failure(module_name, error)
    name = f"{module_name}:{expression}" if expression else module_name
    try:
        if expression is None:
            application = _default(module, module_name, names)
        else:
            application = _evaluate(expression, module, module_name)
        if not callable(application):
            kind = type(application).__name__
            raise _Refused(f"{name} is not callable, but of type {kind!r}")
    except _Refused as error:
        return None, (str(error), "")
    except BaseException as error:
        return None, (f"{name} raised {_summary(error)}", _format(error))
    import inspect

    refused = _arguments(inspect, application, name)
    if refused:
        return None, (refused, "")
    call = getattr(application, "__call__", None)
    if inspect.iscoroutinefunction(application) or inspect.iscoroutinefunction(call):
        return None, (f"{name} is an asynchronous (ASGI?) application; rswsgi serves WSGI", "")
    return application, None


class _Refused(Exception):
    pass


def _arguments(inspect, application, name):
    """What a plain function lacks to be called as PEP 3333 says; most often it makes the application."""
    if not inspect.isfunction(application):
        return None
    try:
        signature = inspect.signature(application, follow_wrapped=False)
        signature.bind(None, None)
    except TypeError:
        said = f"{name} takes {signature}, not (environ, start_response)"
        return f"{said}; if it makes the application, call it: '{name}(...)'"
    except ValueError:
        pass  # it has no signature
    return None


def _default(module, module_name, names):
    for name in names:
        if hasattr(module, name):
            return getattr(module, name)
    raise _Refused(
        f"module {module_name!r} has no attribute 'application' or 'app'; "
        f"name the application, as in {module_name}:NAME"
    )


def _evaluate(expression, module, module_name):
    """An attribute path, or a call of one with literal arguments."""
    if not expression.endswith(")"):
        return _attribute(expression.split("."), module, module_name)
    import ast

    try:
        call = ast.parse(expression, mode="eval").body
    except SyntaxError as error:
        raise _Refused(f"cannot parse {expression!r}: {error.msg}") from None
    if not isinstance(call, ast.Call):
        raise _Refused(f"{expression!r} is neither a name nor the call of one")
    try:
        arguments = [ast.literal_eval(argument) for argument in call.args]
        keywords = {item.arg: ast.literal_eval(item.value) for item in call.keywords}
    except ValueError:
        raise _Refused(f"the arguments in {expression!r} are to be literals") from None
    factory = _attribute(ast.unparse(call.func).split("."), module, module_name)
    if not callable(factory):
        raise _Refused(f"{ast.unparse(call.func)} in {module_name!r} is not callable")
    return factory(*arguments, **keywords)


def _attribute(path, module, module_name):
    value, seen = module, f"module {module_name!r}"
    for name in path:
        try:
            value = getattr(value, name)
        except AttributeError as error:
            raise _Refused(f"{seen} has no attribute {name!r}{_similar(value, name)}") from error
        seen = repr(name)
    return value


def _similar(value, name):
    import difflib

    close = difflib.get_close_matches(name, dir(value), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _import_failure(module_name, error):
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        missing = error.name
        if module_name == missing or module_name.startswith(missing + "."):
            where = sys.path[0] or "."
            reason = f"there is no module {missing!r} (the directory is {where}; --chdir sets it)"
            return reason + _closed(where, missing), _format(error)
    if isinstance(error, SystemExit):
        return f"importing {module_name} called sys.exit({error.code!r})", _format(error)
    reason = f"importing {module_name} raised {_summary(error)}"
    if isinstance(error, ModuleNotFoundError):
        reason += f" (the interpreter is {sys.executable}; --venv names another)"
    return reason, _format(error)


def _closed(directory, module):
    """The first directory on the way to a module that cannot be read: the import system skips it silently."""
    import os

    for name in ("", *module.split(".")):
        directory = os.path.join(directory, name)
        try:
            os.listdir(directory)
        except PermissionError:
            shown = directory.rstrip("/")
            return f"; uid {os.getuid()} may not read {shown} (by its mode, or --isolation)"
        except OSError:
            break
    return ""


def _files_of(error):
    """The files that an exception speaks of: it is in one of them that it will be mended."""
    files, seen = [], set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, SyntaxError) and isinstance(error.filename, str):
            files.append(error.filename)
        trace = error.__traceback__
        while trace is not None:
            files.append(trace.tb_frame.f_code.co_filename)
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    return files


_failed_in = []


def placeholder(environ, start_response):
    start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
    return [b"The application is being loaded\n"]


def teller(pipe, paths):
    """For --reload: what tells, on a pipe, the directories of the modules that have been imported, and when
    it is called again, those that are new."""
    import os

    told = set()
    count = 0
    installed = tuple({sys.prefix, sys.base_prefix})

    def tell():
        nonlocal count
        if len(sys.modules) == count and not _failed_in:
            return
        count = len(sys.modules)
        files = list(_failed_in)
        _failed_in.clear()
        for module in list(sys.modules.values()):
            try:
                file = module.__file__
            except Exception:
                continue  # a name space, or something that only looks like a module
            if isinstance(file, str):
                files.append(file)
        found = [os.getcwd(), *paths] if not told else []
        for file in files:
            if os.path.isabs(file):
                found += os.path.dirname(file), os.path.dirname(os.path.realpath(file))
        new = {path for path in found if path not in told and "\n" not in path}
        told.update(new)
        # Those of the application first: there may be more than can be watched.
        for path in sorted(new, key=lambda path: (path.startswith(installed), path)):
            line = os.fsencode(path) + b"\n"
            if len(line) <= 4096:  # written as a whole (PIPE_BUF)
                os.write(pipe, line)

    return tell


def _summary(error):
    text = str(error).split("\n", 1)[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _format(error):
    """The traceback without the frames of this file and of the import machinery around it."""
    import traceback

    _failed_in.extend(_files_of(error))

    trace = error.__traceback__
    ours = ("<rswsgi>", "<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name not in ours and not name.endswith("/importlib/__init__.py"):
            break
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace)
    return "".join(lines).encode("utf-8", "backslashreplace").decode()


def arm(soft_deadline, before_fork, in_parent, in_child):
    """Takes the real-time signals of the master (see the table of signals in docs/operation.md). Done in the
    master already, where they mean nothing, and what `obey` needs is looked up here: every object
    that a worker touches costs it a copy of the page around it."""
    import faulthandler
    import os
    import signal

    signal.signal(signal.SIGRTMIN + 3, soft_deadline)
    print_stacks = signal.SIGRTMIN + 2

    global obey

    def obey(
        wakeup,
        stacks,
        register=os.register_at_fork,
        set_wakeup_fd=signal.set_wakeup_fd,
        print_stacks_on=faulthandler.register,
    ):
        """The rest, in a worker."""

        def in_forked_child():
            in_child()
            current = set_wakeup_fd(-1)
            if current != wakeup:
                set_wakeup_fd(current)  # the application's own

        register(before=before_fork, after_in_parent=in_parent, after_in_child=in_forked_child)
        # A signal for a handler of the application that arrives just before the worker sleeps wakes it.
        set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        print_stacks_on(print_stacks, file=stacks, all_threads=True, chain=False)


def threads():
    """Threads other than this one, Python's by name, foreign ones by number."""
    names = []
    if "threading" in sys.modules:
        threading = sys.modules["threading"]
        current = threading.current_thread()
        names = [thread.name for thread in threading.enumerate() if thread is not current]
    try:
        import os

        foreign = len(os.listdir("/proc/self/task")) - 1 - len(names)
    except OSError:
        foreign = 0
    if foreign > 0:
        names.append(f"{foreign} not started by Python")
    return names


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # closed, or None


def finish(join):
    """What the interpreter does at the end of a script, short of tearing itself down."""
    import atexit

    try:
        if join and "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    try:
        atexit._run_exitfuncs()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    flush()
