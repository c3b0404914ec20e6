#!/usr/bin/env bash
# llama-server instance 4403-glm-4.7-flash-q4 on port 4403, kept running by supervisor.
# Written by the Ansible collection gpufleet.llamacpp; a change made here is overwritten by the next deploy.
#
# What runs (launch <% launch_id %>), one option a line:
#
#   /usr/bin/apptainer exec
#     --nv
#     --no-eval
#     --cleanenv
#     --no-home
#     --pwd /
#     --bind /etc/ssl/certs:/etc/ssl/certs:ro
#     --bind /etc/pki:/etc/pki:ro
#     --bind /data/models:/models
#     --env XDG_CONFIG_HOME=/nonexistent
#     --env CUDA_DEVICE_ORDER=PCI_BUS_ID
#     --env CUDA_VISIBLE_DEVICES=GPU-0f5a1c00-fa4e-4e56-8d4c-000000000000,GPU-1f5a1c00-fa4e-4e56-8d4c-000000000001,GPU-2f5a1c00-fa4e-4e56-8d4c-000000000002,GPU-3f5a1c00-fa4e-4e56-8d4c-000000000003
#     /home/operator/llamacpp/shared/llamacpp-cuda-complete-<% lab_image_sha256[:12] %>.sif
#     /opt/llama.cpp/build/bin/llama-server
#     -m /models/SmolLM2-135M-Instruct.Q4_1.gguf
#     -ngl 99
#     -c 8192
#     --port 4403
#     --host 0.0.0.0
#     -t 1
#     --jinja
#     --fit on
#     --temp 1.0
#     --top-p 0.95
#     --min-p 0.01
#     --repeat-penalty 1.0
#
# Added to what was asked for:
#   --no-eval: values of --env are taken as they stand; the runtime would evaluate $(...) in them
#   --cleanenv: nothing of the caller's environment, such as LLAMA_ARG_*, reaches llama-server
#   --no-home: nothing of the user's home folder is seen inside
#   XDG_CONFIG_HOME: llama-server reads no config.ini, whose options would come before these
#   CUDA_DEVICE_ORDER: GPU numbers are those of nvidia-smi; CUDA's own order is fastest first
set -u

name=4403-glm-4.7-flash-q4
url=http://127.0.0.1:4403
host=0.0.0.0
port=4403
manager=supervisor
state_file=/home/operator/llamacpp/4403-glm-4.7-flash-q4/running.json
start_timeout=121
stop_timeout=90
prepare_command=(/home/operator/llamacpp/venv/bin/supervisord -c /home/operator/llamacpp/supervisord.conf)
start_command=(/home/operator/llamacpp/venv/bin/supervisorctl -c /home/operator/llamacpp/supervisord.conf start 4403-glm-4.7-flash-q4)
stop_command=(/home/operator/llamacpp/venv/bin/supervisorctl -c /home/operator/llamacpp/supervisord.conf stop 4403-glm-4.7-flash-q4)
pid_command=(/home/operator/llamacpp/venv/bin/supervisorctl -c /home/operator/llamacpp/supervisord.conf pid 4403-glm-4.7-flash-q4)
logs_command=(tail -n 100 -F /home/operator/llamacpp/4403-glm-4.7-flash-q4/llama-server.log)

say() { printf '%s: %s\n' "$name" "$*"; }

# One value out of the runner's account of the running server.
state() {
  [ -r "$state_file" ] && sed -n "s/^.*\"$1\": \([0-9][0-9]*\).*$/\1/p" "$state_file" | head -n 1
}

# The process with this number, if it is the one that the runner started: a number alone may have been reused.
process() {
  local pid start stat fields
  pid=$(state "$1_pid")
  start=$(state "$1_start")
  [ -n "$pid" ] && [ -n "$start" ] && [ -r "/proc/$pid/stat" ] || return 1
  stat=$(cat "/proc/$pid/stat" 2>/dev/null) || return 1
  read -r -a fields <<<"${stat##*) }"
  [ "${fields[0]}" != Z ] && [ "${fields[19]}" = "$start" ] && printf '%s\n' "$pid"
}

