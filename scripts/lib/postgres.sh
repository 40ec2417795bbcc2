# shellcheck shell=bash disable=SC2154
# A PostgreSQL from the installed programs, with its data in $dir/postgres.

# The programs' folder: of the version that made the data, else the newest (15 to 18).
postgres_bin() {
  local made_by candidate
  made_by=$(cat "$dir/postgres/data/PG_VERSION" 2>/dev/null || true)
  if [ -n "$made_by" ]; then
    candidate=/usr/lib/postgresql/$made_by/bin
    [ ! -x "$candidate/postgres" ] || { echo "$candidate"; return; }
  fi
  for candidate in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -t/ -k5,5nr); do
    [ ! -x "$candidate/postgres" ] || { echo "$candidate"; return; }
  done
  candidate=$(command -v initdb) || return 1
  dirname "$(readlink -f "$candidate")"
}

postgres_program() {
  local bin
  if bin=$(postgres_bin) && [ -x "$bin/$1" ]; then echo "$bin/$1"; else command -v "$1"; fi
}

# The request for TLS is answered by one letter before anything else is asked; a halted
# server (SIGSTOP) takes the connection, but gives no answer.
postgres_answers() {
  # shellcheck disable=SC2016 # $1 is of the inner shell
  [ -n "$(timeout 5 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1" &&
    printf "\0\0\0\x08\x04\xd2\x16\x2f" >&3 && head -c 1 <&3' _ "$POSTGRES_PORT" 2>/dev/null)" ]
}

postgres_pid() {
  local pid
  pid=$(head -n 1 "$dir/postgres/data/postmaster.pid" 2>/dev/null) || return 1
  process_of "$pid" "$dir/postgres" && echo "$pid"
}

postgres_up() {
  postgres_bin >/dev/null || install_packages postgresql
  local pid data=$dir/postgres/data
  if pid=$(postgres_pid); then
    die "PostgreSQL runs (process $pid) but does not answer." \
      "Run 'scripts/services thaw postgres', or 'scripts/services kill postgres' and start again"
  fi
  choose_port POSTGRES_PORT "$(first_port 27432)" "${GATHERING_POSTGRES_PORT:-}"
  server_folder postgres
  local prefix
  server_prefix postgres
  [ -d "$data" ] || postgres_create "$data"
  postgres_settings | "${prefix[@]}" tee "$data/gathering.conf" >/dev/null
  # Left by a killed machine; its number may be another process's by now.
  rm -f "$data/postmaster.pid"
  say "starting PostgreSQL on port $POSTGRES_PORT"
  (cd / && exec 9>&- && "${prefix[@]}" env GATHERING_SERVER="$dir/postgres" LC_ALL=C \
    "$(postgres_bin)/pg_ctl" start -D "$data" -l "$dir/postgres/log" -w -t 60 -s) </dev/null ||
    { tail -n 15 "$dir/postgres/log" >&2; die "PostgreSQL did not start; its log is $dir/postgres/log"; }
}

# The role and its database are made in single-user mode, before anyone can connect; the
# superuser gets no password, so nobody can sign in as it. The folder takes its name
# last: a half-made one is made again.
postgres_create() {
  local data=$1 new=$1.new bin
  bin=$(postgres_bin)
  say "creating a PostgreSQL $("$bin/postgres" --version | awk '{ print $3 }') database in $data"
  rm -rf "$new"
  (
    cd / &&
      "${prefix[@]}" "$bin/initdb" -D "$new" -U postgres -A trust -E UTF8 --locale="$(postgres_locale)" &&
      echo 'host all all 127.0.0.1/32 scram-sha-256' | "${prefix[@]}" tee "$new/pg_hba.conf" >/dev/null &&
      echo "include = 'gathering.conf'" | "${prefix[@]}" tee -a "$new/postgresql.conf" >/dev/null &&
      postgres_settings | "${prefix[@]}" tee "$new/gathering.conf" >/dev/null &&
      "${prefix[@]}" "$bin/postgres" --single -D "$new" postgres <<'SQL'
create role gathering login createdb password 'gathering'
grant pg_monitor, pg_signal_backend to gathering
create database gathering owner gathering
SQL
  ) >"$dir/postgres.create.log" 2>&1 || die "could not create it; see $dir/postgres.create.log"
  mv "$new" "$data"
  rm -f "$dir/postgres.create.log"
}

# The order of text is to be the same on every machine.
postgres_locale() { if locale -a 2>/dev/null | grep -qix 'c\.utf-\?8'; then echo C.UTF-8; else echo C; fi; }

postgres_settings() {
  cat <<SETTINGS
# Written by scripts/services at each start.
listen_addresses = '127.0.0.1'
port = $POSTGRES_PORT
unix_socket_directories = ''
max_connections = 300
shared_buffers = 256MB
max_wal_size = 2GB
checkpoint_timeout = 15min
# A small queue table lives on being vacuumed soon and at full speed.
autovacuum_naptime = 10s
autovacuum_vacuum_cost_limit = 2000
jit = off
log_line_prefix = '%m [%p] %q%a %d '
log_min_duration_statement = 1s
log_lock_waits = on
SETTINGS
}

postgres_stop() {
  local pid
  pid=$(postgres_pid) || return 0
  say "stopping PostgreSQL"
  postgres_signal CONT
  kill -INT "$pid" # "fast": it ends its sessions, and writes a checkpoint
  await_exit "$pid" 60 || { kill -QUIT "$pid"; await_exit "$pid" 10 || postgres_signal KILL; }
}

# Halting and killing concern its children too: they would work on by themselves.
postgres_signal() {
  local pid child children
  pid=$(postgres_pid) || return 1
  read -ra children <"/proc/$pid/task/$pid/children" || true # it ends without a newline
  kill "-$1" "$pid"
  for child in "${children[@]}"; do
    kill "-$1" "$child" 2>/dev/null || true # it may have ended meanwhile
  done
  [ "$1" != KILL ] || await_exit "$pid" 10
}
