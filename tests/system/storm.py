"""Many requests at once, from the client's side of the network; standard library only, because it runs on the lab's client.

As a program it reads a JSON plan and prints JSON: [status, seconds] of every request, in the order of their end.
{"host", "port", "path", "connections", "requests" per connection, "credential": a header, or "" for a new wrong one each time}
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
import uuid
from base64 import b64encode
from typing import Any


async def storm(plan: dict[str, Any], context: ssl.SSLContext) -> list[tuple[int, float]]:
    results: list[tuple[int, float]] = []

    def wrong() -> str:
        return "Basic " + b64encode(f"{uuid.uuid4()}:{uuid.uuid4()}".encode()).decode()

    async def one() -> None:
        start = time.monotonic()  # the first request pays for the connection
        reader, writer = await asyncio.open_connection(
            plan["host"], plan["port"], ssl=context, server_hostname=plan.get("hostname", plan["host"])
        )
        try:
            for _ in range(plan["requests"]):
                credential = plan["credential"] or wrong()
                writer.write(
                    f"GET {plan['path']} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {credential}\r\n\r\n".encode()
                )
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = head.partition("content-length:")[2].partition("\r\n")[0]
                await reader.readexactly(int(length or 0))
                results.append((int(head.split()[1]), time.monotonic() - start))
                start = time.monotonic()
        finally:
            writer.close()

    await asyncio.gather(*(one() for _ in range(plan["connections"])))
    return results


if __name__ == "__main__":
    print(json.dumps(asyncio.run(storm(json.load(sys.stdin), ssl.create_default_context()))))
