"""The parameters in /etc/cvmfs that this client supports: name, default, meaning.

Owns: the table (CernVM-FS format reference, section 7.2). Defaults are those of the ``default.conf`` in the
reference client's packages, which a node need not have, and otherwise those of its code. Must not know:
where values come from, nor who uses them.
"""

from typing import NamedTuple

__all__ = ["KNOWN_WITHOUT_MEANING", "PARAMETERS", "Parameter"]


class Parameter(NamedTuple):
    """``default`` as written in a file, empty for none; ``meaning`` is a description that names the unit."""

    default: str
    meaning: str


def _table(text: str) -> dict[str, Parameter]:
    """Parse lines of the form ``NAME = default | meaning``."""
    table = {}
    for line in text.strip().splitlines():
        setting, _, meaning = line.partition(" | ")
        name, _, default = setting.partition("=")
        table["CVMFS_" + name.strip()] = Parameter(default.strip(), meaning.strip())
    return table


PARAMETERS = _table("""
SERVER_URL =                    | servers of the repository, separated by ";"; @fqrn@ and @org@ are expanded
DEFAULT_DOMAIN =                | domain appended to repository names without a dot
CONFIG_REPOSITORY =             | repository that contains further configuration
CONFIG_REPO_REQUIRED = no       | refuse to mount unless the configuration repository is available
MOUNT_DIR = /cvmfs              | where repositories are mounted
CLIENT_PROFILE =                | "single" for a single machine: proxies default to auto;DIRECT
USE_GEOAPI = no                 | ask a server to sort the servers by distance
MAX_SERVERS =                   | use only this many servers from the start of the list
PUBLIC_KEY =                    | files with public keys, separated by ":"
KEYS_DIR =                      | directory of public keys, *.pub
BLACKLIST =                     | file that lists refused certificates and revisions
ROOT_HASH =                     | mount this root catalog and follow no updates
REPOSITORY_TAG =                | mount this named tag and follow no updates
REPOSITORY_DATE =               | mount the newest revision at this time, ISO 8601 in UTC
AUTO_UPDATE = yes               | switch to new revisions when they appear
ALT_ROOT_PATH = no              | fetch root catalog and certificate from the bootstrap paths
MAX_TTL = 0                     | maximum time between checks for a new revision, minutes; 0: no limit
HTTP_PROXY =                    | proxies: groups separated by ";", members by "|"; DIRECT for none, or auto
FALLBACK_PROXY =                | proxies to use when all others fail
PAC_URLS =                      | URLs of proxy configuration files for "auto", separated by ";"
PROXY_SHARD = no                | distribute objects over the proxies of a group by digest
PROXY_RESET_AFTER = 300         | seconds before returning to the first proxy group
HOST_RESET_AFTER = 1800         | seconds before returning to the first server
TIMEOUT = 5                     | timeout for connecting and for receiving data through a proxy, seconds
TIMEOUT_DIRECT = 5              | the same without a proxy, seconds
MAX_RETRIES = 1                 | retries of a transfer before the next proxy or server is tried
BACKOFF_INIT = 2                | maximum initial pause between retries, seconds
BACKOFF_MAX = 10                | maximum pause between retries, seconds
LOW_SPEED_LIMIT = 1024          | bytes per second below which a transfer is considered stalled
FAILOVER_INDEFINITELY = no      | cycle through the proxies until one answers
FOLLOW_REDIRECTS = no           | follow up to 4 redirects
SEND_INFO_HEADER = no           | send the path of the requested file to servers
HTTP_TRACING = no               | send the requesting process and user to servers
HTTP_TRACING_HEADERS =          | additional headers, "key:value" separated by "|"
PROXY_TEMPLATE =                | name sent to the Geo API in place of the proxy
IPFAMILY_PREFER =               | 4 or 6: the address family to use for proxies that have both
MAX_IPADDR_PER_PROXY = 0        | maximum number of addresses used per proxy name; 0: all
DNS_SERVER =                    | name server to use instead of the system's
DNS_RETRIES = 1                 | retries of a query to the name server
DNS_TIMEOUT = 3                 | timeout of a query to the name server, seconds
DNS_MIN_TTL = 60                | minimum time to keep the addresses of a proxy, seconds
DNS_MAX_TTL = 86400             | maximum time to keep the addresses of a proxy, seconds
EXTERNAL_URL =                  | servers of external files, separated by ";"
EXTERNAL_HTTP_PROXY =           | proxies for external files
EXTERNAL_FALLBACK_PROXY =       | fallback proxies for external files
EXTERNAL_TIMEOUT =              | like CVMFS_TIMEOUT, for external files; empty for the same
EXTERNAL_TIMEOUT_DIRECT =       | like CVMFS_TIMEOUT_DIRECT, for external files; empty for the same
EXTERNAL_MAX_SERVERS =          | like CVMFS_MAX_SERVERS, for external files
CACHE_BASE = /var/lib/cvmfs     | directory that contains the cache directories
CACHE_DIR =                     | the cache directory itself
SHARED_CACHE = yes              | share one cache between all repositories
QUOTA_LIMIT = 4000              | maximum size of the cache, in MB of 1024 x 1024 bytes; -1: unlimited
ALIEN_CACHE =                   | cache directory that is not managed by this client
WORKSPACE =                     | where the client keeps its state; default: the cache directory
MEMCACHE_SIZE = 16              | memory for caching metadata, MB
NFILES = 131072                 | maximum number of open files of the client
CATALOG_WATERMARK =             | maximum number of open catalogs
CLAIM_OWNERSHIP = no            | all files appear to belong to the mounting user
CHECK_PERMISSIONS = yes         | let the kernel check file permissions
WORLD_READABLE = no             | make all files readable by everybody
UID_MAP =                       | file that maps user IDs
GID_MAP =                       | file that maps group IDs
SUID = no                       | honour setuid bits
HIDE_MAGIC_XATTRS = no          | the same as CVMFS_MAGIC_XATTRS_VISIBILITY=never
MAGIC_XATTRS_VISIBILITY = rootonly | whether magic attributes are listed: rootonly, always, never
XATTR_PROTECTED_XATTRS =        | magic attributes that only privileged groups may read, separated by ","
XATTR_PRIVILEGED_GIDS =         | privileged group IDs, separated by ","
TALK_SOCKET =                   | the talk socket; default: cvmfs_io.<repository> in the workspace
TALK_OWNER =                    | user who owns the talk socket
USYSLOG =                       | file to log to instead of the system's log; rotated once at 500 kB
SYSLOG_LEVEL =                  | log level: 1 for debug, 2 for information, 3 for warnings
SYSLOG_FACILITY =               | syslog facility: 0 to 7 for LOCAL0 to LOCAL7
SYSLOG_PREFIX =                 | prefix of log lines; default: the repository name
DEBUGLOG =                      | file that additionally receives all log messages
OOM_SCORE_ADJ =                 | bias of the kernel's out-of-memory killer, -1000 to 1000
CPU_AFFINITY =                  | cores to run on, separated by ","
""")

