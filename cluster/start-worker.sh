#!/usr/bin/env bash
# Start a worker node of a Ray cluster by hand, in the foreground: start-worker.sh HEAD[:PORT] [options of `ray start`]
#
# The node offers this machine's CPUs and GPUs. It needs the head's token: see start-head.sh.
set -euo pipefail
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"
export RAY_USAGE_STATS_ENABLED="${RAY_USAGE_STATS_ENABLED:-0}"

if [[ $# -lt 1 || $1 == -* ]]; then
  echo "usage: $0 HEAD[:PORT] [options of ray start]" >&2
  exit 2
fi
head=$1
shift
[[ $head == *:* ]] || head=$head:6379
if [[ ! -s $RAY_AUTH_TOKEN_PATH ]]; then
  echo "error: no token in $RAY_AUTH_TOKEN_PATH; copy the file from the head" >&2
  exit 2
fi
ulimit -n "$(ulimit -Hn)"
exec ray start --block --address="$head" \
  --object-manager-port=8076 --node-manager-port=8077 --runtime-env-agent-port=8078 --metrics-export-port=8080 \
  --dashboard-agent-listen-port=52365 --dashboard-agent-grpc-port=52366 \
  --min-worker-port=20000 --max-worker-port=20999 "$@"
