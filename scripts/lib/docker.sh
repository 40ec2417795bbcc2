# shellcheck shell=bash disable=SC2154
# PostgreSQL and RabbitMQ from compose.yaml, as a project of this folder ($dir) alone.

docker_answers() {
  command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1 &&
    docker compose version >/dev/null 2>&1
}

docker_project() { echo "gathering-services-$(printf %s "$dir" | cksum | cut -d' ' -f1)"; }

docker_compose() {
  GATHERING_POSTGRES_PORT=$POSTGRES_PORT GATHERING_AMQP_PORT=$AMQP_PORT \
    GATHERING_CONSOLE_PORT=$CONSOLE_PORT \
    docker compose -f "$root/compose.yaml" -p "$(docker_project)" "$@" 9>&-
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
  docker_compose up -d --no-deps --wait "$1" >&2 ||
    die "$1 did not start; see 'docker compose -p $(docker_project) logs $1'"
}

docker_stop() {
  docker_pid "$1" >/dev/null || return 0
  docker_compose unpause "$1" >/dev/null 2>&1 || true
  docker_compose stop "$1" >&2
}

# A server's volume has its name; the network goes with the last server.
docker_remove() {
  docker_compose rm -fs "$1" >&2
  docker volume rm -f "$(docker_project)_$1" >/dev/null
  [ -n "$(docker_compose ps -aq)" ] || docker_compose down >&2
}

docker_pid() {
  local id pid
  id=$(docker_compose ps -q "$1" 2>/dev/null) && [ -n "$id" ] || return 1
  pid=$(docker inspect -f '{{.State.Pid}}' "$id") && [ "$pid" != 0 ] && echo "$pid"
}

docker_signal() {
  docker_pid "$1" >/dev/null || return 1
  case $2 in
    STOP) docker_compose pause "$1" >&2 ;;
    CONT) docker_compose unpause "$1" >&2 ;;
    *) docker_compose kill -s "$2" "$1" >&2 ;;
  esac
}

docker_rabbitmqctl() { docker_compose exec rabbitmq rabbitmqctl "$@"; }
