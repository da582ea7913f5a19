#!/usr/bin/env bash
# One host: the Trainer starts the other processes. PROCESSES is the number of all processes. The accelerator auto takes
# GPUs if there are any (NCCL), otherwise the CPU (gloo).
set -euo pipefail
exec torchnn fit --trainer.devices "${PROCESSES:-2}" --trainer.accelerator "${ACCELERATOR:-auto}" "$@"
