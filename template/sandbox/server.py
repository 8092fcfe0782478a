"""The HTTP server of the stand-ins, built on raw sockets so that it can break off anywhere.

`Sandbox` takes scripted faults and tells what it received, by its methods from any thread and by
HTTP under `/_sandbox` from any process.
"""

import asyncio
import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import h11
import pydantic.dataclasses
from pydantic import PositiveInt, TypeAdapter, ValidationError

from sandbox.connection import Connection
from sandbox.faults import Ending, Fault, scripted_answer
from sandbox.model import NO_EXTRA, Reply
from sandbox.vendors import Answer, Request, Vendor, discover, json_answer

USAGE = "GET /_sandbox/requests, POST /_sandbox/faults, DELETE /_sandbox"


@dataclass(slots=True)
class ReceivedRequest:
    """One request that a stand-in received. A header that holds a key tells only whose it was."""

    arrived_at_seconds: float
    """On the monotonic clock."""
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    status: int | None = None
    """`None` as long as no header went out."""
    complete: bool = False
    client_gone: bool = False
    """The client closed the connection before the end of the answer."""


@pydantic.dataclasses.dataclass(frozen=True, config=NO_EXTRA)
class Script:
    """The body of `POST /_sandbox/faults`. `times: null` repeats the faults until the reset."""

    vendor: str
    faults: list[Fault]
    times: PositiveInt | None = 1


@dataclass(slots=True)
class _Stage:
    """One vendor, the answers scripted for it, and what it has received."""

    vendor: Vendor
    queue: deque[Fault] = field(default_factory=deque)
    forever: Iterator[Fault] = field(default_factory=lambda: itertools.repeat(Fault()))
    received: list[ReceivedRequest] = field(default_factory=list)
    scripted: bool = False


