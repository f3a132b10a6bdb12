#!/usr/bin/env bash
# Start the head of a Ray cluster by hand, in the foreground: start-head.sh [options of `ray start`]
#
# Token authentication, the dashboard and its job API on loopback, fixed ports. The token is made at the first start.
set -euo pipefail
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"
export RAY_USAGE_STATS_ENABLED="${RAY_USAGE_STATS_ENABLED:-0}"

if [[ ! -s $RAY_AUTH_TOKEN_PATH ]]; then
  mkdir -p "$(dirname "$RAY_AUTH_TOKEN_PATH")"
  (umask 077 && python3 -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH")
  echo "made a token: copy $RAY_AUTH_TOKEN_PATH to every worker and to who submits runs" >&2
fi
ulimit -n "$(ulimit -Hn)"
# --num-cpus=0: the driver and the coordinator run here, and no scorer. Give --num-cpus and --num-gpus to change that.
exec ray start --head --block --num-cpus=0 --num-gpus=0 \
  --port=6379 --dashboard-host=127.0.0.1 --dashboard-port=8265 --ray-client-server-port=10001 \
  --object-manager-port=8076 --node-manager-port=8077 --runtime-env-agent-port=8078 --metrics-export-port=8080 \
  --dashboard-agent-listen-port=52365 --dashboard-agent-grpc-port=52366 \
  --min-worker-port=20000 --max-worker-port=20999 "$@"
