#!/usr/bin/env bash
# Start the head of a Ray cluster by hand, in the foreground: start-head.sh [options of `ray start`]
#
# Uses token authentication and fixed ports. The dashboard and its job API listen on loopback. Creates the token if there
# is none.
set -euo pipefail
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"
# Ray's GCS keeps 3 kB for each of the last 100,000 calls, unless it is told to keep fewer.
export RAY_task_events_max_num_task_in_gcs="${RAY_task_events_max_num_task_in_gcs:-5000}"
export RAY_USAGE_STATS_ENABLED="${RAY_USAGE_STATS_ENABLED:-0}"

if [[ ! -s $RAY_AUTH_TOKEN_PATH ]]; then
  mkdir -p "$(dirname "$RAY_AUTH_TOKEN_PATH")"
  (umask 077 && python3 -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH")
  echo "created a token: copy $RAY_AUTH_TOKEN_PATH to every worker and to every machine that submits runs" >&2
fi
ulimit -n "$(ulimit -Hn)"
# --num-cpus=0: only the driver and the coordinator run on the head. To run scorers too, pass --num-cpus and --num-gpus.
exec ray start --head --block --num-cpus=0 --num-gpus=0 \
  --port=6379 --dashboard-host=127.0.0.1 --dashboard-port=8265 --ray-client-server-port=10001 \
  --object-manager-port=8076 --node-manager-port=8077 --runtime-env-agent-port=8078 --metrics-export-port=8080 \
  --dashboard-agent-listen-port=52365 --dashboard-agent-grpc-port=52366 \
  --min-worker-port=20000 --max-worker-port=20999 "$@"
