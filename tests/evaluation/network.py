"""A proxy between a client and a server, in which the network fails."""

from __future__ import annotations

import socket
import threading
import time


class Proxy:
    """Between a client and a server. mode: "pass" bytes on, "hold" all back until it is another,
    "stall" and then break what begins meanwhile, "cut" it off in the midst, or answer with "500".
    """

    def __init__(self, port: int) -> None:
        self.mode, self.asked, self._target = "pass", 0, port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self.asked += 1
        self._held()
        mode = self.mode
        with client:
            if mode == "stall":
                time.sleep(3)
                return
            if mode == "500":
                client.recv(65536)
                client.sendall(b"HTTP/1.1 500 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
                back.start()
                self._pump(client, server, most=300 if mode == "cut" else None)
                if mode == "cut":
                    return
                back.join()

    def _pump(self, source: socket.socket, target: socket.socket, most: int | None = None) -> None:
        passed = 0
        try:
            while (data := source.recv(65536)) and self.mode in ("pass", "cut", "hold"):
                self._held()
                target.sendall(data if most is None else data[: most - passed])
                passed += len(data)
                if most is not None and passed >= most:
                    return
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def _held(self) -> None:
        while self.mode == "hold":
            time.sleep(0.02)

    def close(self) -> None:
        self._listening.close()
