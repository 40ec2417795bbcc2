# shellcheck shell=bash disable=SC2034,SC2154
# Which ports the servers of a folder ($dir) listen on. They are remembered in
# $dir/ports, so that addresses stay the same from one start to the next.
#
# All lie below 32768, where Linux begins to hand out ports to outgoing connections:
# a server that restarts under load must not find its port in use by a client.

load_ports() {
  POSTGRES_PORT=0 AMQP_PORT=0 CONSOLE_PORT=0 EPMD_PORT=0 DIST_PORT=0
  # shellcheck source=/dev/null
  if [ -r "$dir/ports" ]; then . "$dir/ports"; fi
}

save_ports() {
  local name
  for name in POSTGRES_PORT AMQP_PORT CONSOLE_PORT EPMD_PORT DIST_PORT; do
    echo "$name=${!name}"
  done >"$dir/ports"
}

port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Servers in a folder named by GATHERING_SERVICES_DIR start at a random place, so that
# several that start at once do not choose the same ports.
first_port() {
  if [ -z "${GATHERING_SERVICES_DIR:-}" ]; then
    echo "$1"
  else
    echo $((20000 + 8 * (RANDOM % 800)))
  fi
}

# choose_port NAME DEFAULT [WANTED]: sets NAME to the port wanted, else the remembered
# one, else the default; to the next free one when that is taken.
choose_port() {
  local name=$1 port=${3:-}
  [ -n "$port" ] || port=${!name}
  [ "$port" != 0 ] || port=$2
  local asked=$port
  while port_taken "$port" || port_chosen "$name" "$port"; do port=$((port + 1)); done
  case $name in
    EPMD_PORT | DIST_PORT) ;; # nobody but RabbitMQ itself uses these
    *) [ "$port" = "$asked" ] || say "port $asked is taken by something else; using $port" ;;
  esac
  printf -v "$name" %s "$port"
  save_ports
}

port_chosen() {
  local name
  for name in POSTGRES_PORT AMQP_PORT CONSOLE_PORT EPMD_PORT DIST_PORT; do
    [ "$name" = "$1" ] || [ "${!name}" != "$2" ] || return 0
  done
  return 1
}
