"""The proof that what boots "offline" could not have reached anything, whichever way it tried."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

OFFLINE = Path(__file__).with_name("offline")
# Reserved for documentation (RFC 5737): nobody answers there, and nothing is disturbed.
ELSEWHERE = "192.0.2.1"

ATTEMPTS = {
    "socket": f"socket.create_connection(('{ELSEWHERE}', 80), 5)",
    "socket-without-exception": f"socket.socket().connect_ex(('{ELSEWHERE}', 80))",
    "datagram": f"socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('{ELSEWHERE}', 53))",
    "ipv6": "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))",
    "name": "socket.getaddrinfo('example.org', 443)",
    "asyncio": f"asyncio.run(asyncio.open_connection('{ELSEWHERE}', 80))",
    "uvloop": f"uvloop.run(asyncio.open_connection('{ELSEWHERE}', 80))",
    "uvloop-name": "uvloop.run(asyncio.open_connection('example.org', 80))",
    "aiohttp-over-uvloop": f"""
        async def get():
            async with aiohttp.ClientSession() as session:
                await session.get('http://{ELSEWHERE}/')

        uvloop.run(get())
        """,
    # What a service without ranks of its own would do.
    "tokenizer": "os.environ['TIKTOKEN_CACHE_DIR'] = ''; tiktoken.get_encoding('o200k_base')",
}
LOOPBACK = """
async def talk():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), '127.0.0.1', 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    print(await reader.read())
    writer.close()
    server.close()

asyncio.run(talk())
uvloop.run(talk())
"""


def run_offline(code: str) -> subprocess.CompletedProcess[str]:
    libraries = "import asyncio, os, socket, aiohttp, tiktoken, uvloop\n"
    return subprocess.run(
        [sys.executable, "-c", libraries + textwrap.dedent(code).strip()],
        env={**os.environ, "PYTHONPATH": str(OFFLINE)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_connection_elsewhere_is_denied(attempt: str) -> None:
    """Each way out is denied at once and leaves a line, though the code may swallow the error."""
    result = run_offline(ATTEMPTS[attempt])
    assert result.returncode != 0
    assert "DENIED" in result.stderr
    assert "PermissionError" in result.stderr


def test_loopback_is_open() -> None:
    """What the service needs to be asked, and to ask its stand-ins, is not denied."""
    result = run_offline(LOOPBACK)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["b''", "b''"]
    assert "OFFLINE" in result.stderr
    assert "DENIED" not in result.stderr
