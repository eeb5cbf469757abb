"""replay - run a configuration against history: what would have been limited, stepped and notified."""
