"""
Ask a running server once on every surface, as a stranger with nothing but Python would.

    KADOGO_KEY=... python3 deploy/ask.py http://127.0.0.1:3000 --wait 60

Ends with 1 and a sentence at the first answer that is not as promised. Knows nothing of ours.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

TEXT = "Aisha Bello ta tafi Kano ranar Juma'a."
NEWS = "Timu ya taifa ilishinda mechi ya soka kwa mabao matatu katika uwanja wa Nairobi."
LONGEST_S = 30
_open = build_opener(ProxyHandler({})).open


class Wrong(Exception):
    """An answer that is not as promised."""


class Server:
    """A server by its address, with a key or without."""

    def __init__(self, host: str, key: str) -> None:
        self._host = host.rstrip("/")
        self._key = key

    def ask(self, path: str, body: Any = None, *, key: bool = True) -> tuple[int, bytes]:
        """The status and the body of the answer; POST where there is a body to send."""
        headers = {"Content-Type": "application/json"}
        if key and self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            with _open(Request(self._host + path, data, headers), timeout=LONGEST_S) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            return error.code, error.read()

    def json(self, path: str, body: Any = None) -> Any:
        status, answer = self.ask(path, body)
        if status != 200:
            raise Wrong(f"{path} answered {status}: {answer[:300]!r}")
        return json.loads(answer)

    def wait(self, seconds: float) -> None:
        """Until it is ready. Raises `Wrong` where it is not in time."""
        end = time.monotonic() + seconds
        while True:
            try:
                if self.ask("/readyz")[0] == 200:
                    return
            except (URLError, OSError):
                pass
            if time.monotonic() > end:
                raise Wrong(f"not ready within {seconds:g} s")
            time.sleep(0.1)


def ask_all(server: Server) -> list[str]:
    """What answered as promised. Raises `Wrong`."""
    asked = []

    def hold(name: str, kept: bool) -> None:
        if not kept:
            raise Wrong(f"{name} is not as promised")
        asked.append(name)

    found = server.json("/v1/variants")["variants"]
    names = {each["name"]: each["task"] for each in found if each["state"] == "ready"}
    hold("/v1/variants", bool(names))
    for name, task in names.items():
        path, text = ("/v1/ner", TEXT) if task == "ner" else ("/v1/classify", NEWS)
        said = server.json(path, {"inputs": text, "variant": name})
        hold(f"{path} of {name}", said["variant"] == name and len(said["results"]) == 1)
    ner = [name for name, task in names.items() if task == "ner"]
    if ner:
        hold(
            "/v1/compare", "results" in server.json("/v1/compare", {"inputs": TEXT, "task": "ner"})
        )
        flat = server.json(f"/models/{ner[0]}", {"inputs": TEXT})
        hold("/models", isinstance(flat, list))
        tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXT]}
        inferred = server.json(f"/v2/models/{ner[0]}/infer", {"inputs": [tensor]})
        hold("/v2/models/.../infer", bool(inferred["outputs"]))
        hold("/v2/models", server.json(f"/v2/models/{ner[0]}")["name"] == ner[0])
        hold("/ner, BentoML's own", bool(server.json("/ner", {"inputs": TEXT})))
    if len(ner) < len(names):
        hold("/classify, BentoML's own", bool(server.json("/classify", {"inputs": NEWS})))
    hold("/v2", server.json("/v2")["name"] == "kadogo")
    hold("/v1/status", "variants" in server.json("/v1/status"))
    hold("/openapi.json", "paths" in server.json("/openapi.json"))
    status, page = server.ask("/", key=False)
    hold("/", status == 200 and b"<html" in page.lower())
    files = re.findall(r'(?:href|src)="(page/[^"]+)"', page.decode())
    hold(
        "/page", bool(files) and all(server.ask(f"/{each}", key=False)[0] == 200 for each in files)
    )
    status, page = server.ask("/docs")
    hold("/docs", status == 200 and b"<html" in page.lower())
    probes = ("/livez", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
    hold("the probes", all(server.ask(each, key=False)[0] == 200 for each in probes))
    # Without the scope admin nobody is told of changes.
    hold("/v1/generations", server.ask("/v1/generations")[0] in (200, 403))
    metrics = server.ask("/metrics", key=False)[1].decode()
    hold("/metrics", all(f'variant="{name}"' in metrics for name in names))
    if server.ask("/v1/status", key=False)[0] != 200:
        hold("the key", server.ask("/v1/ner", {"inputs": TEXT}, key=False)[0] == 401)
    hold("bad input", server.ask("/v1/ner", {"inputs": 1})[0] == 422)
    return asked


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("host")
    parser.add_argument("--wait", type=float, default=0, help="seconds until it must be ready")
    args = parser.parse_args()
    server = Server(args.host, os.environ.get("KADOGO_KEY", ""))
    try:
        server.wait(args.wait)
        print(f"{args.host}: {len(ask_all(server))} of the surfaces asked answered as promised")
    except Wrong as error:
        print(f"{args.host}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
