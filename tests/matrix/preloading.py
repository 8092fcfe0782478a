"""A process that has loaded what many runs load, and becomes each of them in turn by a fork.

Started by its path in an environment of its own, it knows nothing of this repository. Its arguments
name what to load. It reads orders, one a line, and answers each with the status of its run.
"""

import gc
import importlib
import json
import os
import runpy
import sys
from collections.abc import Sequence


def main() -> None:
    # The folder of this file is no place to import from.
    del sys.path[0]
    load(sys.argv[1:])
    # Else each fork's collector would touch, and so copy, all that they share.
    gc.freeze()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            become(**json.loads(line))
            return
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def load(names: Sequence[str]) -> None:
    """A library that wants to be configured first has done half of its work when it says so: then
    this begins anew, without it."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # a name in a module, or something that is not installed here
        except Exception:
            library = name.partition(".")[0]
            others = [other for other in names if other.partition(".")[0] != library]
            os.execv(sys.executable, [sys.executable, __file__, *others])


def become(
    module: str, arguments: list[str], folder: str, variables: dict[str, str], output: str
) -> None:
    """`python -m module` with its output in a file. Raises what the module raises."""
    nothing, written = os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY | os.O_CREAT)
    for number, opened in ((0, nothing), (1, written), (2, written)):
        os.dup2(opened, number)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
