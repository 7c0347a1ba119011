import sys
path, channel, version = sys.argv[1:4]
name = getattr(getattr(sys, "implementation", None), "name", "python")
if sys.version_info < (3, 10) or name != "cpython":
    sys.exit("rswsgi needs CPython 3.10 or later, but %s is %s %s" % (sys.executable, name, sys.version.split()[0]))
if path:
    from importlib.machinery import ExtensionFileLoader, ModuleSpec
    from _imp import create_dynamic, exec_dynamic
    spec = ModuleSpec("rswsgi", ExtensionFileLoader("rswsgi", path), origin=path)
    spec.has_location = True
    try:
        rswsgi = create_dynamic(spec)
    except ImportError as error:
        sys.exit("rswsgi cannot load its module: %s" % error)
    sys.modules["rswsgi"] = rswsgi
    exec_dynamic(rswsgi)
    rswsgi.__spec__, rswsgi.__loader__, rswsgi.__file__ = spec, spec.loader, path
else:
    try:
        import rswsgi
    except ModuleNotFoundError:
        sys.exit("rswsgi has no librswsgi.so beside it or in ../lib/rswsgi, nor has %s a module rswsgi" % sys.executable)
rswsgi._master(int(channel), version)
