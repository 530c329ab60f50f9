"""The behaviours, one file for each group."""
