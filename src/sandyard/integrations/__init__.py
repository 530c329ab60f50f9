"""Adapters: other frameworks' sandboxes, made of ours. Each is the only importer of its framework."""
