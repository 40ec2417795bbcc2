# shellcheck shell=bash
# Words to whoever runs a script. They go to stderr: stdout is for what is asked for.
say() { printf '%s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}
