"""A TCP proxy that holds back every byte for a while: a broker further away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread


@contextmanager
def delayed(host: str, port: int, seconds: float) -> Iterator[int]:
    """Listen on a port of its own, which is given, and pass on to `host`:`port` and back.

    `seconds` is what a round trip takes more, half of it on each way. What is under way is not
    limited, so a pipeline is not slowed down by more than that.
    """
    loop = asyncio.new_event_loop()
    ready, places = Event(), []

    async def serve() -> None:
        async def pair(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection(host, port)
            await asyncio.gather(
                _carry(reader, back, seconds / 2), _carry(there, writer, seconds / 2)
            )

        server = await asyncio.start_server(pair, "127.0.0.1", 0)
        places.append(server.sockets[0].getsockname()[1])
        ready.set()
        async with server:
            await server.serve_forever()

    task = loop.create_task(serve())

    def run() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        finally:
            rest = asyncio.all_tasks(loop)
            for each in rest:
                each.cancel()
            if rest:
                loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
            loop.close()

    thread = Thread(target=run, daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield places[0]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float
) -> None:
    loop = asyncio.get_running_loop()
    held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, data = await held.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            writer.write(data)
            if not data:
                writer.close()
                return

    delivery = loop.create_task(deliver())
    try:
        while data := await reader.read(65536):
            held.put_nowait((loop.time() + seconds, data))
    except ConnectionError:
        pass
    held.put_nowait((loop.time() + seconds, b""))
    await delivery
