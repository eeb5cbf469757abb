"""policyd - the Postfix policy-delegation daemon."""
