"""Workers import Uvicorn without its command line; apps that use it get it."""

from __future__ import annotations

import subprocess
import sys

UNUSED = ("click", "multiprocessing", "watchfiles")

CODE = f"""
import sys
import servd.worker.template
from servd.worker.runtime import import_runtime
import_runtime()
print(sorted(sys.modules.keys() & {set(UNUSED)}))
import uvicorn
from uvicorn import Server, main, run
assert Server is uvicorn.server.Server is uvicorn.Server
try:
    run("no_such_module:app", log_config=None)
except SystemExit as end:
    print(end.code)
main(["--version"], standalone_mode=False)
import uvicorn.main
uvicorn.main.main(["--version"], standalone_mode=False)
"""


def test_the_command_line_is_imported_when_it_is_used() -> None:
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    unused, status, *versions = result.stdout.splitlines()
    assert unused == "[]"
    assert int(status) > 0
    assert len(versions) == 2
    assert versions[0].startswith("Running uvicorn ")
