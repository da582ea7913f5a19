"""What a run reads and leaves: checkpoints, reports, predictions, exports."""
