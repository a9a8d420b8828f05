# What deploy/local/up and deploy/local/down share.
# shellcheck shell=bash

STATE_DEFAULT="${XDG_STATE_HOME:-${HOME:-/nonexistent}/.local/state}/ministry-local"

BEGAN_US="${EPOCHREALTIME/[.,]/}"

# One line of progress with the time since the beginning.
say() {
    local passed=$(( ${EPOCHREALTIME/[.,]/} - BEGAN_US ))
    printf '[%3d.%02d s] %s\n' $(( passed / 1000000 )) $(( passed / 10000 % 100 )) "$*"
}

# What cannot work: one line, and the end.
refuse() {
    printf '%s: %s\n' "$PROGRAM" "$*" >&2
    exit 1
}

usage_error() {
    printf '%s: %s; see %s --help\n' "$PROGRAM" "$*" "$PROGRAM" >&2
    exit 2
}

# Whether a text is a whole number from $2 to $3.
is_number() {
    [[ "$1" =~ ^[0-9]{1,9}$ ]] && (( 10#$1 >= $2 && 10#$1 <= $3 ))
}

# An absolute path without resolving what does not exist.
absolute() {
    realpath -m -- "$1"
}

node_folder() {
    printf '%s/nodes/%s' "$STATE" "$1"
}

# The process of node $1, if it runs: by its pid file, and only if the process is ours, since the
# number may belong to another program by now.
node_pid() {
    local pid file="$STATE/run/node-$1.pid" argument
    [[ -r "$file" ]] || return 1
    read -r pid <"$file" || return 1
    [[ "$pid" =~ ^[0-9]+$ && -r "/proc/$pid/cmdline" ]] || return 1
    while IFS= read -r -d '' argument; do
        if [[ "$argument" == "$(node_folder "$1")" ]]; then
            # A zombie has no command line, so this one runs.
            printf '%s' "$pid"
            return 0
        fi
    done <"/proc/$pid/cmdline"
    return 1
}

# The kind of what is mounted at $1, for example fuse.ministry; nothing if nothing is. Reads the
# kernel's table: asking the path itself could hang on a mount that does not answer.
mounted_kind() {
    local line wanted found kind=""
    wanted="$(absolute_of_mount "$1")"
    while IFS= read -r line; do
        found="${line#* * * * }"
        printf -v found '%b' "${found%% *}"
        if [[ "$found" == "$wanted" ]]; then
            kind="${line#* - }"
            kind="${kind%% *}"
        fi
    done </proc/self/mountinfo
    printf '%s' "$kind"
}

# As absolute, but does not touch the mount point itself: a dead mount fails every look at it.
absolute_of_mount() {
    local parent name
    parent="$(dirname -- "$1")"
    name="$(basename -- "$1")"
    printf '%s/%s' "$(realpath -m -- "$parent" | sed 's,^/$,,')" "$name"
}

unmount_lazily() {
    if [[ "$EUID" -eq 0 ]]; then
        umount -l -- "$1" 2>/dev/null
    else
        fusermount3 -uz -- "$1" 2>/dev/null
    fi
}

# One up or down at a time for a state folder. The lock goes with this process: what it starts in
# the background is started with 9>&-.
lock_state() {
    exec 9>"$STATE/lock"
    flock -n 9 || refuse "another deploy/local/up or down is at work in $STATE: wait for it"
}

# The flag that names the state folder, where it is not the default.
state_flag() {
    [[ "$STATE" == "$STATE_DEFAULT" ]] || printf ' --state %q' "$STATE"
}
