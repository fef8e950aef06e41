"""A client of the protocol over `websockets`: what it must remember, and nothing more."""

import asyncio
import json
import os
import ssl
import time
import urllib.request
import uuid

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

WAIT_S = 10
URL = os.environ["TEST_URL"].replace("http", "ws", 1) + "/ws"   # https becomes wss
TRUSTED = ssl.create_default_context(cafile=os.environ["TEST_CA"]) if URL.startswith("wss:") else None


def token(user: int) -> str:
    return os.environ[f"TEST_TOKEN_{user}"]


async def control(action: str) -> None:
    """/kill or /start of the server that tests/with_server.py owns."""
    request = urllib.request.Request(f"{os.environ['TEST_CONTROL']}/{action}", method="POST")
    await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=60).close())


def uuid7() -> str:
    bits = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    bits = bits & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=bits & ~(0x3 << 62) | 0x2 << 62))


class Json:
    """Text frames."""

    SUBPROTOCOL = "switchboard.v1.json"
    encode = staticmethod(json.dumps)
    decode = staticmethod(json.loads)


def encoding_of(name: str):
    if name == "json":
        return Json
    import proto   # its classes are generated: they are not always there

    return proto


class Client:
    """One connection: frames are taken in the order they came, by what they are; none is thrown away unseen."""

    def __init__(self, socket, encoding=Json):
        self.socket = socket
        self.encoding = encoding
        self.unread: list[dict] = []
        self.changed = asyncio.Condition()
        self.reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, user: int, encoding: str = "json") -> "Client":
        headers, encoding = {"Authorization": f"Bearer {token(user)}"}, encoding_of(encoding)
        socket = await connect(URL, subprotocols=[encoding.SUBPROTOCOL], additional_headers=headers, ssl=TRUSTED)
        assert socket.subprotocol == encoding.SUBPROTOCOL, f"the server agreed on {socket.subprotocol}"
        return cls(socket, encoding)

    async def _read(self) -> int:
        try:
            async for message in self.socket:
                async with self.changed:
                    self.unread.append(self.encoding.decode(message))
                    self.changed.notify_all()
        except ConnectionClosed:
            pass
        return self.socket.close_code

    async def post(self, frame: dict) -> None:
        await self.socket.send(self.encoding.encode(frame))

    async def take(self, fits) -> dict:
        """The first frame for which `fits` is true; earlier ones that don't fit stay."""
        async def wait() -> dict:
            async with self.changed:
                await self.changed.wait_for(lambda: any(map(fits, self.unread)))
                frame = next(filter(fits, self.unread))
                self.unread.remove(frame)
                return frame
        try:
            return await asyncio.wait_for(wait(), WAIT_S)
        except TimeoutError:
            raise AssertionError(f"nothing that fits within {WAIT_S} s; unread: {self.unread}") from None

    async def type(self, name: str) -> dict:
        return await self.take(lambda frame: frame["type"] == name)

    async def event(self, message: str) -> dict:
        return await self.take(lambda frame: frame["type"] == "event" and frame.get("id") == message)

    def events(self) -> list[dict]:
        """The events not taken yet; takes them."""
        found = [frame for frame in self.unread if frame["type"] == "event"]
        self.unread = [frame for frame in self.unread if frame["type"] != "event"]
        return found

    async def attach(self, **hello) -> tuple[dict, list[dict], dict]:
        """hello; the welcome, what was missed, and live."""
        await self.post({"type": "hello", "version": 1, **hello})
        welcome, live = await self.type("welcome"), await self.type("live")
        return welcome, self.events(), live

    async def send(self, to: str, text: str, message: str, **more) -> dict:
        """Sends a text; the answer, whatever it is."""
        await self.post({"type": "send", "id": message, "to": to, "kind": "text", "body": {"text": text}, **more})
        return await self.take(lambda frame: frame.get("id") == message and frame["type"] != "event")

    async def close(self) -> int:
        await self.socket.close()
        return await self.reader

    async def closed(self) -> int:
        return await asyncio.wait_for(asyncio.shield(self.reader), WAIT_S)
