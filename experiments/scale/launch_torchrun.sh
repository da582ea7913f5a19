#!/usr/bin/env bash
# Several hosts: run the same line on each host, with its own NODE. torchrun restarts the job up to RESTARTS times. A
# restarted job resumes from its last checkpoint, so all hosts need to share the folder of the runs.
#   HEAD      address and port of the first host, the same on all: head:29400
#   NODE      0 on the first host, 1 on the next ...
#   ADDRESS   of this host, if the others cannot find it by its name
#   NODES, PROCESSES, RESTARTS   hosts, processes on each, restarts
# gloo finds its network card by the name of the host. If that fails, export GLOO_SOCKET_IFNAME (NCCL_SOCKET_IFNAME).
set -euo pipefail
export TORCH_CPP_LOG_LEVEL=${TORCH_CPP_LOG_LEVEL:-ERROR}  # no stack trace for each broken connection
is_first=$([[ "${NODE:?}" == 0 ]] && echo 1 || echo 0)
exec torchrun --nnodes "${NODES:-2}" --nproc-per-node "${PROCESSES:-1}" \
    --rdzv-backend c10d --rdzv-endpoint "${HEAD:?}" --rdzv-id "${JOB:-torchnn}" --rdzv-conf "is_host=$is_first" \
    ${ADDRESS:+--local-addr "$ADDRESS"} --max-restarts "${RESTARTS:-0}" --shutdown-timeout 10 -m torchnn fit "$@"
