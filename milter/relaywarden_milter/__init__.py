"""milter - scan, sign and tag the mail of the tenant that logged in."""
