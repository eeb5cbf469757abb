"""content - what a message looks like: transactional or bulk, and like which other messages.  No I/O."""
