#!/usr/bin/env bash
# Installs what the end-to-end tests run and do not build: homu 0.2.0 and
# Buildbot 4.3 (a virtual environment of Python 3.11), Prometheus, Alertmanager
# and libfaketime (Debian's packages, unpacked, with no service started).
#
# Everything goes into CI_WATCHDOG_TOOLS, or target/tools. A second run finds
# it there and ends at once. Anything that cannot be had is an error.
#
#   CI_WATCHDOG_PYTHON   the Python 3.11 to use, if it is not found by its name
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=${CI_WATCHDOG_TOOLS:-$here/../../target/tools}
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

# Two test runs that start together install once.
exec 9>"$tools/.lock"
flock 9

# What is there is good only for this list and this script.
version=$(cat "$here/requirements.txt" "${BASH_SOURCE[0]}" | sha256sum | cut -d' ' -f1)
if [[ -f $tools/.installed && $(<"$tools/.installed") == "$version" ]]; then
    exit 0
fi
rm -f "$tools/.installed"

is_3_11() {
    "$1" -c 'import sys, venv; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${CI_WATCHDOG_PYTHON:+"$CI_WATCHDOG_PYTHON"} python3.11 python3; do
        if is_3_11 "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 with its venv module: install it, or name it in CI_WATCHDOG_PYTHON"
}

install_python_packages() {
    local python
    python=$(find_python)
    rm -rf "$tools/venv"
    "$python" -m venv "$tools/venv"
    # The list is complete, so nothing is to be looked up beyond it. homu and
    # github3.py come as sources of the old kind, built by the setuptools that is
    # in the list.
    local setuptools
    setuptools=$(grep '^setuptools==' "$here/requirements.txt")
    "$tools/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "$setuptools"
    "$tools/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
        -r "$here/requirements.txt"
    "$tools/venv/bin/pip" check --disable-pip-version-check >/dev/null ||
        fail "requirements.txt does not fit together: $("$tools/venv/bin/pip" check)"
}

# Making the database takes longer than starting the master, so it is made once.
make_master_database() {
    rm -rf "$tools/master" "$tools/master.new"
    "$tools/venv/bin/buildbot" create-master --quiet "$tools/master.new"
    mkdir "$tools/master"
    mv "$tools/master.new/state.sqlite" "$tools/master/"
    rm -rf "$tools/master.new"
}

download_packages() {
    (cd "$1" && shift && apt-get download "$@") >"$1/log" 2>&1
}

# unpack DIR PACKAGE...: Debian's packages, into a directory that is made anew.
unpack() {
    local dir=$1 package
    shift
    rm -rf "$dir"
    mkdir -p "$dir"
    command -v apt-get >/dev/null || fail "this needs Debian's or Ubuntu's apt-get"
    if ! download_packages "$dir" "$@"; then
        # A fresh container has no lists of packages yet.
        [[ $(id -u) == 0 ]] || fail "run 'apt-get update' as root: $(cat "$dir/log")"
        apt-get update --quiet >/dev/null
        download_packages "$dir" "$@" || fail "$(cat "$dir/log")"
    fi
    for package in "$dir"/*.deb; do
        dpkg -x "$package" "$dir"
    done
    rm "$dir"/*.deb
}

install_prometheus() {
    rm -rf "$tools/bin"
    mkdir -p "$tools/bin"
    unpack "$tools/prometheus" prometheus prometheus-alertmanager
    ln -s ../prometheus/usr/bin/prometheus ../prometheus/usr/bin/promtool \
        ../prometheus/usr/bin/amtool "$tools/bin/"
    # Debian's name for it is longer than everybody else's.
    ln -s ../prometheus/usr/bin/prometheus-alertmanager "$tools/bin/alertmanager"
    local tool
    for tool in prometheus promtool amtool alertmanager; do
        "$tools/bin/$tool" --version >/dev/null 2>&1 || fail "$tool does not run"
    done
}

install_libfaketime() {
    unpack "$tools/faketime" libfaketime
    # Its folder has the machine's architecture in its name.
    (cd "$tools/faketime" && ln -s usr/lib/*/faketime/libfaketime.so.1 .)
    local year
    year=$(LD_PRELOAD="$tools/faketime/libfaketime.so.1" FAKETIME="+10y" date +%Y)
    [[ $year -gt $(($(date +%Y) + 8)) ]] || fail "libfaketime does not fake the time: $year"
}

echo "install.sh: installing into $tools" >&2
install_python_packages
make_master_database
install_prometheus
install_libfaketime
echo "$version" >"$tools/.installed"
