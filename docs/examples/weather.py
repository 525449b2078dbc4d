#!/usr/bin/env python3
"""A service and its client.

    weather.py KEYFILE serve [SECONDS]         answers weather.today
    weather.py KEYFILE ask CITY
"""
import sys

from slipway_bus import Bus, BusError


def today(method, data, caller):
    if method != "weather.today":
        raise BusError(404, "there is no %s" % method)
    return {"city": data["city"], "degrees": 21, "asked_by": caller}


keyfile, command = sys.argv[1:3]
try:
    with Bus(keyfile, client="weather.py") as bus:
        if command == "serve":
            bus.serve("weather", today)
            bus.run(float(sys.argv[3]) if len(sys.argv) > 3 else None)
        else:
            print(bus.call("weather.today", {"city": sys.argv[3]}))
except BusError as error:
    sys.exit("weather.py: %s" % error)
except KeyboardInterrupt:
    pass