class Sandbox:
    """All vendors' stand-ins on one port. Methods that are not async may be called anywhere."""

    def __init__(self) -> None:
        self.url = ""
        self._vendors = discover()
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.reset()

    @classmethod
    @contextmanager
    def in_thread(cls, host: str = "127.0.0.1", port: int = 0) -> Iterator["Sandbox"]:
        """A started sandbox that runs in a thread of its own until the block ends."""
        sandbox, loop = cls(), asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="sandbox", daemon=True)
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(sandbox.start(host, port), loop).result()
            yield sandbox
        finally:
            asyncio.run_coroutine_threadsafe(sandbox.close(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Port 0 takes a free one; `url` tells which."""
        self._server = await asyncio.start_server(self._serve, host, port, backlog=1024)
        self.url = f"http://{host}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Stops listening and drops every connection, stalled ones too."""
        if self._server is None:
            return
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    def environment(self, given: Mapping[str, str] | None = None) -> dict[str, str]:
        """The variables that point the service at the stand-ins.

        A vendor whose base URL is `given` is left out whole, and any other's key is always the
        stand-in's: no real key goes to a stand-in.
        """
        variables: dict[str, str] = {}
        for vendor in self._vendors.values():
            own = vendor.environment(self.url)
            if not any(name.endswith("_BASE_URL") and (given or {}).get(name) for name in own):
                variables |= own
        return variables

    @property
    def vendors(self) -> tuple[str, ...]:
        return tuple(self._vendors)

    @property
    def scripted(self) -> tuple[str, ...]:
        """The vendors whose answers were set since the last `reset`."""
        with self._lock:
            return tuple(name for name, stage in self._stages.items() if stage.scripted)

    def script(
        self, vendor: str, answers: Iterable[Fault | Reply], *, times: int | None = 1
    ) -> None:
        """Sets how the vendor's next requests are answered, one each, then all is normal again.

        `times` repeats the whole list; `None` does so until `reset`.
        """
        faults = [Fault(reply=item) if isinstance(item, Reply) else item for item in answers]
        with self._lock:
            stage = self._stage(vendor)
            stage.scripted = True
            if times is None:
                stage.forever = itertools.cycle(faults or [Fault()])
            else:
                stage.queue.extend(faults * times)

    def requests(self, vendor: str) -> list[ReceivedRequest]:
        """What the vendor has received, in order of arrival."""
        with self._lock:
            return list(self._stage(vendor).received)

    def reset(self) -> None:
        """Forgets everything scripted and received."""
        with self._lock:
            self._stages = {name: _Stage(vendor) for name, vendor in self._vendors.items()}

    def _stage(self, vendor: str) -> _Stage:
        if vendor not in self._stages:
            raise ValueError(f"no vendor {vendor!r}; there are {', '.join(self._stages)}")
        return self._stages[vendor]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        connection = Connection(reader, writer)
        try:
            while received := await connection.receive():
                if not await self._handle(connection, *received):
                    break
                connection.start_next_cycle()
        except (ConnectionError, h11.ProtocolError):
            pass
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.close()
            self._connections.discard(task)

    async def _handle(self, connection: Connection, head: h11.Request, content: bytes) -> bool:
        """Answers one request. Whether the connection can take another."""
        url = urlsplit(head.target.decode())
        path = url.path
        method = head.method.decode()
        for vendor in self._vendors.values():
            if path.startswith(f"{vendor.prefix}/"):
                headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
                path = path.removeprefix(vendor.prefix)
                number, body = next(self._numbers), _parsed(content)
                request = Request(number, method, path, headers, body, url.query)
                fault, record = self._receive(vendor, request)
                return await self._perform(connection, vendor, request, fault, record)
        status, body = self._control(method, path, content)
        await connection.answer(json_answer(status, body, {}))
        return connection.is_reusable

    def _receive(self, vendor: Vendor, request: Request) -> tuple[Fault, ReceivedRequest]:
        headers = {
            name: _whose(value, vendor) if name.endswith(("authorization", "api-key")) else value
            for name, value in request.headers.items()
        }
        record = ReceivedRequest(
            time.monotonic(), request.method, request.path, headers, request.body
        )
        with self._lock:
            stage = self._stages[vendor.name]
            stage.received.append(record)
            return stage.queue.popleft() if stage.queue else next(stage.forever), record

    async def _perform(
        self,
        connection: Connection,
        vendor: Vendor,
        request: Request,
        fault: Fault,
        record: ReceivedRequest,
    ) -> bool:
        """Plays the answer for as long as the client is there to hear it."""
        work = asyncio.create_task(_play(connection, vendor, request, fault, record))
        gone = asyncio.create_task(connection.wait_closed_by_client())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            else:
                record.client_gone = not record.complete
            return connection.is_reusable
        except ConnectionError:
            record.client_gone = not record.complete
            return False
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    def _control(self, method: str, path: str, content: bytes) -> tuple[int, Any]:
        match method, path:
            case "GET", "/_sandbox/requests":
                received = {name: self.requests(name) for name in self._vendors}
                return 200, {
                    name: {"count": len(items), "requests": [asdict(item) for item in items]}
                    for name, items in received.items()
                }
            case "POST", "/_sandbox/faults":
                try:
                    script = TypeAdapter(Script).validate_json(content)
                    self.script(script.vendor, script.faults, times=script.times)
                except ValidationError as error:
                    return 400, {"error": "; ".join(_complaints(error))}
                except ValueError as error:
                    return 400, {"error": str(error)}
                return 200, {"vendor": script.vendor, "faults": len(script.faults)}
            case "DELETE", "/_sandbox":
                self.reset()
                return 200, {"reset": True}
            case _:
                prefixes = ", ".join(vendor.prefix for vendor in self._vendors.values())
                return 404, {"error": f"nothing here; vendors: {prefixes}; control: {USAGE}"}


async def _play(
    connection: Connection,
    vendor: Vendor,
    request: Request,
    fault: Fault,
    record: ReceivedRequest,
) -> None:
    await asyncio.sleep(fault.delay_seconds)
    answer, ending = scripted_answer(fault, vendor, request)
    if not fault.precedes_headers:
        record.status = answer.status
        await connection.send_head(answer, ending)
        await _play_body(connection, answer, ending, fault, record)
    match ending:
        case "reset":
            await connection.reset()
        case "stall":
            await asyncio.Event().wait()
        case "endless":
            filler = answer.pieces[-1].data if answer.is_stream and answer.pieces else b" " * 64
            while True:
                await connection.send(h11.Data(data=filler))
                await asyncio.sleep(fault.drip_seconds or 0.001)


async def _play_body(
    connection: Connection, answer: Answer, ending: Ending, fault: Fault, record: ReceivedRequest
) -> None:
    parts = list(_parts(answer, fault)) or [(0.0, b"")]
    for number, (pause_seconds, data) in enumerate(parts, 1):
        await asyncio.sleep(pause_seconds)
        record.complete = ending == "end" and number == len(parts)
        end = [h11.EndOfMessage()] if record.complete else []
        await connection.send(h11.Data(data=data), *end)


def _parts(answer: Answer, fault: Fault) -> Iterator[tuple[float, bytes]]:
    """What goes out in one go, and the pause before it."""
    for piece in answer.pieces:
        pause_seconds = fault.reply.chunk_delay_seconds if piece.is_chunk else 0.0
        if fault.drip_seconds is None:
            yield pause_seconds, piece.data
        else:
            yield from ((fault.drip_seconds, bytes([byte])) for byte in piece.data)


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _whose(value: str, vendor: Vendor) -> str:
    return "the sandbox's key" if value.split()[-1:] == [vendor.api_key] else "another key"


def _complaints(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        yield f"{'.'.join(str(place) for place in item['loc']) or 'body'}: {item['msg']}"
