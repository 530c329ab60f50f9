"""Owns sockets: ports of a sandbox that are reached from this machine."""
