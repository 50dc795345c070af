"""The load that wrk cannot make; runs on the host `load`, standard library only. Reads a JSON plan, prints JSON.

upload: {"url", "authorization", "prefix", "count", "workers"} → {"seconds", "statuses"}; each worker keeps one connection.
burst:  {"url", "authorization", "paths", "clients", "seconds"} → {"times", "errors"}; each client has its own connection, asks
for the paths one after the other, and must be through within `seconds`.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import io
import json
import socket
import ssl
import sys
import threading
import time
import zipfile
from typing import Any
from urllib.parse import urlsplit

INSECURE = ssl.create_default_context()
INSECURE.check_hostname = False
INSECURE.verify_mode = ssl.CERT_NONE


def wheel(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "x" * 300)
        info = f"{name}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


def form(name: str) -> bytes:
    content = wheel(name)
    fields = {":action": "file_upload", "protocol_version": "1", "filetype": "bdist_wheel", "pyversion": "py3"}
    fields |= {
        "metadata_version": "2.1",
        "name": name,
        "version": "1.0",
        "sha256_digest": hashlib.sha256(content).hexdigest(),
    }
    part = "--limit\r\nContent-Disposition: form-data; name="
    text = "".join(f'{part}"{key}"\r\n\r\n{value}\r\n' for key, value in fields.items())
    text += f'{part}"content"; filename="{name}-1.0-py3-none-any.whl"\r\nContent-Type: application/octet-stream\r\n\r\n'
    return text.encode() + content + b"\r\n--limit--\r\n"


def upload(plan: dict[str, Any]) -> dict[str, Any]:
    url = urlsplit(plan["url"])
    todo = [form(f"{plan['prefix']}{number:04}") for number in range(plan["count"])]
    statuses: list[int] = []
    headers = {"Content-Type": "multipart/form-data; boundary=limit", "Authorization": plan["authorization"]}

    def work() -> None:
        where = url.hostname or "", url.port
        connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection(*where, context=INSECURE)
            if url.scheme == "https"
            else http.client.HTTPConnection(*where)
        )
        while todo:
            try:
                body = todo.pop()
            except IndexError:
                break
            connection.request("POST", url.path, body, headers)
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)

    start = time.monotonic()
    threads = [threading.Thread(target=work) for _ in range(plan["workers"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"seconds": time.monotonic() - start, "statuses": statuses}


async def read_body(reader: asyncio.StreamReader, head: str) -> None:
    """RFC 9112, 6.3; the head in lower case."""
    if "transfer-encoding: chunked" not in head:
        left = int(head.partition("content-length:")[2].partition("\r\n")[0])
        while left:
            left -= len(await reader.readexactly(min(left, 1 << 16)))
        return
    size = 1
    while size:
        size = int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)
        await reader.readexactly(size + 2)


async def burst(plan: dict[str, Any]) -> dict[str, Any]:
    url = urlsplit(plan["url"])
    secure = INSECURE if url.scheme == "https" else None
    port = url.port or (443 if secure else 80)
    address = socket.gethostbyname(url.hostname or "")  # once: it is not the name server that is measured
    times: list[float] = []
    errors: list[str] = []

    async def one() -> None:
        start = time.monotonic()
        try:
            async with asyncio.timeout(plan["seconds"]):
                reader, writer = await asyncio.open_connection(address, port, ssl=secure)
                for path in plan["paths"]:
                    head = f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\nAccept-Encoding: gzip\r\n"
                    head += f"Authorization: {plan['authorization']}\r\n\r\n"
                    writer.write(head.encode())
                    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                    await read_body(reader, answer)
                    if answer.split()[1] != "200":
                        raise ValueError(f"status {answer.split()[1]}")
                writer.close()
            times.append(time.monotonic() - start)
        except (OSError, ValueError, EOFError, TimeoutError) as error:
            errors.append(f"{type(error).__name__} {error}")

    await asyncio.gather(*(one() for _ in range(plan["clients"])))
    return {"times": times, "errors": errors}


if __name__ == "__main__":
    plan = json.load(sys.stdin)
    print(json.dumps(upload(plan) if plan["work"] == "upload" else asyncio.run(burst(plan))))
