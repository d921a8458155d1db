"""The CPU folder of a host with 4 CPUs, of plain files: 2 cores of 2 threads, 2 policies."""

from __future__ import annotations

from pathlib import Path

from procscope.ids import CpuId

CPU_FOLDER = "devices/system/cpu"
HOST = tuple(CpuId(cpu) for cpu in range(4))
SECRET = "kernel address"


def make_sys(root: Path) -> Path:
    """Make the folder below `root` and return its path."""
    folder = root / CPU_FOLDER
    files = {
        "online": "0-3\n",
        "offline": "\n",
        "possible": "0-7\n",
        "present": "0-3\n",
        "kernel_max": "8191\n",
        "modalias": "cpu:type:x86\n",
        "vulnerabilities/meltdown": "Not affected\n",
        "cpuidle/current_driver": "none\n",
        "secret": f"{SECRET}\n",
        "probe": "",
    }
    for cpu in range(4):
        core = cpu // 2 * 2
        files |= {
            f"cpu{cpu}/topology/core_id": f"{core // 2}\n",
            f"cpu{cpu}/topology/thread_siblings_list": f"{core}-{core + 1}\n",
            f"cpu{cpu}/topology/thread_siblings": f"{3 << core:x}\n",
            f"cpu{cpu}/cache/index0/size": "32K\n",
            f"cpu{cpu}/cache/index0/shared_cpu_list": "0-3\n",
            f"cpu{cpu}/online": "1\n",
        }
    for policy in (0, 2):
        files[f"cpufreq/policy{policy}/related_cpus"] = f"{policy} {policy + 1}\n"
        files[f"cpufreq/policy{policy}/scaling_cur_freq"] = "2400000\n"
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for cpu in range(4):
        (folder / f"cpu{cpu}/cpufreq").symlink_to(f"../cpufreq/policy{cpu // 2 * 2}")
        (folder / f"cpu{cpu}/subsystem").symlink_to("../../../../bus/cpu")
    (folder / "secret").chmod(0o400)
    (folder / "probe").chmod(0o200)
    return folder
