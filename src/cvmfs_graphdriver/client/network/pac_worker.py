"""Evaluates one proxy configuration file, for ``pac``: a program that runs a stranger's program.

Owns: the JavaScript engine, and the limits of what it may use: processor time, memory, output, names looked
up. Must not know: what the answer means, how long the caller waits.

Standard input is JSON: the file's text, a URL, and the URL's host. The answer goes to standard output, what
the engine says about mistakes to standard error.
"""

import contextlib
import json
import os
import resource
import sys

import pacparser

from cvmfs_graphdriver.client.network.pac import OUTPUT_LIMIT

__all__ = ["main"]

_CPU_SECONDS = 2
_MEMORY = 256 << 20
_LOOKUPS = 100
_NOBODY = 65534
_EngineError: type[Exception] = pacparser._pacparser.error  # has no public name

_PRELUDE = f"""
alert = function () {{}};
delete globalThis.console;
(function () {{
    let left = {_LOOKUPS};
    for (const name of ["dnsResolve", "dnsResolveEx", "myIpAddress", "myIpAddressEx"]) {{
        const look = globalThis[name];
        globalThis[name] = function (...words) {{
            if (left-- <= 0) throw new Error("it looks up more than {_LOOKUPS} names");
            return look(...words);
        }};
    }}
}})();
"""


def _restrict() -> None:
    """Set the limits for the rest of this process's life."""
    # The engine offers scripts neither files nor sockets; this is for a script that breaks out of it.
    with contextlib.suppress(OSError):  # only root can, and only where that user exists
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_LIMIT, OUTPUT_LIMIT))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS + 1))


def main() -> None:
    """Answer one question. The exit code is 0 if there is an answer."""
    source, url, host = json.load(sys.stdin)
    pacparser.init()
    _restrict()
    try:
        pacparser.parse_pac_string(_PRELUDE)
        pacparser.parse_pac_string(source)
        answer = pacparser.find_proxy(url, host).encode()
    except (_EngineError, ValueError, MemoryError):  # the engine has told why
        sys.exit(1)
    os.write(sys.stdout.fileno(), answer)


if __name__ == "__main__":
    main()
