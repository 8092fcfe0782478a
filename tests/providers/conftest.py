"""Adapters with known keys, and a server that speaks bytes, so that it can misspeak."""

import asyncio
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import pytest
import trustme
from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "template"))

from app.providers.anthropic import Anthropic, AnthropicSettings
from app.providers.gemini import Gemini, GeminiSettings
from app.providers.openai import OpenAI, OpenAISettings
from app.providers.openai_compatible import OpenAICompatible, OpenAICompatibleSettings
from app.providers.transport import Timeouts, Transport

NOW = 1_750_000_000.0  # Sun, 15 Jun 2025 15:06:40 GMT


MakeOpenAI = Callable[..., OpenAI]
MakeAnthropic = Callable[..., Anthropic]
MakeGemini = Callable[..., Gemini]
MakeCompatible = Callable[..., OpenAICompatible]


Loop = tuple[str, dict[str, bool]]
ASYNCIO: Loop = ("asyncio", {})
UVLOOP: Loop = ("asyncio", {"use_uvloop": True})
"""What a service runs on."""


@pytest.fixture
def anyio_backend() -> Loop:
    return ASYNCIO


@pytest.fixture
def openai() -> MakeOpenAI:
    """Makes an adapter; settings by keyword."""

    def make(**settings: Any) -> OpenAI:
        return OpenAI(
            OpenAISettings(api_key=SecretStr("sk-MARKED-KEY"), **settings), now=lambda: NOW
        )

    return make


@pytest.fixture
def anthropic() -> MakeAnthropic:
    """Makes an adapter; settings by keyword."""

    def make(**settings: Any) -> Anthropic:
        return Anthropic(
            AnthropicSettings(api_key=SecretStr("sk-MARKED-KEY"), **settings), now=lambda: NOW
        )

    return make


@pytest.fixture
def gemini() -> MakeGemini:
    """Makes an adapter; settings by keyword."""

    def make(**settings: Any) -> Gemini:
        return Gemini(
            GeminiSettings(api_key=SecretStr("sk-MARKED-KEY"), **settings), now=lambda: NOW
        )

    return make


@pytest.fixture
def openai_compatible() -> MakeCompatible:
    """Makes an adapter; settings by keyword. Tool calls without an id are given made1, made2 ..."""

    def make(**settings: Any) -> OpenAICompatible:
        known: dict[str, Any] = {
            "api_key": SecretStr("sk-MARKED-KEY"),
            "base_url": "http://localhost:11434/v1",
            "model": "qwen3:8b",
            "input_usd_per_mtok": 0,
            "output_usd_per_mtok": 0,
        }
        numbers = count(1)
        return OpenAICompatible(
            OpenAICompatibleSettings(**{**known, **settings}),
            now=lambda: NOW,
            new_call_id=lambda: f"made{next(numbers)}",
        )

    return make


class HasOptions(Protocol):
    """A socket, or what asyncio shows of one."""

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None: ...


def reset_on_close(peer: HasOptions) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@dataclass
class Visit:
    """One connection: what came in on it, and whether the client has hung up."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    requests: list[bytes] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> bytes:
        """The next request, head and body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        self.requests.append(head + await self.reader.readexactly(length))
        return self.requests[-1]

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def wait_for_hang_up(self) -> None:
        while await self.reader.read(65_536):
            pass
        self.hung_up.set()

    def reset(self) -> None:
        """Ends the connection with RST; without the option it would be a plain FIN."""
        if peer := self.writer.get_extra_info("socket"):  # none once it is lost, under TLS
            reset_on_close(peer)
        self.writer.transport.abort()


@dataclass
class RawServer:
    port: int
    visits: list[Visit] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[bytes]:
        return [request for visit in self.visits for request in visit.requests]


Script = Callable[[Visit], Awaitable[object]]


class Serve(Protocol):
    def __call__(
        self, script: Script, tls: ssl.SSLContext | None = None
    ) -> AbstractAsyncContextManager[RawServer]: ...


@pytest.fixture
def serve() -> Serve:
    """Runs a script for every connection, then closes it."""

    @asynccontextmanager
    async def run(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
        running: set[asyncio.Task[None]] = set()

        async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            running.add(task)
            guest = Visit(reader, writer)
            server.visits.append(guest)
            try:
                await script(guest)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                running.discard(task)
                writer.close()

        listener = await asyncio.start_server(visit, "127.0.0.1", 0, ssl=tls)
        server = RawServer(listener.sockets[0].getsockname()[1])
        try:
            yield server
        finally:
            listener.close()
            for task in list(running):
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    return run


class Connect(Protocol):
    def __call__(
        self, base_url: str, **limits: float
    ) -> AbstractAsyncContextManager[Transport]: ...


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Signs certificates; nobody believes it unless told to."""
    return trustme.CA()


IssueCertificate = Callable[[str], ssl.SSLContext]


@pytest.fixture(scope="session")
def certified(authority: trustme.CA) -> IssueCertificate:
    """What a server of that name, or address, needs for TLS."""

    def issue(name: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(context)
        return context

    return issue


@pytest.fixture
def trusted(
    authority: trustme.CA, clean_network: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Has the authority believed, by the variable that OpenSSL reads."""
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))


@pytest.fixture
def clean_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither proxies nor certificates of whoever runs the tests."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def connect(clean_network: None) -> Connect:
    """Opens a transport with limits of fractions of a second and of a few kilobytes, or others."""

    @asynccontextmanager
    async def run(base_url: str, **limits: float) -> AsyncIterator[Transport]:
        limits = {
            "connect_seconds": 0.4,
            "first_byte_seconds": 0.6,
            "idle_seconds": 0.3,
            "keep_alive_seconds": 10,
            "max_connections": 4,
            **limits,
        }
        transport = Transport(
            base_url,
            Timeouts(
                limits["connect_seconds"], limits["first_byte_seconds"], limits["idle_seconds"]
            ),
            max_reply_bytes=10_000,
            max_connections=int(limits["max_connections"]),
            keep_alive_seconds=limits["keep_alive_seconds"],
        )
        try:
            yield transport
        finally:
            await transport.aclose()

    return run
