"""Put on a process's path, this denies it every connection beyond loopback, and says so.

An audit hook sees what Python's sockets do. uvloop looks names up and connects in C, past the hook,
so those two doors of its loop are closed as well.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Callable
from typing import Any

ADDRESS_AT = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1}
NAME_AT = {"socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.gethostbyaddr": 0}


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ADDRESS_AT:
        address = arguments[ADDRESS_AT[event]]
        if isinstance(address, tuple):  # else a path in the file system, or none at all
            check(event, address[0])
    elif event in NAME_AT:
        check(event, arguments[NAME_AT[event]])


def check(event: str, host: str | bytes | None) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if not is_loopback(name):
        os.write(2, f"DENIED {event} to {name}\n".encode())
        raise PermissionError(f"{event} to {name} is denied")


def is_loopback(name: str | None) -> bool:
    if name in (None, "", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(name or "")
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def guarded(original: Callable[..., Any], host_at: int) -> Callable[..., Any]:
    async def call(*arguments: Any, **named: Any) -> Any:
        host = arguments[host_at] if len(arguments) > host_at else named.get("host")
        check(f"uvloop.{original.__name__}", host)
        return await original(*arguments, **named)

    return call


def close_the_doors_of_uvloop() -> None:
    try:
        import uvloop
    except ImportError:
        return
    for name, host_at in (("create_connection", 2), ("getaddrinfo", 1)):
        setattr(uvloop.Loop, name, guarded(getattr(uvloop.Loop, name), host_at))


close_the_doors_of_uvloop()
sys.addaudithook(watch)
os.write(2, b"OFFLINE: sockets beyond loopback are denied\n")
