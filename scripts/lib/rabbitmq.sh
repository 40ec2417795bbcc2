# shellcheck shell=bash disable=SC2154
# A RabbitMQ from the installed programs, with its data in $dir/rabbitmq. It has an epmd
# (Erlang's registry of node names) and a cookie of its own, so it neither meets nor
# disturbs another RabbitMQ on the machine.

# The programs themselves: the commands in Debian's /usr/sbin insist on being run by
# root, and as the system's own user.
rabbitmq_program() {
  local candidate
  for candidate in /usr/lib/rabbitmq/bin "${RABBITMQ_HOME:-/opt/rabbitmq}/sbin" /usr/local/sbin; do
    [ ! -x "$candidate/$1" ] || { echo "$candidate/$1"; return; }
  done
  command -v "$1"
}

# It answers when it greets, and when the console knows the user.
rabbitmq_answers() { amqp_greets && console_greets; }

# The header of AMQP 0-9-1 is answered by a frame whose first byte is 1 (a method).
amqp_greets() {
  # shellcheck disable=SC2016 # $1 is of the inner shell
  [ "$(timeout 5 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1" &&
    printf "AMQP\0\0\x09\x01" >&3 && head -c 1 <&3 | od -An -tu1' _ "$AMQP_PORT" 2>/dev/null)" = '   1' ]
}

console_greets() {
  # shellcheck disable=SC2016
  timeout 5 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1" &&
    printf "GET /api/whoami HTTP/1.0\r\nAuthorization: Basic %s\r\n\r\n" "$2" >&3 &&
    read -r _ code _ <&3 && [ "$code" = 200 ]' \
    _ "$CONSOLE_PORT" "$(printf gathering:gathering | base64)" 2>/dev/null
}

rabbitmq_pid() {
  local pid
  pid=$(cat "$dir/rabbitmq/pid" 2>/dev/null) || return 1
  process_of "$pid" "$dir/rabbitmq" && echo "$pid"
}

# Found by its surroundings: RabbitMQ starts it anew by itself when it is gone.
epmd_pid() {
  local comm pid
  for comm in $(grep -slx epmd /proc/[0-9]*/comm); do
    pid=${comm//[!0-9]/}
    if process_of "$pid" "$dir/rabbitmq"; then echo "$pid"; return; fi
  done
  return 1
}

rabbitmq_up() {
  rabbitmq_program rabbitmq-server >/dev/null || install_packages rabbitmq-server
  local pid
  if pid=$(rabbitmq_pid); then
    die "RabbitMQ runs (process $pid) but does not answer." \
      "Run 'scripts/services thaw rabbitmq', or 'scripts/services kill rabbitmq' and start again"
  fi
  if pid=$(epmd_pid); then kill "$pid"; await_exit "$pid" 5; fi
  local first
  first=$(first_port 27672)
  choose_port AMQP_PORT "$first" "${GATHERING_AMQP_PORT:-}"
  choose_port CONSOLE_PORT $((first + 1)) "${GATHERING_CONSOLE_PORT:-}"
  choose_port EPMD_PORT $((first + 2))
  choose_port DIST_PORT $((first + 3))
  server_folder rabbitmq
  local prefix
  server_prefix rabbitmq
  rabbitmq_settings | "${prefix[@]}" tee "$dir/rabbitmq/rabbitmq.conf" >/dev/null
  echo '[rabbitmq_management].' | "${prefix[@]}" tee "$dir/rabbitmq/enabled_plugins" >/dev/null

  say "starting RabbitMQ on port $AMQP_PORT"
  rabbitmq_spawn /dev/null epmd -port "$EPMD_PORT" -address 127.0.0.1
  local tenths=50
  until port_taken "$EPMD_PORT" || [ $((tenths -= 1)) = 0 ]; do sleep 0.1; done
  # Under this variable its script becomes the server, instead of waiting for it.
  rabbitmq_spawn "$dir/rabbitmq/pid" env RUNNING_UNDER_SYSTEMD=true "$(rabbitmq_program rabbitmq-server)"
  rabbitmq_await
}

# rabbitmq_spawn PIDFILE COMMAND…: in a session of its own, holding none of our files.
rabbitmq_spawn() {
  local pidfile=$1 environment
  shift
  rabbitmq_environment
  (cd / && exec setsid "${prefix[@]}" "${environment[@]}" "$@") \
    </dev/null >>"$dir/rabbitmq/output" 2>&1 9>&- &
  echo $! >"$pidfile"
  disown
}

# Sets `environment`: nothing of the caller's, nor of /etc/rabbitmq, gets in.
rabbitmq_environment() {
  local home=$dir/rabbitmq
  environment=(env -i PATH="$PATH" LANG=C.UTF-8 HOME="$home"
    GATHERING_SERVER="$home"
    RABBITMQ_CONF_ENV_FILE="$home/rabbitmq-env.conf"
    RABBITMQ_CONFIG_FILE="$home/rabbitmq.conf"
    RABBITMQ_ADVANCED_CONFIG_FILE="$home/advanced.config"
    RABBITMQ_CONFIG_FILES="$home/conf.d"
    RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins"
    RABBITMQ_NODENAME=gathering@localhost
    RABBITMQ_MNESIA_BASE="$home" RABBITMQ_MNESIA_DIR="$home/data"
    RABBITMQ_LOG_BASE="$home" RABBITMQ_LOGS="$home/log"
    RABBITMQ_GENERATED_CONFIG_DIR="$home/generated"
    RABBITMQ_PID_FILE="$home/data.pid"
    RABBITMQ_DIST_PORT="$DIST_PORT"
    ERL_EPMD_PORT="$EPMD_PORT" ERL_EPMD_ADDRESS=127.0.0.1
    ERL_CRASH_DUMP="$home/erl_crash.dump"
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'
    RABBITMQ_CTL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}')
}

rabbitmq_settings() {
  cat <<SETTINGS
# Written by scripts/services at each start.
listeners.tcp.default = 127.0.0.1:$AMQP_PORT
management.tcp.ip = 127.0.0.1
management.tcp.port = $CONSOLE_PORT
default_user = gathering
default_pass = gathering
default_user_tags.administrator = true
disk_free_limit.absolute = 200MB
raft.wal_max_size_bytes = 67108864
vm_memory_high_watermark.relative = 0.4
log.console = false
log.file = $dir/rabbitmq/log
log.file.level = info
SETTINGS
}

rabbitmq_await() {
  local tenths=1200
  until rabbitmq_answers; do
    if ! kill -0 "$(cat "$dir/rabbitmq/pid")" 2>/dev/null || [ $((tenths -= 1)) -le 0 ]; then
      tail -n 15 "$dir/rabbitmq/output" "$dir/rabbitmq/log" >&2 || true
      die "RabbitMQ did not start; its log is $dir/rabbitmq/log"
    fi
    sleep 0.1
  done
}

rabbitmq_stop() {
  local pid
  if pid=$(rabbitmq_pid); then
    say "stopping RabbitMQ"
    kill -CONT "$pid"
    kill -TERM "$pid"
    await_exit "$pid" 60 || { kill -KILL "$pid"; await_exit "$pid" 10; }
  fi
  if pid=$(epmd_pid); then kill "$pid"; fi
}

rabbitmq_signal() {
  local pid
  pid=$(rabbitmq_pid) || return 1
  kill "-$1" "$pid"
  [ "$1" != KILL ] || await_exit "$pid" 10
}

rabbitmq_ctl() {
  local prefix environment
  server_prefix rabbitmq
  rabbitmq_environment
  "${prefix[@]}" "${environment[@]}" "$(rabbitmq_program rabbitmqctl)" "$@"
}
