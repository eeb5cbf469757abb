"""classify - what a reply of a receiving server means: its scope, whose fault it was, how long to wait."""
