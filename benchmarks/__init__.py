"""Speed of edited against stock vLLM, as ratios from one interleaved run."""
