"""What is seen of a container's processes from inside, without what their numbers are."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.agent.conftest import AGENT, docker

# Takes no part in what it looks at: its own session, its own parent.
_PROBE = r"""
import json, os, time
def text(pid, name):
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return os.fsdecode(file.read())
def lines(pid, name):
    return text(pid, name).splitlines()
def descriptor(pid, number):
    path = os.readlink(f"/proc/{pid}/fd/{number}")
    what = path.partition(":")[0] if ":[" in path else path
    return [what, *filter(lambda line: line.startswith("flags"), lines(pid, f"fdinfo/{number}"))]
def status(pid):
    wanted = ("Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd")
    wanted += ("Cap", "NoNewPrivs", "Seccomp", "Cpus_allowed_list")
    return [line for line in lines(pid, "status") if line.startswith(wanted)]
def look(pid):
    stat = text(pid, "stat").rpartition(")")[2].split()
    spaces = [name for name in sorted(os.listdir(f"/proc/{pid}/ns"))
              if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/1/ns/{name}")]
    return {
        "name": text(pid, "comm"), "argv": text(pid, "cmdline"),
        "environ": sorted(text(pid, "environ").split("\0")),
        "parent": int(stat[1]), "group": int(stat[2]), "session": int(stat[3]),
        "terminal": int(stat[4]), "foreground": int(stat[5]), "nice": stat[15:17],
        "policy": stat[37:39], "limits": text(pid, "limits"), "status": status(pid),
        "oom": text(pid, "oom_score_adj"), "other namespaces": spaces,
        "links": [os.readlink(f"/proc/{pid}/{name}") for name in ("cwd", "root", "exe")],
        "descriptors": {n: descriptor(pid, n) for n in sorted(os.listdir(f"/proc/{pid}/fd"))},
    }
def look_at_all():
    pids = sorted(int(n) for n in os.listdir("/proc") if n.isdigit() and int(n) != os.getpid())
    return {pid: look(pid) for pid in pids}
found = last = None
while found is None or found != last:  # what was started a moment ago becomes another program
    time.sleep(0.05)
    found, last = look_at_all(), found
print(json.dumps(found))
"""
_NUMBERS = ("parent", "group", "session", "foreground")


def processes(name: str) -> list[dict[str, Any]]:
    """All of a container's, but the supervisor; the command first. Numbers of processes are their
    places in this list. Process 1 counts as the command, whichever of the two it is: there orphans
    go, and it leads the session."""
    text = docker("exec", "--privileged", "-u", "0", name, "python3", "-SEs", "-c", _PROBE)
    found = {int(pid): look for pid, look in json.loads(text).items()}
    if found[1]["argv"].startswith(f"{AGENT}\0supervise\0"):
        del found[1]
    places = {pid: place for place, pid in enumerate(found)} | {1: 0}
    for look in found.values():
        look.update({key: places.get(look[key], look[key]) for key in _NUMBERS})
    command = next(iter(found.values()))
    del command["parent"]
    return list(found.values())
