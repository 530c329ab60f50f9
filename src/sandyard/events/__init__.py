"""What a session tells the outside: events, and the sinks that take them.

Nothing here is loaded by a program that gives no ``Instrumentation``. An operation of a session
(``sandyard.observing``) becomes two events (``recorder``, ``describing``, ``model``); an outlet hands
them to each sink in order (``delivery``, ``instrumentation``); sinks write, call or send (``sinks``,
``outbox``, ``workspace_outbox``, ``http``, ``otel``).
"""
