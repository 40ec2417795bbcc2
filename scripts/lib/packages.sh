# shellcheck shell=bash
# Debian's packages, installed without starting or enabling a server of the system's.

# install_packages PACKAGE…: those of them that are missing.
install_packages() {
  local package missing=()
  for package in "$@"; do
    dpkg -s "$package" 2>/dev/null | grep -q '^Status: install ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} != 0 ] || return 0
  command -v apt-get >/dev/null ||
    die "missing: ${missing[*]}. Install PostgreSQL 15 or newer and RabbitMQ 3.10 or newer, or start Docker's engine"
  say "installing ${missing[*]}"
  as_root bash -c "$(declare -f say apt_install); set -euo pipefail; apt_install \"\$@\"" _ "${missing[@]}" >&2 ||
    die "could not install ${missing[*]}; try 'apt-get install ${missing[*]}' yourself, and see what it says"
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "installing packages needs root or sudo. As root: apt-get install ${*: -1}"
  fi
}

# Runs as root, in a shell of its own. Debian starts a server once it is installed,
# unless policy-rc.d forbids it; one that is there already is left as it is.
apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  local policy=/usr/sbin/policy-rc.d apt=(apt-get -q -y -o DPkg::Lock::Timeout=300) unit units=() clusters=
  if [ ! -e "$policy" ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  "${apt[@]}" update
  for unit in postgresql rabbitmq-server redis-server; do
    [[ " $* " != *" $unit "* ]] || units+=("$unit")
  done
  command -v epmd >/dev/null || units+=(epmd)
  # Its package would create a database of the system's own, too.
  if [[ " $* " == *" postgresql "* ]]; then
    "${apt[@]}" install --no-install-recommends postgresql-common
    clusters=/etc/postgresql-common/createcluster.conf
    cp -p "$clusters" "$clusters.before"
    echo 'create_main_cluster = false' >>"$clusters"
  fi
  "${apt[@]}" install --no-install-recommends "$@"
  [ -z "$clusters" ] || mv "$clusters.before" "$clusters"
  for unit in ${units[@]+"${units[@]}"}; do
    [ ! -e "/etc/init.d/$unit" ] || update-rc.d "$unit" disable >/dev/null 2>&1 || true
    if [ -d /run/systemd/system ]; then
      systemctl disable --now "$unit.service" "$unit.socket" >/dev/null 2>&1 || true
    fi
  done
}
