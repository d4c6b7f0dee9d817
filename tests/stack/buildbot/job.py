"""One step of a run: does what the test wrote into the control directory.

Arguments: control directory, builder, step, revision. The order is in the
most special of these files that exists: ``REVISION.BUILDER.STEP``,
``REVISION.BUILDER``, ``BUILDER.STEP``, ``BUILDER``, ``default``. It is read
again and again, so a test may change it while the step runs:

    green   ends well          red      ends badly
    silent  waits, silently    chatter  waits, and prints a line now and then

    work SECONDS green|red     prints a line now and then, and ends so after that time
"""

import os
import sys
import time

POLL_SECONDS = 0.05
CHATTER_SECONDS = 0.25

control, builder, step, revision = sys.argv[1:]
names = (
    f"{revision}.{builder}.{step}",
    f"{revision}.{builder}",
    f"{builder}.{step}",
    builder,
    "default",
)


def order():
    for name in names:
        try:
            with open(os.path.join(control, name)) as file:
                return file.read().strip()
        except FileNotFoundError:
            continue
    # The control directory goes when the test ends.
    sys.exit(f"no order for {builder} in {control}")


print(f"{step} of {revision} on {builder}", flush=True)
parent = os.getppid()
begun = printed = time.monotonic()
while True:
    now = order()
    if now.startswith("work "):
        _, seconds, end = now.split()
        now = end if time.monotonic() - begun >= float(seconds) else "chatter"
    if now == "green":
        print("all good", flush=True)
        sys.exit(0)
    if now == "red":
        print("1 test failed", flush=True)
        sys.exit(1)
    if now not in ("silent", "chatter"):
        sys.exit(f"no such order: {now!r}")
    if now == "chatter" and time.monotonic() - printed >= CHATTER_SECONDS:
        printed = time.monotonic()
        print("still testing", flush=True)
    # A worker that was killed leaves its steps behind.
    if os.getppid() != parent:
        sys.exit("the worker is gone")
    time.sleep(POLL_SECONDS)
