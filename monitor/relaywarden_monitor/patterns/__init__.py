"""patterns - know each tenant's normal, notice what differs, and act in proportion."""
