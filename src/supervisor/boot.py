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
    rswsgi = create_dynamic(spec)
    sys.modules["rswsgi"] = rswsgi
    exec_dynamic(rswsgi)
    rswsgi.__spec__, rswsgi.__loader__, rswsgi.__file__ = spec, spec.loader, path
else:
    import rswsgi
rswsgi._master(int(channel), version)
