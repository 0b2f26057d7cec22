"""What only a CUDA machine can say; `make gpu` runs it."""
