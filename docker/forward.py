"""The `debug` profile of docker-compose.yml: ports of the closed network, `HOST:PORT` each, on the same ports here."""

import asyncio
import sys
from asyncio import StreamReader, StreamWriter


async def pump(source: StreamReader, sink: StreamWriter) -> None:
    """Copy until SOURCE ends; then SINK hears that it did."""
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass  # one side is gone: closing tells the other
    finally:
        sink.close()


async def forward(host: str, port: int) -> None:
    """Accept connections for ever."""

    async def meet(reader: StreamReader, writer: StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError as error:
            print(f"{host}:{port}: {error}", flush=True)
            writer.close()
            return
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    server = await asyncio.start_server(meet, "0.0.0.0", port)  # noqa: S104 - of its container
    await server.serve_forever()


async def main(places: list[str]) -> None:
    """One server for each of PLACES."""
    await asyncio.gather(*(forward(host, int(port)) for host, _, port in (place.partition(":") for place in places)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
