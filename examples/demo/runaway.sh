# A tree that does not want to end: sh runaway.sh WORD. scripts/demo.py ends it.
stubborn='trap "" TERM INT HUP; while :; do sleep 1; done'
(setsid sh -c "$stubborn" "$1" &)                # forked twice, in a session of its own
(setsid setsid sh -c "$stubborn" "$1" & exit) &  # and once more
sh -c "$stubborn" "$1"                           # and one that stays
