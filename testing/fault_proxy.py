"""The addon that `testing.servers.FaultProxy` runs in mitmdump; that class says what its rules mean.

Bodies are held back whole: then the log is written before the client sees anything, and nothing is left to chance. For
5 MB bodies that costs a quarter of the throughput that one client has when they are streamed, and nothing with four.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mitmproxy import ctx, http

SLOW_DOWN = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message><RequestId>fault</RequestId></Error>"""
LOGGED_HEADERS = ("If-Match", "If-None-Match", "Range")  # never all of them: credentials are among them
SHARES = ("error", "cut", "cut_after", "corrupt")


class Faults:
    def __init__(self) -> None:
        self._generation = ""
        self._asked: Counter[str] = Counter()
        self._faulted: Counter[str] = Counter()

    def load(self, loader: Any) -> None:
        loader.add_option("fault_rules", str, "", "the file that the rules are read from, at each request")
        loader.add_option("fault_log", str, "", "the file that requests are appended to, a JSON object a line")

    async def request(self, flow: http.HTTPFlow) -> None:
        """All of the request is here, and the server has not been asked."""
        rules = json.loads(Path(ctx.options.fault_rules).read_text())
        path, _, query = flow.request.path.partition("?")
        record = {
            "method": flow.request.method,
            "path": unquote(path),
            "query": [part.partition("=")[0] for part in query.split("&") if part],
            "headers": {name: flow.request.headers[name] for name in LOGGED_HEADERS if name in flow.request.headers},
            "fault": None,
            "status": None,
            "server_status": None,
            "started": flow.request.timestamp_start,
            "seconds": 0.0,
            "request_bytes": len(flow.request.raw_content or b""),
            "response_bytes": 0,
        }
        flow.metadata["record"], flow.metadata["rules"] = record, rules
        fault, flow.metadata["delayed"], flow.metadata["place"] = self._draw(record, rules)
        if flow.metadata["delayed"]:
            record["fault"] = "latency"
            await asyncio.sleep(rules["latency_s"])
        if fault == "cut" and flow.request.method != "GET":
            record["fault"] = fault
            self._done(flow)
            flow.kill()
        elif fault == "error":
            record["fault"] = fault
            body = b"" if flow.request.method == "HEAD" else SLOW_DOWN
            flow.response = http.Response.make(503, body, {"Content-Type": "application/xml"})
        else:
            flow.metadata["intended"] = fault

    async def response(self, flow: http.HTTPFlow) -> None:
        """All of the answer is here, and the client has seen nothing of it."""
        assert flow.response is not None
        record, fault = flow.metadata["record"], flow.metadata.get("intended")
        body = flow.response.raw_content or b""
        if record["fault"] != "error":
            record["server_status"] = flow.response.status_code
        if flow.metadata["delayed"]:
            await asyncio.sleep(flow.metadata["rules"]["answer_latency_s"])
        if fault == "cut_after" or (fault == "cut" and len(body) < 2):
            record["fault"] = fault
            self._done(flow)
            flow.kill()
            return
        if fault == "cut":
            record["fault"] = fault
            flow.response.raw_content = body[: len(body) // 2]
            flow.response.headers.pop("Transfer-Encoding", None)
            flow.response.headers["Content-Length"] = str(len(body))
            flow.response.headers["Connection"] = "close"  # mitmproxy then closes after the half that it has
        elif fault == "corrupt" and body:
            record["fault"] = fault
            bit = int(flow.metadata["place"] * len(body) * 8)
            flow.response.raw_content = b"".join(
                (body[: bit // 8], bytes([body[bit // 8] ^ 1 << bit % 8]), body[bit // 8 + 1 :])
            )
        if flow.client_conn.connected:  # it may have given up during a delay
            record["status"] = flow.response.status_code
            record["response_bytes"] = len(flow.response.raw_content or b"")
        self._done(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        """The client or the server has gone; then mitmproxy answers 502 to a client that is still there."""
        record = flow.metadata.get("record")
        if record is not None and "logged" not in flow.metadata:
            record["status"] = 502 if flow.client_conn.connected else None
            self._done(flow)

    def _draw(self, record: dict[str, Any], rules: dict[str, Any]) -> tuple[str | None, bool, float]:
        """(fault, is it delayed, where in the body) for this request."""
        if rules["generation"] != self._generation:
            self._generation = rules["generation"]
            self._asked.clear()
            self._faulted.clear()
        request = f"{record['method']} {record['path']}"
        self._asked[request] += 1
        chance = random.Random(f"{rules['seed']} {request} {self._asked[request]}")
        which, late, place = chance.random(), chance.random(), chance.random()
        if not re.search(rules["only"], request):
            return None, False, place
        if rules["times"] is not None and self._faulted[request] >= rules["times"]:
            return None, False, place
        delayed = late < rules["latency_share"] and rules["latency_s"] + rules["answer_latency_s"] > 0
        fault, below = None, 0.0
        for name in SHARES:
            below += rules[f"{name}_share"]
            if which < below:
                fault = name
                break
        if fault == "corrupt" and record["method"] != "GET":
            fault = None
        self._faulted[request] += fault is not None or delayed
        return fault, delayed, place

    def _done(self, flow: http.HTTPFlow) -> None:
        flow.metadata["logged"] = True
        record = flow.metadata["record"]
        record["seconds"] = round(time.time() - record["started"], 6)
        descriptor = os.open(ctx.options.fault_log, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, json.dumps(record).encode() + b"\n")
        finally:
            os.close(descriptor)


addons = [Faults()]
