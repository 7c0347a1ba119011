import json, os, sys


def plain(value):
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
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


def main(path, output):
    import importlib.machinery
    import importlib.util
    import types

    # As gunicorn does: a module of its own, and the working directory is searched for others.
    loader = importlib.machinery.SourceFileLoader("__config__", path)
    spec = importlib.util.spec_from_file_location("__config__", path, loader=loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules["__config__"] = module
    sys.argv[:] = ["gunicorn"]
    sys.dont_write_bytecode = True
    spec.loader.exec_module(module)
    found = {}
    for name, value in vars(module).items():
        if not name.startswith("_") and not isinstance(value, types.ModuleType):
            found[name] = plain(value)
    with open(output, "w", encoding="utf-8") as file:
        json.dump(found, file)


main(sys.argv[1], int(sys.argv[2]))
