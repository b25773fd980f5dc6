"""The parameters of /etc/cvmfs that have a meaning for this client: name, default, what it sets.

Owns: the table (CernVM-FS format reference, section 7.2). The defaults are those of the reference client's
code, and where its packages ship a ``default.conf`` that says otherwise, of that file, for a node need not
have those packages. Must not know: where values come from, nor who uses them.
"""

from typing import NamedTuple

__all__ = ["KNOWN_WITHOUT_MEANING", "PARAMETERS", "Parameter"]


class Parameter(NamedTuple):
    """``default`` as it would stand in a file, empty for none; ``meaning`` for people, with the unit."""

    default: str
    meaning: str


def _table(text: str) -> dict[str, Parameter]:
    """Read lines of ``NAME = default | meaning``."""
    table = {}
    for line in text.strip().splitlines():
        setting, _, meaning = line.partition(" | ")
        name, _, default = setting.partition("=")
        table["CVMFS_" + name.strip()] = Parameter(default.strip(), meaning.strip())
    return table


PARAMETERS = _table("""
SERVER_URL =                    | servers of the repository, separated by ";"; @fqrn@ and @org@ are replaced
DEFAULT_DOMAIN =                | domain appended to repository names without a dot
CONFIG_REPOSITORY =             | repository that holds more configuration
CONFIG_REPO_REQUIRED = no       | refuse to mount while the configuration repository is not there
MOUNT_DIR = /cvmfs              | where repositories are mounted
CLIENT_PROFILE =                | "single": one machine; proxies default to auto;DIRECT
USE_GEOAPI = no                 | let the servers sort themselves by distance
MAX_SERVERS =                   | use only that many servers, the first ones
PUBLIC_KEY =                    | files with public keys, separated by ":"
KEYS_DIR =                      | directory whose *.pub are the public keys
BLACKLIST =                     | file of refused certificates and revisions
ROOT_HASH =                     | mount this root catalog and never another
REPOSITORY_TAG =                | mount this named tag and never another
REPOSITORY_DATE =               | mount the newest revision of that time, ISO 8601 in UTC
AUTO_UPDATE = yes               | follow new revisions
ALT_ROOT_PATH = no              | fetch root catalog and certificate from the bootstrap paths
MAX_TTL = 0                     | longest time between two looks for a new revision, minutes; 0: no limit
HTTP_PROXY =                    | proxies: groups separated by ";", members by "|"; DIRECT for none; auto
FALLBACK_PROXY =                | proxies for when all others fail
PAC_URLS =                      | where "auto" finds proxy configuration files, separated by ";"
PROXY_SHARD = no                | spread objects over the proxies of a group by their digest
PROXY_RESET_AFTER = 300         | seconds until the first proxy group is tried again
HOST_RESET_AFTER = 1800         | seconds until the first server is tried again
TIMEOUT = 5                     | seconds to connect, and to wait for data, through a proxy
TIMEOUT_DIRECT = 5              | the same without a proxy
MAX_RETRIES = 1                 | retries of one transfer before it moves on
BACKOFF_INIT = 2                | longest first pause between retries, seconds
BACKOFF_MAX = 10                | longest pause between retries, seconds
LOW_SPEED_LIMIT = 1024          | bytes per second below which a transfer counts as hanging
FAILOVER_INDEFINITELY = no      | go round the proxies until one answers
FOLLOW_REDIRECTS = no           | follow up to 4 redirects
SEND_INFO_HEADER = no           | tell servers the path that an object is fetched for
HTTP_TRACING = no               | tell servers the process and user that an object is fetched for
HTTP_TRACING_HEADERS =          | more headers, "key:value" separated by "|"
PROXY_TEMPLATE =                | name that stands for the proxy in questions to the Geo API
IPFAMILY_PREFER =               | 4 or 6: which addresses of a proxy are used where it has both
MAX_IPADDR_PER_PROXY = 0        | use only that many addresses of one proxy name; 0: all
DNS_SERVER =                    | address of the name server to ask instead of the system's
DNS_RETRIES = 1                 | repetitions of a question to the name server
DNS_TIMEOUT = 3                 | seconds to wait for the name server
DNS_MIN_TTL = 60                | seconds that the addresses of a proxy are kept at least
DNS_MAX_TTL = 86400             | seconds that the addresses of a proxy are kept at most
EXTERNAL_URL =                  | servers of external files, separated by ";"
EXTERNAL_HTTP_PROXY =           | proxies for external files
EXTERNAL_FALLBACK_PROXY =       | fallback proxies for external files
EXTERNAL_TIMEOUT =              | like CVMFS_TIMEOUT, for external files; empty for the same
EXTERNAL_TIMEOUT_DIRECT =       | like CVMFS_TIMEOUT_DIRECT, for external files; empty for the same
EXTERNAL_MAX_SERVERS =          | like CVMFS_MAX_SERVERS, for external files
CACHE_BASE = /var/lib/cvmfs     | directory that holds the cache in a subdirectory
CACHE_DIR =                     | the cache directory itself
SHARED_CACHE = yes              | one cache for all repositories
QUOTA_LIMIT = 4000              | size that the cache is kept below, in MB of 1024 x 1024 bytes; -1: unlimited
ALIEN_CACHE =                   | cache directory that somebody else manages
WORKSPACE =                     | where the client keeps its state; the cache directory if not set
MEMCACHE_SIZE = 16              | memory for metadata, MB
NFILES = 131072                 | open files that the client may hold
CATALOG_WATERMARK =             | catalogs that may be open at once
CLAIM_OWNERSHIP = no            | everything belongs to who mounts
CHECK_PERMISSIONS = yes         | the kernel checks modes and owners
WORLD_READABLE = no             | everything may be read by everybody
UID_MAP =                       | file that maps user numbers
GID_MAP =                       | file that maps group numbers
SUID = no                       | setuid bits have an effect
HIDE_MAGIC_XATTRS = no          | the same as CVMFS_MAGIC_XATTRS_VISIBILITY=never
MAGIC_XATTRS_VISIBILITY = rootonly | where listings show magic attributes: rootonly, always, never
XATTR_PROTECTED_XATTRS =        | magic attributes that only some groups may read, separated by ","
XATTR_PRIVILEGED_GIDS =         | those groups, as numbers separated by ","
TALK_SOCKET =                   | the talk socket; cvmfs_io.<repository> in the workspace if not set
TALK_OWNER =                    | user who owns the talk socket
USYSLOG =                       | file to log to instead of the system's log; it grows to 500 kB, twice
SYSLOG_LEVEL =                  | what is logged: 1 everything, 2 from information on, 3 from warnings on
SYSLOG_FACILITY =               | log to the system's facility LOCAL0 to LOCAL7, as a number
SYSLOG_PREFIX =                 | what each line in the log begins with; the repository if not set
DEBUGLOG =                      | file to which everything is logged, too
OOM_SCORE_ADJ =                 | how much rather the kernel should end this process, -1000 to 1000
CPU_AFFINITY =                  | numbers of the cores to run on, separated by ","
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
"""Parameters of the reference client that change nothing here."""
