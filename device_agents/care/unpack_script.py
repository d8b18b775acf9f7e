"""The Python program that `setup` runs on the device to unpack wheels; standard library only.

Argument: JSON with `folder` (…/runtime), `id` of the set, `wheels` [[file name, sha256], …] that
lie in folder/incoming under their hash, and `python`, the interpreter to use. Prints one JSON line:
{"missing": […]} when files are not there whole, {"ready": path of the launcher}, or {"error": …}.

Wheels are zip files: unpacking them needs neither pip nor the venv module, which Debian leaves out.
The set appears under its id whole or not at all.
"""

SCRIPT = r"""
import errno, hashlib, json, os, shlex, shutil, sys, zipfile

order = json.loads(sys.argv[1])
folder, incoming = order["folder"], os.path.join(order["folder"], "incoming")
home = os.path.join(folder, order["id"])
launcher = os.path.join(home, "python")

def whole(name, sha256):
    digest = hashlib.sha256()
    try:
        with open(os.path.join(incoming, sha256), "rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
    except OSError:
        return False
    return digest.hexdigest() == sha256

def lay_out(site):
    for name in os.listdir(site):
        if name.endswith(".data"):
            for kind in ("purelib", "platlib"):
                inner = os.path.join(site, name, kind)
                for base, _, files in os.walk(inner):
                    target = os.path.normpath(os.path.join(site, os.path.relpath(base, inner)))
                    os.makedirs(target, exist_ok=True)
                    for file in files:
                        os.replace(os.path.join(base, file), os.path.join(target, file))
            shutil.rmtree(os.path.join(site, name))

def unpack(part):
    site = os.path.join(part, "site")
    for name, sha256 in order["wheels"]:
        with zipfile.ZipFile(os.path.join(incoming, sha256)) as archive:
            archive.extractall(site)
        lay_out(site)
    with open(os.path.join(part, "python"), "w") as file:
        file.write("#!/bin/sh\n# Made by edgewright device setup.\n")
        file.write("PYTHONPATH=%s${PYTHONPATH:+:$PYTHONPATH}\n" % shlex.quote(home + "/site"))
        file.write("export PYTHONPATH\nexec %s \"$@\"\n" % shlex.quote(order["python"]))
    os.chmod(os.path.join(part, "python"), 0o755)
    os.sync()

def work():
    if os.path.exists(launcher):
        return {"ready": launcher}
    missing = [pair[1] for pair in order["wheels"] if not whole(*pair)]
    if missing:
        return {"missing": missing}
    part = "%s.part-%d" % (home, os.getpid())
    try:
        unpack(part)
        shutil.rmtree(home, ignore_errors=True)
        os.rename(part, home)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(incoming, ignore_errors=True)
    return {"ready": launcher}

try:
    answer = work()
except OSError as error:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    answer = {"error": "its disk is full" if full else str(error)}
except (ValueError, RuntimeError, zipfile.BadZipFile) as error:
    answer = {"error": "%s: %s" % (type(error).__name__, error)}
print(json.dumps(answer))
"""
