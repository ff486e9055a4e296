"""Writes numbered lines as fast as it is told to, and says at its end how many they were."""

import os
import signal
import socket
import time

RATE = int(os.environ["RATE"])
VERSION = "v0"

over: list[int] = []
signal.signal(signal.SIGTERM, lambda *_: over.append(0))
signal.signal(signal.SIGUSR1, lambda *_: over.append(1))


def write(text: str) -> None:
    data = text.encode()
    while data:
        data = data[os.write(1, data) :]


start = f"{socket.gethostname()}.{time.time_ns()}"
count = 0
last = time.monotonic()
while not over:
    now = time.monotonic()
    # What it could not write because somebody was slow is not made up for.
    more = min(int((now - last) * RATE), RATE // 10)
    last = now if more == RATE // 10 else last + more / RATE
    write("".join(f"n {start} {n} of a line like any\n" for n in range(count, count + more)))
    count += more
    time.sleep(0.01)
write(f"end {start} {count}\n")
os._exit(over[0])
