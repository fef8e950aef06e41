"""A tunnel for a client that speaks no TLS: each plain connection becomes one over TLS, by OpenSSL, and ends when that one ends."""

import asyncio
import logging
import ssl
import threading


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.close()


def open_tunnel(host: str, port: int, ca: str) -> int:
    """Serves for as long as the process runs; the local port."""
    trusted = ssl.create_default_context(cafile=ca)
    opened: list[int] = []
    is_open = threading.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port, ssl=trusted, server_hostname=host)
        except OSError:
            return writer.close()
        await asyncio.gather(_carry(reader, far_writer), _carry(far_reader, writer))

    async def serve() -> None:
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        opened.append(server.sockets[0].getsockname()[1])
        is_open.set()
        await server.serve_forever()

    # tasks that stand when the process ends are no news
    logging.getLogger("asyncio").disabled = True
    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    is_open.wait()
    return opened[0]
