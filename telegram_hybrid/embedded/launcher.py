"""The moment between fork and exec of a server: a script of its own, run by path, never imported.

    python -I -S launcher.py PARENT SIGNAL UID GID PROGRAM ARGUMENT...

It becomes UID and GID (negative: stays who it is), asks the kernel to send SIGNAL when the thread
that forked it ends, makes sure that the process PARENT was not gone before it asked, and turns into
PROGRAM. subprocess' `preexec_fn` could do the same, but not safely in a process with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> None:
    """Become the server; returns only by raising."""
    parent, death_signal, uid, gid = (int(argument) for argument in arguments[:4])
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    os.umask(0o077)
    # Python ignores these, and exec would hand that on.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    if sys.platform == "linux":
        # After setuid: a change of credentials clears the setting.
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != parent:
            sys.exit("the process that wanted this server has ended")
    os.execv(arguments[4], arguments[4:])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.exit(f"cannot run {sys.argv[5]}: {error}")