_IGNORED = """
    AUTHZ_HELPER AUTHZ_SEARCH_PATH CACHE_PRIMARY CACHE_REFCOUNT DNS_ROAMING ENFORCE_ACLS
    FUSE3_IDLE_THREADS FUSE3_MAX_THREADS FUSE_NOTIFY_INVALIDATION IGNORE_SIGNATURE INFLUX_EXTRA_FIELDS
    INFLUX_EXTRA_TAGS INFLUX_HOST INFLUX_METRIC_NAME INFLUX_PORT INITIAL_GENERATION INSTRUMENT_FUSE MOUNT_RW
    NFS_INTERLEAVED_INODES NFS_SHARED NFS_SOURCE NOTIFICATION_SERVER RELOAD_SOCKETS
    SERVER_CACHE_MODE STREAMING_CACHE SYSTEMD_NOKILL TELEMETRY_RATE
    REPOSITORIES STRICT_MOUNT USER USE_CDN CACHE_SYMLINKS STATFS_CACHE_TIMEOUT
    KCACHE_TIMEOUT TELEMETRY_SEND TRACEBUFFER TRACEBUFFER_THRESHOLD TRACEFILE TRUSTED_CERTS USE_SSL_SYSTEM_CA
"""

KNOWN_WITHOUT_MEANING = frozenset("CVMFS_" + name for name in _IGNORED.split())
"""Parameters of the reference client that have no effect here."""
