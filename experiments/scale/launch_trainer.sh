#!/usr/bin/env bash
# One host: the Trainer starts the other processes. PROCESSES is their number; accelerator auto takes GPUs where there
# are some (NCCL), else the CPU (gloo).
set -euo pipefail
exec torchnn fit --trainer.devices "${PROCESSES:-2}" --trainer.accelerator "${ACCELERATOR:-auto}" "$@"
