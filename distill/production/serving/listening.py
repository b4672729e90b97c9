"""Where a service listens: an address, bound before anything heavy is loaded.

Knows sockets; knows nothing of HTTP.
"""

import ipaddress
import socket
from dataclasses import dataclass

from distill.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where and how long to listen.

    Attributes:
        host: to bind to; anything but 127.0.0.1 is open to the network.
        port: 0 takes a free one.
        read_timeout_s: for a client to send a whole request.
        keep_alive_s: for which an idle connection is kept.
        shutdown_s: for requests under way at the end.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    read_timeout_s: float = 10.0
    keep_alive_s: int = 75
    shutdown_s: int = 10


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name
        return False


def open_socket(listening: Listening) -> socket.socket:
    """Bind.

    Raises:
        UserError: the address is taken, or is not this machine's.
    """
    family = socket.AF_INET6 if ":" in listening.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((listening.host, listening.port))
    except OSError as error:
        found.close()
        raise UserError(
            f"Expected to listen at {listening.host}:{listening.port} but found: "
            f"{error.strerror or error}. Name another `port`, or 0 for any that is free."
        ) from error
    return found


def url_of(bound: socket.socket) -> str:
    """Where a socket is reached."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
