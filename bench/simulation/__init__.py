"""simulation - made-up tenants, honest ones and misused ones, for tuning and scoring the volume patterns.  NOT real traffic."""
