"""Proves that every struct layout and constant is the kernel's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from procscope.fuse import opcodes, wire
from procscope.fuse.opcodes import BY_OPCODE, OPERATIONS
from procscope.fuse.wire import LAYOUTS, InitFlag

HEADER: Final = Path("/usr/include/linux/fuse.h")

# sizeof() of each, from <linux/fuse.h> 7.38 on x86-64.
SIZES: Final = {
    "fuse_in_header": 40,
    "fuse_out_header": 16,
    "fuse_attr": 88,
    "fuse_kstatfs": 80,
    "fuse_init_in": 64,
    "fuse_init_out": 64,
    "fuse_entry_out": 128,
    "fuse_forget_in": 8,
    "fuse_forget_one": 16,
    "fuse_batch_forget_in": 8,
    "fuse_getattr_in": 16,
    "fuse_attr_out": 104,
    "fuse_access_in": 8,
    "fuse_statfs_out": 80,
    "fuse_open_in": 8,
    "fuse_open_out": 16,
    "fuse_release_in": 24,
    "fuse_read_in": 40,
    "fuse_flush_in": 24,
    "fuse_fsync_in": 16,
    "fuse_lseek_in": 24,
    "fuse_ioctl_in": 32,
    "fuse_poll_in": 24,
    "fuse_interrupt_in": 8,
    "fuse_dirent": 24,
    "fuse_direntplus": 152,
    "fuse_setattr_in": 88,
    "fuse_mknod_in": 16,
    "fuse_mkdir_in": 8,
    "fuse_rename_in": 8,
    "fuse_rename2_in": 16,
    "fuse_link_in": 8,
    "fuse_create_in": 16,
    "fuse_write_in": 40,
    "fuse_getxattr_in": 8,
    "fuse_fallocate_in": 32,
    "fuse_copy_file_range_in": 56,
}


def test_every_layout_has_the_recorded_size() -> None:
    """Without a compiler: the sizes as they were recorded."""
    assert {layout.name: layout.size for layout in LAYOUTS} == SIZES


def test_pack_and_unpack_are_inverse() -> None:
    """A value goes to the member of its name, nested ones too, and nowhere else."""
    for layout in LAYOUTS:
        for name in layout.names:
            packed = layout.pack(**{name: 3})
            assert len(packed) == layout.size
            assert layout.unpack(packed) == {other: 3 * (other == name) for other in layout.names}


@pytest.fixture(scope="module")
def from_c(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What a C compiler makes of the installed kernel header, by expression.

    An expression that this header is too old for is missing from the answer.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not HEADER.exists():
        pytest.skip("no C compiler or no <linux/fuse.h>: gcc and linux-libc-dev provide them")
    folder = tmp_path_factory.mktemp("header")
    known = _known_to_header(HEADER.read_text())
    lines = [f'printf("%llu {text}\\n", (unsigned long long)({text}));' for text in known]
    source = folder / "header.c"
    source.write_text(
        "#include <stdio.h>\n#include <stddef.h>\n#include <linux/fuse.h>\n"
        "int main(void) {\n" + "\n".join(lines) + "\nreturn 0; }\n"
    )
    program = folder / "header"
    subprocess.run([compiler, "-o", str(program), str(source)], check=True)
    output = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    return {
        text: int(value) for value, text in (line.split(" ", 1) for line in output.splitlines())
    }


def _expressions() -> dict[str, int]:
    """C expressions, and what they are here."""
    expected: dict[str, int] = {}
    for layout in LAYOUTS:
        expected[f"sizeof(struct {layout.name})"] = layout.size
        for name in layout.names:
            member = f"offsetof(struct {layout.name}, {name})"
            expected[member] = layout.pack(**{name: 1}).index(b"\1")
    expected |= {flag.name: flag.value for flag in InitFlag if flag.name}
    expected |= {f"FUSE_{operation.name}": operation.opcode for operation in OPERATIONS}
    del expected["FUSE_CUSE_INIT"]
    for prefix in ("FOPEN_", "FATTR_", "FUSE_RELEASE_", "FUSE_READ_", "FUSE_GETATTR_"):
        expected |= {prefix + name: bit for bit, name in wire.flag_names(prefix).items()}
    for name in ("FUSE_MIN_READ_BUFFER", "FUSE_KERNEL_VERSION", "FUSE_COMPAT_22_INIT_OUT_SIZE"):
        expected[name] = getattr(wire, name)
    return expected


def _known_to_header(header: str) -> list[str]:
    words = set(header.replace("=", " ").split())
    return [text for text in _expressions() if "(" in text or text in words]


def test_layouts_and_constants_are_those_of_the_installed_header(from_c: dict[str, int]) -> None:
    """Sizes, the offset of every member, flags and opcodes, by the C compiler."""
    expected = _expressions()
    assert len(from_c) > 250
    # 1 << 31 is an int there, and negative.
    from_c["FUSE_INIT_RESERVED"] &= 0xFFFFFFFF
    assert from_c == {text: expected[text] for text in from_c}


def test_the_table_of_opcodes_has_no_gap_and_no_double() -> None:
    """1 to 53 without 7 and 19, which the kernel has never used, and CUSE's own."""
    numbers = [operation.opcode for operation in OPERATIONS]
    assert numbers == [*sorted(set(range(1, 54)) - {7, 19}), 4096]
    assert len(BY_OPCODE) == len({operation.name for operation in OPERATIONS}) == len(numbers)


def test_opcode_constants_are_those_of_the_table() -> None:
    """A handler cannot be bound to another request's number."""
    for name, value in vars(opcodes).items():
        if name.startswith("FUSE_"):
            assert BY_OPCODE[value].name == name.removeprefix("FUSE_")
