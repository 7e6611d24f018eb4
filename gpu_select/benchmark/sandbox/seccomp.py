"""The system calls that are left to a process: those that Python needs to compute and to use its own files.

Everything else does not exist for it (ENOSYS): no process can be started, no program run, no socket opened to anyone,
no signal sent to others, no right or time of a file changed.
"""

from __future__ import annotations

import ctypes
import os
import struct

from gpu_select.benchmark.sandbox.libc import check, libc

__all__ = ["enter_seccomp"]

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LD_WORD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_ENOSYS = 38
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

_CALLS = {
    # name: (x86_64, aarch64); None where an architecture does not have it
    "read": (0, 63), "write": (1, 64), "open": (2, None), "close": (3, 57), "stat": (4, None), "fstat": (5, 80),
    "lstat": (6, None), "poll": (7, None), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226),
    "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "pread64": (17, 67), "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66),
    "access": (21, None), "pipe": (22, None), "select": (23, None), "sched_yield": (24, 124), "mremap": (25, 216),
    "madvise": (28, 233), "dup": (32, 23), "dup2": (33, None), "pause": (34, None), "nanosleep": (35, 101),
    "getitimer": (36, 102), "alarm": (37, None), "setitimer": (38, 103), "getpid": (39, 172), "sendfile": (40, 71),
    "exit": (60, 93), "wait4": (61, 260), "uname": (63, 160), "flock": (73, 32),
    "fsync": (74, 82), "fdatasync": (75, 83), "ftruncate": (77, 46), "getcwd": (79, 17), "chdir": (80, 49),
    "fchdir": (81, 50), "rename": (82, None), "mkdir": (83, None), "rmdir": (84, None), "unlink": (87, None),
    "readlink": (89, None), "umask": (95, 166), "gettimeofday": (96, 169), "getrlimit": (97, 163),
    "getrusage": (98, 165), "sysinfo": (99, 179), "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176),
    "geteuid": (107, 175), "getegid": (108, 177), "getppid": (110, 173), "getpgrp": (111, None),
    "getgroups": (115, 158), "getresuid": (118, 148), "getresgid": (120, 150), "getpgid": (121, 155),
    "getsid": (124, 156), "rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133),
    "sigaltstack": (131, 132), "statfs": (137, 43), "fstatfs": (138, 44), "getpriority": (140, 141),
    "sched_getparam": (143, 121), "sched_getscheduler": (145, 120), "setrlimit": (160, 164), "gettid": (186, 178),
    "time": (201, None), "futex": (202, 98), "sched_getaffinity": (204, 123), "epoll_create": (213, None),
    "getdents64": (217, 61), "set_tid_address": (218, 96), "restart_syscall": (219, 128), "fadvise64": (221, 223),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "exit_group": (231, 94),
    "epoll_wait": (232, None), "epoll_ctl": (233, 21), "waitid": (247, 95), "openat": (257, 56),
    "mkdirat": (258, 34), "newfstatat": (262, 79), "unlinkat": (263, 35), "renameat": (264, 38),
    "readlinkat": (267, 78), "faccessat": (269, 48), "pselect6": (270, 72), "ppoll": (271, 73),
    "set_robust_list": (273, 99), "epoll_pwait": (281, 22), "timerfd_create": (283, 85), "eventfd": (284, None),
    "fallocate": (285, 47), "timerfd_settime": (286, 86), "timerfd_gettime": (287, 87), "eventfd2": (290, 19),
    "epoll_create1": (291, 20), "dup3": (292, 24), "pipe2": (293, 59), "preadv": (295, 69), "pwritev": (296, 70),
    "getcpu": (309, 168), "renameat2": (316, 276), "getrandom": (318, 278), "membarrier": (324, 283),
    "copy_file_range": (326, 285), "preadv2": (327, 286), "pwritev2": (328, 287), "statx": (332, 291),
    "rseq": (334, 293), "close_range": (436, 436), "faccessat2": (439, 439), "epoll_pwait2": (441, 441),
    # of a pair of sockets that are connected to each other, which asyncio needs
    "recvfrom": (45, 207), "sendto": (44, 206), "shutdown": (48, 210), "getsockname": (51, 204),
    "getpeername": (52, 205), "getsockopt": (55, 209), "setsockopt": (54, 208),
}  # fmt: skip

_CLONE = (56, 220)
_CLONE_THREAD = 0x10000
_IOCTL = (16, 29)
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_FCNTL = (72, 25)
_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 1030)  # copies, flags and locks; not who gets signals
_KILL_CALLS = ((62, 129), (234, 131))  # kill and tgkill, of this process itself
_PRLIMIT = (302, 261)
_SOCKETPAIR = (53, 199)
_UNIX = 1
_STREAMS = (1, 0x80001, 0x80801)  # SOCK_STREAM, and with SOCK_CLOEXEC and SOCK_NONBLOCK


def enter_seccomp() -> None:
    """Leave this process, and threads that it starts, only the calls above.

    Raises:
        OSError: another architecture, or a kernel without filters. `PR_SET_NO_NEW_PRIVS` has to be set.
    """
    machine = os.uname().machine
    if machine not in _AUDIT_ARCH:
        raise OSError(f"seccomp: expected x86_64 or aarch64, got {machine}")
    program = b"".join(struct.pack("HBBI", *step) for step in _program(machine, os.getpid()))
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    check("seccomp", libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.c_char_p(filter_), 0, 0))


def _program(machine: str, pid: int) -> list[tuple[int, int, int, int]]:
    """The filter: (code, jump if true, jump if false, operand) a step."""
    column = list(_AUDIT_ARCH).index(machine)
    steps = [
        (_LD_WORD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LD_WORD, 0, 0, _NR),
    ]
    if machine == "x86_64":
        steps += [(_JUMP_GREATER_EQUAL, 0, 1, _X32_BIT), (_RETURN, 0, 0, _KILL)]
    for numbers in _CALLS.values():
        number = numbers[column]
        if number is not None:
            steps += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    steps += _if_call(_CLONE[column], [(_LD_WORD, 0, 0, _ARGS), (_JUMP_SET, 0, 1, _CLONE_THREAD)])
    for request in _IOCTLS:
        steps += _if_call(_IOCTL[column], _argument_is(1, request))
    for command in _FCNTLS:
        steps += _if_call(_FCNTL[column], _argument_is(1, command))
    for numbers in _KILL_CALLS:
        steps += _if_call(numbers[column], _argument_is(0, pid))
    steps += _if_call(_PRLIMIT[column], _argument_is(0, 0))
    for stream in _STREAMS:
        steps += _if_call(_SOCKETPAIR[column], _argument_is(0, _UNIX) + _argument_is(1, stream))
    return [*steps, (_RETURN, 0, 0, _ERRNO | _ENOSYS)]


def _argument_is(index: int, value: int) -> list[tuple[int, int, int, int]]:
    """The low half of an argument; the kernel takes no more of those that are asked for here."""
    return [(_LD_WORD, 0, 0, _ARGS + 8 * index), (_JUMP_EQUAL, 0, 1, value)]


def _if_call(number: int, conditions: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Allow a call where all conditions hold; else go on, with the call's number loaded again."""
    steps = list(conditions)
    n = len(steps)
    # a condition that does not hold jumps behind the return, to where the number is loaded again
    steps = [(code, yes, n - i if code != _LD_WORD else 0, operand) for i, (code, yes, _, operand) in enumerate(steps)]
    return [
        (_JUMP_EQUAL, 0, n + 2, number),
        *steps,
        (_RETURN, 0, 0, _ALLOW),
        (_LD_WORD, 0, 0, _NR),
    ]
