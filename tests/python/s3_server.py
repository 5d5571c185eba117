"""An S3-compatible server on loopback behind a proxy that counts and fails as it is told.

Run as a script, in a process of its own: one JSON command a line on stdin, one JSON answer a line on stdout.
    {"rules": [...]}  sets the rules (below), lets go who was held up, empties the log
    {"log": true}     the requests so far
Each carries a "number", which its answer has too.
A rule is {"method": "GET", "key": part of the name, "skip": how many pass before, "times": how many then fail
(default: all), "from" and "to": where the range that is asked for begins, "fault": see Proxy.answer,
"seconds": for "delay"}.
"""

from __future__ import annotations

import http.client
import json
import logging
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from moto.server import ThreadedMotoServer


class State:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reset([])

    def reset(self, rules: list[dict[str, Any]]) -> None:
        with self.lock:
            self.rules = rules
            self.log: list[dict[str, Any]] = []
            self.at_once = self.most_at_once = 0
            self.release = threading.Event()

    def fault(self, method: str, path: str, range_header: str) -> dict[str, Any]:
        """The rule that applies to this request."""
        begin = int(range_header.removeprefix("bytes=").split("-")[0] or 0)
        with self.lock:
            for rule in self.rules:
                if rule.get("method", "GET") != method or rule.get("key", "") not in path:
                    continue
                if not rule.get("from", 0) <= begin < rule.get("to", 1 << 60):
                    continue
                if rule.get("skip", 0) > 0:
                    rule["skip"] -= 1
                elif rule.get("times", 1) > 0:
                    rule["times"] = rule.get("times", 1 << 30) - 1
                    return rule
            return {}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, address: Any) -> None:
        """Clients leave when they like."""


def make_proxy(state: State, host: str, port: int) -> Server:
    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            with state.lock:
                state.at_once += 1
                state.most_at_once = max(state.most_at_once, state.at_once)
            try:
                self.pass_on()
            finally:
                with state.lock:
                    state.at_once -= 1

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            rule = state.fault(self.command, self.path, self.headers.get("Range", ""))
            release = state.release
            entry = {
                "method": self.command,
                "path": self.path,
                "range": self.headers.get("Range"),
                "fault": rule.get("fault"),
                "bytes": 0,
            }
            with state.lock:
                state.log.append(entry)
            backend = http.client.HTTPConnection(host, port)
            backend.request(self.command, self.path, body, dict(self.headers.items()))
            answer = backend.getresponse()
            content = answer.read()
            backend.close()
            entry["bytes"] = len(content)
            headers = [
                (name, value)
                for name, value in answer.getheaders()
                if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server")
            ]
            length = answer.getheader("Content-Length") if self.command == "HEAD" else len(content)
            self.answer(rule, release, answer.status, headers, length or 0, content)

        def answer(
            self,
            rule: dict[str, Any],
            release: threading.Event,
            status: int,
            headers: list[tuple[str, str]],
            length: int | str,
            content: bytes,
        ) -> None:
            fault = rule.get("fault")
            if fault == "stall":  # Nothing comes any more.
                release.wait(150)
                self.close_connection = True
                return
            if fault == "hang_up":
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            if fault == "no_http":
                self.wfile.write(b"220 wrong service\r\n")
                self.close_connection = True
                return
            if fault in ("403", "404", "500", "503"):
                status, headers, content, length = int(fault), [], b"", 0
            elif fault == "garbage":
                content = bytes(len(content))
            elif fault == "short":  # An answer that is complete, of fewer bytes than were asked for.
                content = content[: len(content) // 2]
                length = len(content)
                headers = [(name, value) for name, value in headers if name.lower() != "content-range"]
            elif fault == "delay":
                release.wait(rule["seconds"])
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if fault == "cut":
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            elif self.command != "HEAD":
                self.wfile.write(content)

    return Server(("127.0.0.1", 0), Proxy)


def main() -> None:
    logging.disable(logging.CRITICAL)
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    state = State()
    proxy = make_proxy(state, host, port)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()

    def say(message: dict[str, Any]) -> None:
        print(json.dumps(message), flush=True)

    say({"direct": f"{host}:{port}", "proxy": f"127.0.0.1:{proxy.server_address[1]}"})
    for line in sys.stdin:
        command = json.loads(line)
        if "rules" in command:
            state.release.set()
            state.reset(command["rules"])
            say({"number": command["number"]})
        else:
            time.sleep(0)
            with state.lock:
                say({"number": command["number"], "log": state.log, "most_at_once": state.most_at_once})
    moto.stop()


if __name__ == "__main__":
    main()
