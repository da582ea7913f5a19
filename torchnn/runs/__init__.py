"""What a run reads and writes: checkpoints, reports, predictions, exports."""
