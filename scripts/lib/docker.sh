# shellcheck shell=bash disable=SC2154
# PostgreSQL and RabbitMQ from compose.yaml, as a project of this folder ($dir) alone.

docker_answers() {
  command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1 &&
    docker compose version >/dev/null 2>&1
}

docker_compose() {
  GATHERING_POSTGRES_PORT=$POSTGRES_PORT GATHERING_AMQP_PORT=$AMQP_PORT \
    GATHERING_CONSOLE_PORT=$CONSOLE_PORT docker compose -f "$root/compose.yaml" \
    -p "gathering-services-$(printf %s "$dir" | cksum | cut -d' ' -f1)" "$@"
}

docker_up() {
  local first
  first=$(first_port 27672)
  if ! docker_pid "$1" >/dev/null; then
    case $1 in
      postgres) choose_port POSTGRES_PORT "$(first_port 27432)" "${GATHERING_POSTGRES_PORT:-}" ;;
      rabbitmq)
        choose_port AMQP_PORT "$first" "${GATHERING_AMQP_PORT:-}"
        choose_port CONSOLE_PORT $((first + 1)) "${GATHERING_CONSOLE_PORT:-}" ;;
    esac
  fi
  say "starting $1 with Docker"
  docker_compose up -d --wait "$1" || die "$1 did not start; see 'docker compose logs $1'"
}

docker_stop() {
  docker_compose unpause "$1" >/dev/null 2>&1 || true
  docker_compose stop "$1"
}

docker_remove() { docker_compose rm -fsv "$1"; }

docker_pid() {
  local id pid
  id=$(docker_compose ps -q "$1" 2>/dev/null) && [ -n "$id" ] || return 1
  pid=$(docker inspect -f '{{.State.Pid}}' "$id") && [ "$pid" != 0 ] && echo "$pid"
}

docker_signal() {
  case $2 in
    STOP) docker_compose pause "$1" ;;
    CONT) docker_compose unpause "$1" ;;
    *) docker_compose kill -s "$2" "$1" ;;
  esac
}
