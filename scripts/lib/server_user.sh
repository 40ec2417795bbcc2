# shellcheck shell=bash disable=SC2154
# PostgreSQL refuses to run as root, and RabbitMQ has no need to. Started by root, each
# runs as the user that its package made, or as nobody; started by a plain user, as that
# user.

# server_prefix SERVER: sets `prefix` to the words before a command of that server.
server_prefix() {
  local server=$1 user
  prefix=()
  [ "$(id -u)" = 0 ] || return 0
  user=$(server_user "$server")
  prefix=(setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups)
  # A checkout below a private folder (/root/…) is closed to that user. This one
  # capability lets its server pass, and nothing else changes hands.
  if ! "${prefix[@]}" test -x "$dir"; then
    prefix+=(--securebits=+no_setuid_fixup --inh-caps +dac_override --ambient-caps +dac_override)
    "${prefix[@]}" test -x "$dir" 2>/dev/null ||
      die "the user $user, as whom root runs $server, cannot enter $dir." \
        "Set GATHERING_SERVICES_DIR to a folder that it can enter, such as /var/tmp/gathering"
  fi
}

# The owner of the data that is there, else the package's user, else nobody.
server_user() {
  local owner=root
  [ ! -d "$dir/$1" ] || owner=$(stat -c %U "$dir/$1")
  if [ "$owner" != root ] && id "$owner" >/dev/null 2>&1; then
    echo "$owner"
  elif id "$1" >/dev/null 2>&1; then
    echo "$1"
  else
    echo nobody
  fi
}

# server_folder SERVER: makes $dir/SERVER, owned by its user.
server_folder() {
  mkdir -p "$dir/$1"
  [ "$(id -u)" != 0 ] || chown "$(server_user "$1"):" "$dir/$1"
  chmod 700 "$dir/$1"
}

# Whether process $1 is alive and was started in folder $2. Process ids are used again
# after a crash of the machine, so a number in a file proves nothing. (grep reads to the
# end: one that stops at what it looks for ends tr, and with it the pipe, by a signal.)
process_of() {
  [ -n "$1" ] && { tr '\0' '\n' <"/proc/$1/environ"; } 2>/dev/null | grep -xF "GATHERING_SERVER=$2" >/dev/null
}

# await_exit PID SECONDS: false when it is still there after that time. It has ended when
# all its threads have, though its parent may not have looked at it yet (Z).
await_exit() {
  local tenths=$(($2 * 10))
  while grep -sq '^State:.[^ZX]' "/proc/$1"/task/*/status; do
    [ $((tenths--)) -gt 0 ] || return 1
    sleep 0.1
  done
}
