"""Speed against peers, measured side by side in one run. Results lie in `benchmarks/results/`."""
