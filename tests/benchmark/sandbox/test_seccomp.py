from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from gpu_select.benchmark.sandbox import seccomp

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
OTHERS = {
    "clone": seccomp._CLONE,
    "ioctl": seccomp._IOCTL,
    "fcntl": seccomp._FCNTL,
    "kill": seccomp._KILL_CALLS[0],
    "tgkill": seccomp._KILL_CALLS[1],
    "prlimit64": seccomp._PRLIMIT,
    "socketpair": seccomp._SOCKETPAIR,
}
ALLOW, KILL, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050026
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def decision(machine: str, number: int, args: tuple[int, ...] = (), *, arch: int | None = None) -> int:
    """What the filter of process 77 says: an interpreter of the instructions that it uses."""
    data = struct.pack("=IIQ6Q", number, ARCH[machine] if arch is None else arch, 0, *(args + (0,) * 6)[:6])
    steps = seccomp._program(machine, 77)
    at = value = 0
    while True:
        code, yes, no, operand = steps[at]
        at += 1
        if code == 0x20:
            value = struct.unpack_from("=I", data, operand)[0]
        elif code == 0x06:
            return operand
        else:
            holds = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}[code]
            at += yes if holds else no


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_are_the_kernel_s(machine):
    if not HEADERS[machine].is_file():
        pytest.skip(f"needs the kernel's header {HEADERS[machine]}")
    text = HEADERS[machine].read_text(encoding="utf-8")
    generic = dict(re.findall(r"#define __NR3264_(\w+)\s+(\d+)", text))
    aliases = {"newfstatat": "fstatat"} | {name: name for name in generic}
    for name, numbers in (seccomp._CALLS | OTHERS).items():
        number = numbers[list(HEADERS).index(machine)]
        found = re.search(rf"#define __NR_{name}\s+(\d+)\b", text)
        expected = found[1] if found else generic.get(aliases.get(name, ""))
        if machine == "aarch64" and name == "fstat":
            expected = generic["fstat"]
        assert number == (None if expected is None else int(expected)), name


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_what_is_listed_is_allowed_and_nothing_else(machine, column):
    listed = {numbers[column] for numbers in seccomp._CALLS.values()} - {None}
    conditional = {numbers[column] for numbers in OTHERS.values()}
    for number in range(600):
        expected = ALLOW if number in listed else ENOSYS
        if number not in conditional:
            assert decision(machine, number) == expected


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
@pytest.mark.parametrize(
    ("name", "args", "allowed"),
    [
        ("clone", (0x10000 | 0x100,), True),
        ("clone", (17,), False),
        ("clone", (0x10000000,), False),
        ("ioctl", (0, 0x5401), True),
        ("ioctl", (0, 0x5412), False),
        ("fcntl", (0, 3), True),
        ("fcntl", (0, 8), False),
        ("kill", (77, 9), True),
        ("kill", (78, 9), False),
        ("kill", (0xFFFFFFFF, 9), False),
        ("kill", (0, 9), False),
        ("tgkill", (77, 77, 6), True),
        ("tgkill", (1, 1, 6), False),
        ("prlimit64", (0, 9), True),
        ("prlimit64", (78, 9), False),
        ("socketpair", (1, 0x80001), True),
        ("socketpair", (1, 2), False),
        ("socketpair", (2, 1), False),
    ],
)
def test_some_calls_are_allowed_by_their_arguments(machine, column, name, args, allowed):
    assert decision(machine, OTHERS[name][column], args) == (ALLOW if allowed else ENOSYS)


def test_another_architecture_s_calls_end_the_process():
    assert decision("x86_64", 0, arch=0x40000003) == KILL
    assert decision("x86_64", 0x40000000) == KILL


def test_an_unknown_machine_is_an_error(monkeypatch):
    monkeypatch.setitem(seccomp.__dict__, "_AUDIT_ARCH", {})
    with pytest.raises(OSError, match="seccomp: expected x86_64 or aarch64, got"):
        seccomp.enter_seccomp()
