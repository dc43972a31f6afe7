"""What the benchmarks share: statistics, processes, servers, tables and plots."""
