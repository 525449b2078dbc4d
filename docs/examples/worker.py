#!/usr/bin/env python3
"""Takes jobs from a queue that others with the same key may share. A job whose data says {"fail": n} is refused n times.

    worker.py KEYFILE CONSUMER PATTERN [SECONDS]         ends after so many seconds without a job
"""
import sys

from slipway_bus import Bus, BusError

keyfile, consumer, pattern = sys.argv[1:4]
quiet = float(sys.argv[4]) if len(sys.argv) > 4 else None
try:
    with Bus(keyfile, client="worker.py") as bus:
        for job in bus.work(consumer, [pattern], timeout=quiet, max_deliver=5, backoff=[0.1]):
            if job.deliveries <= (job.data or {}).get("fail", 0):
                print("event %d failed, delivery %d" % (job.seq, job.deliveries), flush=True)
                job.nak()
            else:
                print("event %d done, delivery %d" % (job.seq, job.deliveries), flush=True)
except BusError as error:
    sys.exit("worker.py: %s" % error)
except KeyboardInterrupt:
    pass
