"""Run a command and write down how long it took and how much memory its process had at most: RESULT COMMAND…

A process of its own, and a small one: the system counts what the parent held when it started the child, too.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    result, *command = sys.argv[1:]
    started = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    unit = 1 if sys.platform == "darwin" else 1024
    measured = {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime}
    measured["peak_bytes"] = usage.ru_maxrss * unit
    Path(result).write_text(json.dumps(measured), encoding="utf-8")
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
