"""Takes mail on 127.0.0.1 and keeps each message as a file, its envelope in the first lines: mail_sink.py PORT FOLDER."""

import os
import signal
import sys
import threading

from aiosmtpd.controller import Controller


class Keep:
    def __init__(self, folder):
        self.folder = folder
        self.lock = threading.Lock()
        self.count = 0

    async def handle_DATA(self, server, session, envelope):
        with self.lock:
            self.count += 1
            name = f"{os.getpid()}-{self.count:06}.eml"
        path = os.path.join(self.folder, name)
        with open(path + ".part", "wb") as file:
            file.write(f"X-Envelope-From: {envelope.mail_from}\r\n".encode())
            for to in envelope.rcpt_tos:
                file.write(f"X-Envelope-To: {to}\r\n".encode())
            file.write(envelope.content)
        # Whoever reads the folder sees whole messages only.
        os.rename(path + ".part", path)
        return "250 kept as " + name


def main():
    port, folder = int(sys.argv[1]), sys.argv[2]
    os.makedirs(folder, exist_ok=True)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    controller = Controller(Keep(folder), hostname="127.0.0.1", port=port)
    controller.start()
    stop.wait()
    controller.stop()


main()
