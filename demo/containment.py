"""Processes that end with us, however we end, together with whatever they started and mounted.

Owns: the wrapping. The program lives in PID and mount namespaces of its own: when the first process there
ends, the kernel kills all others and drops their mounts. ``tini`` is that first process, and reaps
orphans; that it gets SIGKILL at our death is what ``setpriv`` and ``unshare`` arrange.
"""

__all__ = ["contained"]


def contained(*command: str) -> list[str]:
    """The command line that runs ``command`` in this way."""
    return [
        *("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "slave"),
        *("--pid", "--mount-proc", "--fork", "--kill-child", "tini", "--", *command),
    ]
