"""The snapshotter's unit of systemd.

Owns: its text. Must not know: engines.

Nothing in it may make systemd give the service a mount namespace of its own (``ProtectSystem=``,
``PrivateTmp=`` and the like do): its mounts must reach engines and containers. ``KillMode=process`` leaves
the processes that keep mounts alive when the service is restarted, as containers need them.
"""

__all__ = ["unit"]

_UNIT = """\
# Written by cvmfs-graphdriver snapshotter install; uninstall removes it.
[Unit]
Description=Snapshotter that starts containers straight from CernVM-FS repositories
After=network.target local-fs.target
Before=containerd.service docker.service k3s.service k3s-agent.service

[Service]
Type=notify
ExecStart={program} snapshotter serve
Restart=always
RestartSec=1
KillMode=process
OOMScoreAdjust=-999
LimitNOFILE=1048576
TasksMax=infinity
RuntimeDirectory=cvmfs-snapshotter
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
UMask=0077
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID \
CAP_MKNOD CAP_SETFCAP CAP_SETUID CAP_SETGID CAP_KILL CAP_SYS_RESOURCE CAP_SYS_PTRACE
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=~@reboot @swap @obsolete @cpu-emulation @clock @module

[Install]
WantedBy=multi-user.target
"""


def unit(program: str) -> bytes:
    """The unit that runs ``program``, an absolute path. Raises ValueError."""
    if not program.startswith("/") or any(character in program for character in " \t\n%\"'\\;$"):
        raise ValueError(program)
    return _UNIT.format(program=program).encode()
