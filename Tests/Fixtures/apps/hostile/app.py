"""Attacks, then shows at / how far it came."""

import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

import attack

REPORT = json.dumps(attack.run("instance"))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = REPORT.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


print("hostile app: attacked and serves its report", flush=True)
HTTPServer((os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"])), Handler).serve_forever()
