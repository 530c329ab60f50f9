"""Sessions that another process holds: the wire between it and its callers, and both ends of it.

A connection carries one call. Each side says who it is; the caller sends a request; then messages
and bytes go both ways, until the server has sent a result or an error. Whoever hangs up ends the
call, and with it what lives no longer than the call: a command, not a session.

    framing          bytes <-> frames: a channel and a payload (pure)
    wording          what every message is made of
    messages         what callers may say (values)
    outcomes         what a server may say: results and errors (values)
    connection       one connection: frames in both directions

    records          what is known of sessions that are gone
    sessions         which sessions are held, by id and name
    call             the server's end of one call: input, signals, sizes
    terminals        what it does for those who are at a terminal
    feeding          what comes from a caller, as a file for a thread
    values           values of methods as JSON, and back (pure)
    verbs            the methods that one message carries, by the contract's signatures
    verb_answers     its answer to the call of such a method
    answers          its answer to each request
    serving          its answer to one connection

    calling          the caller's end of one call
    carrying         methods that one message carries
    remote           sessions of another process, with the methods of a session
    remote_commands  and their commands
    remote_files     and their files
    remote_terminal  and their terminals
"""
