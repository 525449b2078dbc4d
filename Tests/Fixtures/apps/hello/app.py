"""Says hello, and which version it is. Standard library only.

On SIGTERM it takes no new connections, answers every request that has reached it, and exits with 0.
"""

import os
import select
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HERE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(HERE, "VERSION"), encoding="utf-8") as file:
    VERSION = file.read().strip()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keep-alive
    timeout = 60  # an idle connection is not held for ever

    def setup(self):
        super().setup()
        self.server.opened(self.connection)

    def finish(self):
        self.server.closed(self.connection)
        super().finish()

    def do_GET(self):
        if self.path == "/":
            self.answer(200, f"hello {VERSION}\n")
        elif self.path == "/healthz":
            self.answer(200, "ok\n")
        else:
            self.answer(404, "there is nothing here\n")

    do_HEAD = do_GET

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if self.server.stopping:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format, *args):
        pass  # a line a request would say nothing that the ingress does not


class Server(ThreadingHTTPServer):
    allow_reuse_address = True
    request_queue_size = 128
    daemon_threads = False  # server_close() waits for requests under way
    stopping = False

    def __init__(self, address):
        self.connections = set()
        self.lock = threading.Lock()
        super().__init__(address, Handler)

    def opened(self, connection):
        with self.lock:
            self.connections.add(connection)
            if self.stopping:
                self.end_of_input(connection)

    def closed(self, connection):
        with self.lock:
            self.connections.discard(connection)

    @staticmethod
    def end_of_input(connection):
        # What has arrived can still be read and is answered; then the connection reads as ended.
        try:
            connection.shutdown(socket.SHUT_RD)
        except OSError:
            pass

    def stop(self):
        self.shutdown()
        # Connections that the kernel has already taken for us are served too, not reset.
        while select.select([self], [], [], 0)[0]:
            self.handle_request()
        self.socket.close()
        with self.lock:
            self.stopping = True
            for connection in self.connections:
                self.end_of_input(connection)
        self.server_close()


def main():
    address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8080")))
    server = Server(address)
    terminated = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: terminated.set())
    print(f"hello {VERSION} listens on {address[0]}:{address[1]}", flush=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    terminated.wait()
    server.stop()
    thread.join()
    print(f"hello {VERSION} is done", flush=True)


if __name__ == "__main__":
    main()
