"""Training what the encoder serves. Here for now: fitting heads on a frozen base."""
