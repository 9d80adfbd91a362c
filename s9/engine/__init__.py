"""What a training run stands on: optimizer, device, checkpoints, progress, failures."""
