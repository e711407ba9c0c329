"""The demo as its own process, without any network but this machine: python demo_server.py FILE.

Prints its address, serves until its standard input ends, and writes to FILE what it tried to reach elsewhere.
"""

import socket
import sys
from pathlib import Path
from typing import Any

HERE = (None, "127.0.0.1", "::1", "localhost")


def block_network(log: Path) -> None:
    """Lets connections and look-ups of other machines fail, and writes them down."""
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def refuse(host: Any) -> None:
        with log.open("a") as file:
            file.write(f"{host}\n")
        raise OSError(f"there is no network here, and {host} was asked for")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in HERE:
            refuse(address[0])
        return connect(self, address)

    def guarded_resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in HERE:
            refuse(host)
        return resolve(host, *args, **kwargs)

    socket.socket.connect = guarded_connect
    socket.getaddrinfo = guarded_resolve


if __name__ == "__main__":
    Path(sys.argv[1]).touch()
    block_network(Path(sys.argv[1]))  # before anything is imported that might look for news

    from mosaics.demo import launch

    page = launch(block=False)
    print(f"serving at {page.local_url}", flush=True)
    sys.stdin.read()
    page.close()
