"""notify - tell people and programs: webhook, mail, log; the first crossing and the recovery, each once."""
