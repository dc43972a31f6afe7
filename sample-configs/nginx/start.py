"""Becomes nginx, after writing down the two addresses that nginx.conf cannot take from the
environment: the one to listen on, and the socket of the service `api`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def main() -> None:
    host, port = sys.argv[1:]
    listen = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    api = json.loads(os.environ["SERVD_DEPENDENCIES"])["api"]["uds"]
    os.makedirs("run", exist_ok=True)
    write("run/listen.conf", f"listen {listen};\n")
    write("run/api.conf", f'server "unix:{api}";\n')

    # As root, nginx would give its workers to "nobody", who cannot reach the socket of `api`.
    settings = "user root;" if os.geteuid() == 0 else ""
    arguments = ["nginx", "-p", os.getcwd(), "-c", "nginx.conf", "-e", "stderr"]
    os.execv(NGINX, [*arguments, "-g", f"daemon off; {settings}"])


if __name__ == "__main__":
    main()
