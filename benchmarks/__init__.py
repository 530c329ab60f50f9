"""Measurements as ratios: each beside a peer or a bare system call, in one interleaved run."""
