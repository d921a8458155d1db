"""Record the cgroup tree of a process: `python3 record.py PID OUTPUT_DIRECTORY`.

Written are `mountinfo` (its cgroup lines), `cgroup`, and below `sys/fs/cgroup` the files of the
process's cgroups, of everything below these and of their ancestors, as the kernel gives them.
"""

import os
import sys

PREFIXES = (
    *("memory.", "cpu.", "cpuacct.", "cpuset.cpus", "cpuset.effective_cpus", "blkio.throttle.io"),
    *("hugetlb.2MB.", "io.", "cgroup.procs", "cgroup.threads", "tasks", "cgroup.events"),
    *("cgroup.type", "cgroup.controllers", "cgroup.sane_behavior"),
)
AT_THE_ROOT = ("cgroup.controllers", "cgroup.sane_behavior", "cgroup.events")
LARGEST_BYTES = 1 << 18


def record_directory(directory: str, output: str, prefixes: tuple[str, ...] = PREFIXES) -> None:
    os.makedirs(output + directory, exist_ok=True)
    for name in sorted(os.listdir(directory)):
        path = f"{directory}/{name}"
        if not name.startswith(prefixes) or "numa" in name or not os.path.isfile(path):
            continue
        try:
            with open(path, "rb") as file:
                content = file.read(LARGEST_BYTES)
        except OSError:
            continue
        with open(output + path, "wb") as file:
            file.write(content)


def record(pid: str, output: str) -> None:
    os.makedirs(output, exist_ok=True)
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
        cgroups = file.read()
    with open("/proc/self/mountinfo", encoding="ascii") as file:
        mounts = [line for line in file if " - cgroup" in line]
    with open(f"{output}/cgroup", "w", encoding="ascii") as file:
        file.write(cgroups)
    with open(f"{output}/mountinfo", "w", encoding="ascii") as file:
        file.writelines(mounts)
    for mount in mounts:
        fields, _, super_fields = mount.partition(" - ")
        mount_point = fields.split()[4]
        options = super_fields.split()[2].split(",")
        for line in cgroups.splitlines():
            _, controllers, path = line.split(":", 2)
            is_v2 = super_fields.startswith("cgroup2 ") and not controllers
            if not is_v2 and not (controllers and set(controllers.split(",")) <= set(options)):
                continue
            names = [name for name in path.split("/") if name]
            record_directory(mount_point, output, AT_THE_ROOT)
            for depth in range(1, len(names) + 1):
                record_directory("/".join((mount_point, *names[:depth])), output)
            if names:
                for directory, _, _ in os.walk("/".join((mount_point, *names))):
                    record_directory(directory, output)


if __name__ == "__main__":
    record(sys.argv[1], sys.argv[2])
