#!/usr/bin/env bash
# Several hosts: the same line on each of them, with its own NODE. torchrun restarts the job up to RESTARTS times, and
# it goes on from its last checkpoint, so that all hosts need the folder that runs land in.
#   HEAD      address and port of the first host, the same on all: head:29400
#   NODE      0 on the first host, 1 on the next ...
#   ADDRESS   of this host, where its name leads nowhere
#   NODES, PROCESSES, RESTARTS   hosts, processes on each, restarts
# gloo finds its network card by the name of the host; where that fails, export GLOO_SOCKET_IFNAME (NCCL_SOCKET_IFNAME).
set -euo pipefail
export TORCH_CPP_LOG_LEVEL=${TORCH_CPP_LOG_LEVEL:-ERROR}  # no page for each connection that breaks
is_first=$([[ "${NODE:?}" == 0 ]] && echo 1 || echo 0)
exec torchrun --nnodes "${NODES:-2}" --nproc-per-node "${PROCESSES:-1}" \
    --rdzv-backend c10d --rdzv-endpoint "${HEAD:?}" --rdzv-id "${JOB:-torchnn}" --rdzv-conf "is_host=$is_first" \
    ${ADDRESS:+--local-addr "$ADDRESS"} --max-restarts "${RESTARTS:-0}" --shutdown-timeout 10 -m torchnn fit "$@"
