"""The supervisor: one process of each user that holds sessions beyond the command that made them.

It is started by the first command that needs it, answers on a socket that only its user reaches, and
ends when it holds nothing. A lock says which process it is; the socket says where.

    place      its directory: the socket, the lock, the list of its sessions; who may call
    starting   the caller's side: reach it, and start it where there is none
    log        its log, bounded, off the event loop
    running    its life, from the lock to the last session
"""
