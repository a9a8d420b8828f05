# Where the build keeps what is dear: sourced by deploy/local/up and tests/run, for one build of
# both. RocksDB's C++ takes minutes, so its archive is kept and used again.
#
# Sets CARGO_TARGET_DIR unless it is set, and ROCKSDB_LIB_DIR with ROCKSDB_STATIC where an archive
# of the right version is kept. Needs MINISTRY_ROOT: the top of the source tree.
# Functions: ministry_packages_missing, ministry_prepare_rocksdb.
# shellcheck shell=bash

: "${MINISTRY_ROOT:?set it to the top of the source tree before sourcing this file}"

MINISTRY_CACHE="${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/ministry"
if ! mkdir -p "$MINISTRY_CACHE" 2>/dev/null; then
    MINISTRY_CACHE=""
fi

if [[ -z "${CARGO_TARGET_DIR:-}" ]]; then
    if [[ -n "$MINISTRY_CACHE" ]]; then
        CARGO_TARGET_DIR="$MINISTRY_CACHE/target"
    else
        CARGO_TARGET_DIR="$MINISTRY_ROOT/target"
    fi
fi
export CARGO_TARGET_DIR

if ! command -v cargo >/dev/null 2>&1 && [[ -x "${HOME:-}/.cargo/bin/cargo" ]]; then
    PATH="$HOME/.cargo/bin:$PATH"
    export PATH
fi

# The version that Cargo.lock names, for example 0.19.0+11.8.1.
ministry_rocksdb_version() {
    awk '$0 == "name = \"librocksdb-sys\"" { found = 1 }
         found && $1 == "version" { gsub(/"/, "", $3); print $3; exit }' \
        "$MINISTRY_ROOT/Cargo.lock"
}

# The newest archive that cargo compiled in this target folder; nothing if there is none.
ministry_rocksdb_built() {
    local archive newest=""
    for archive in "$CARGO_TARGET_DIR"/release/build/librocksdb-sys-*/out/librocksdb.a; do
        if [[ -f "$archive" && ( -z "$newest" || "$archive" -nt "$newest" ) ]]; then
            newest="$archive"
        fi
    done
    printf '%s' "$newest"
}

MINISTRY_ROCKSDB_KEPT=""
if [[ -n "$MINISTRY_CACHE" ]]; then
    MINISTRY_ROCKSDB_KEPT="$MINISTRY_CACHE/rocksdb-$(ministry_rocksdb_version)"
fi

# Has cargo link the archive that is kept, if one is.
ministry_use_rocksdb() {
    if [[ -z "${ROCKSDB_LIB_DIR:-}" && -n "$MINISTRY_ROCKSDB_KEPT" \
        && -f "$MINISTRY_ROCKSDB_KEPT/librocksdb.a" ]]; then
        export ROCKSDB_LIB_DIR="$MINISTRY_ROCKSDB_KEPT"
        export ROCKSDB_STATIC=1
    fi
}
ministry_use_rocksdb

# Compiles RocksDB alone and keeps the archive, so that the build of the rest, and every later
# one, finds it. Needs cargo and the packages; without a cache folder there is nothing to do.
ministry_prepare_rocksdb() {
    local built
    if [[ -n "${ROCKSDB_LIB_DIR:-}" || -z "$MINISTRY_ROCKSDB_KEPT" ]]; then
        return 0
    fi
    (cd "$MINISTRY_ROOT" && cargo build --release --locked -p ministry-storage) || return 1
    built="$(ministry_rocksdb_built)"
    # That it cannot be kept costs time, not the build.
    if [[ -n "$built" ]] && mkdir -p "$MINISTRY_ROCKSDB_KEPT" \
        && cp "$built" "$MINISTRY_ROCKSDB_KEPT/.librocksdb.a.$$" \
        && mv "$MINISTRY_ROCKSDB_KEPT/.librocksdb.a.$$" "$MINISTRY_ROCKSDB_KEPT/librocksdb.a"; then
        ministry_use_rocksdb
    fi
}

# Prints the Debian packages that the build (and, for others than root, the mount) lacks.
ministry_packages_missing() {
    local package wanted=(build-essential clang libclang-dev) missing=()
    if [[ "$EUID" -ne 0 ]]; then
        wanted+=(fuse3)
    fi
    if ! command -v dpkg-query >/dev/null 2>&1; then
        # Not Debian: the commands themselves tell.
        command -v cc >/dev/null 2>&1 || missing+=(build-essential)
        command -v clang >/dev/null 2>&1 || missing+=(clang)
        printf '%s' "${missing[*]}"
        return 0
    fi
    for package in "${wanted[@]}"; do
        if [[ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null)" != "ii "* ]]; then
            missing+=("$package")
        fi
    done
    printf '%s' "${missing[*]}"
}