health() {
  curl --silent --output /dev/null --noproxy '*' --max-time 5 --write-out '%{http_code}' "$url/health" 2>/dev/null
}

gpu_use() {
  command -v nvidia-smi >/dev/null || return 0
  local gpus
  gpus=$(nvidia-smi --query-gpu=index,uuid,memory.total --format=csv,noheader,nounits 2>/dev/null) || return 0
  nvidia-smi --query-compute-apps=pid,gpu_uuid,used_memory --format=csv,noheader,nounits 2>/dev/null |
    awk -F', *' -v pid="$1" -v gpus="$gpus" '
      BEGIN {
        n = split(gpus, rows, "\n")
        for (i = 1; i <= n; i++) { split(rows[i], f, ", *"); index_of[f[2]] = f[1]; total[f[2]] = f[3] }
      }
      $1 == pid { printf "  GPU %s      %s MiB of %s MiB\n", index_of[$2], $3, total[$2] }' | sort -n -k 2
}

start() {
  if process server >/dev/null && [ "$(health)" = 200 ]; then
    say "is running already"
    return 0
  fi
  local before waited=0 code said
  before=$(state runner_pid)
  # A manager that has to be started first may start the server with it.
  "${prepare_command[@]}" >/dev/null 2>&1
  if ! said=$("${start_command[@]}" 2>&1) && [[ $said != *"already started"* ]]; then
    printf '%s\n' "$said" >&2
    return 1
  fi
  while [ "$waited" -lt "$start_timeout" ]; do
    sleep 1
    waited=$((waited + 1))
    code=$(health)
    if [ "$code" = 200 ] && process server >/dev/null; then
      say "ready after $waited s, $url"
      return 0
    fi
    if [ "$(state runner_pid)" != "$before" ] && grep -q '"status"' "$state_file" 2>/dev/null; then
      say "llama-server ended with exit status $(state status); see: $0 logs" >&2
      return 1
    fi
    [ $((waited % 10)) -ne 0 ] || say "waiting since $waited s (503 is: loading the model): $code"
  done
  say "not ready after $start_timeout s, it goes on in the background; see: $0 logs" >&2
  return 1
}

stop() {
  if ! process runner >/dev/null; then
    say "is not running"
    # Nor is it to be started again. supervisord does that as soon as it is spoken to, and a TERM just then is lost.
    "${pid_command[@]}" >/dev/null 2>&1
    "${stop_command[@]}" >/dev/null 2>&1
    return 0
  fi
  local pid waited=0
  say "stopping; requests in flight may end first"
  "${stop_command[@]}" && ! process runner >/dev/null && return 0
  # Its manager is gone, so nobody but us can end it, and it takes as long as the manager would have allowed.
  pid=$(process runner) && kill "$pid"
  while process runner >/dev/null; do
    [ "$waited" -lt "$stop_timeout" ] || return 1
    sleep 1
    waited=$((waited + 1))
  done
}

status() {
  local pid code word
  if ! pid=$(process server); then
    if process runner >/dev/null; then
      say "is starting"
      return 0
    fi
    say "is not running"
    return 3
  fi
  code=$(health)
  case $code in
    200) word="ok" ;;
    503) word="loading the model (503)" ;;
    000) word="no answer" ;;
    *) word="HTTP $code" ;;
  esac
  say "is running"
  printf '  pid        %s (%s)\n' "$pid" "$manager"
  printf '  uptime     %s\n' "$(ps -o etime= -p "$pid" | tr -d ' ')"
  printf '  health     %s\n' "$word"
  printf '  listens    %s:%s\n' "$host" "$port"
  printf '  endpoints  %s/v1/chat/completions\n             %s/v1/models\n             %s/health\n' "$url" "$url" "$url"
  gpu_use "$pid"
  return 0
}

case "${1:-}" in
  start) start ;;
  stop) stop ;;
  restart) stop && start ;;
  status) status ;;
  logs) exec "${logs_command[@]}" ;;
  *)
    printf 'usage: %s start|stop|restart|status|logs\n' "$0" >&2
    exit 2
    ;;
esac
