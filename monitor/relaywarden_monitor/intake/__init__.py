"""intake - how bounce messages and complaints come in: LMTP, maildirs, a pipe; each hands a message to `Deliver`."""
