"""One HTTP/1.1 connection: h11 for what is well formed, the bare socket for what is not."""

import asyncio
import socket
import struct
from contextlib import suppress

import h11

from sandbox.faults import Ending
from sandbox.vendors import Answer


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER)

    @property
    def is_reusable(self) -> bool:
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    def start_next_cycle(self) -> None:
        self._http.start_next_cycle()

    async def receive(self) -> tuple[h11.Request, bytes] | None:
        """The next request with its body, or `None` when the client has closed."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(65536))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return head, bytes(body)
            else:
                return None

    async def wait_closed_by_client(self) -> None:
        with suppress(ConnectionError):
            while data := await self._reader.read(65536):
                self._http.receive_data(data)

    async def send(self, *events: h11.Event) -> None:
        """Sends all at once, so that nobody can see the one without the other."""
        self._writer.write(b"".join(self._http.send(event) or b"" for event in events))
        await self._writer.drain()

    async def send_head(self, answer: Answer, ending: Ending) -> None:
        headers = [("content-type", answer.content_type), *answer.headers.items()]
        if ending == "end" and not answer.is_stream:
            length = sum(len(piece.data) for piece in answer.pieces)
            headers.append(("content-length", str(length)))
        await self.send(h11.Response(status_code=answer.status, headers=headers))

    async def answer(self, answer: Answer) -> None:
        await self.send_head(answer, "end")
        for piece in answer.pieces:
            await self.send(h11.Data(data=piece.data))
        await self.send(h11.EndOfMessage())

    async def reset(self) -> None:
        # Bytes still on their way would be lost with the connection.
        await asyncio.sleep(0.02)
        linger = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        self._writer.transport.abort()
