"""cli - the `relaywarden` command: the operator's view of the tenants, and the switch that starts the programs.

Exit codes: 0 done; 1 the answer is no (a tenant that does not exist, a request that would be refused, a configuration with
faults under `check`); 2 it could not be done (usage, configuration, store).
"""
