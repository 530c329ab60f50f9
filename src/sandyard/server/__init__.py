"""Sessions that another process holds: the wire between it and its callers, and both ends of it.

A connection carries one call. Each side says who it is; the caller sends a request; then messages
and bytes go both ways, until the server has sent a result or an error. Whoever hangs up ends the
call, and with it what lives no longer than the call: a command, not a session.

    framing      bytes <-> frames: a channel and a payload (pure)
    messages     what a frame of the control channel may say (values)
    outcomes     results and errors as they travel (values)
    connection   one connection: frames in both directions
    sessions     which sessions are held, by id and name
    serving      the server's end of one call, and its answers to each request
    remote       the caller's end: the sessions of another process, with the methods of a session
"""
