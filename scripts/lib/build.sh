# shellcheck shell=bash disable=SC2034
# What every script that builds starts with: it goes to the checkout, finds cargo, and
# sees to what a build needs beside Rust.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root" || exit
# shellcheck source=scripts/lib/say.sh
. "$root/scripts/lib/say.sh"
PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
target=${CARGO_TARGET_DIR:-$root/target}
"$root/scripts/prepare"

# Brings servers up, and exports where they are.
use_services() { use_server ''; }

# use_server NAME: of one of them.
use_server() {
  local lines
  "$root/scripts/services" up "$1"
  lines=$("$root/scripts/services" env "$1")
  eval "$lines"
}

# use_fresh_services NAME: the same with new, empty ones, which go when the script ends.
# They lie in the checkout, for the sake of the disk that it is on.
use_fresh_services() {
  mkdir -p "$root/.services"
  GATHERING_SERVICES_DIR=$(mktemp -d "$root/.services/$1.XXXXXX")
  chmod 755 "$GATHERING_SERVICES_DIR"
  export GATHERING_SERVICES_DIR
  trap '"$root/scripts/services" reset; rm -rf "$GATHERING_SERVICES_DIR"' EXIT
  use_services
}
