import sys

# The working directory may be anybody's: what this script needs is not looked for there.
searches_here = "" in sys.path
sys.path[:] = [entry for entry in sys.path if entry]

import importlib.machinery, importlib.util, json, math, os, stat, types


def plain(value):
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        # What does not fit is no value of any setting.
        return int(value) if value.bit_length() < 64 else hex(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, os.PathLike):
        return plain(os.fspath(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if callable(value):
        return {"callable": getattr(value, "__name__", "?")}
    return repr(value)


def is_ours_alone(directory):
    found = os.stat(directory)
    others = stat.S_IWGRP | stat.S_IWOTH
    return found.st_uid == 0 and not found.st_mode & others


def main(path, configuration, output):
    with open(configuration, "rb") as file:
        text = file.read()
    # As gunicorn does: a module of its own, and the working directory is searched for others; by root
    # only where nobody else could have put them.
    if searches_here and (os.geteuid() != 0 or is_ours_alone(".")):
        sys.path.insert(0, "")
    loader = importlib.machinery.SourceFileLoader("__config__", path)
    spec = importlib.util.spec_from_file_location("__config__", path, loader=loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules["__config__"] = module
    sys.argv[:] = ["gunicorn"]
    sys.dont_write_bytecode = True
    # Not by the loader: the path may name another file by now.
    exec(compile(text, path, "exec", dont_inherit=True), vars(module))
    found = {}
    for name, value in vars(module).items():
        if not name.startswith("_") and not isinstance(value, types.ModuleType):
            found[name] = plain(value)
    with open(output, "w", encoding="utf-8") as file:
        json.dump(found, file)


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
