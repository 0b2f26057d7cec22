"""`make gpu`: what only a CUDA card can say, in one command."""
