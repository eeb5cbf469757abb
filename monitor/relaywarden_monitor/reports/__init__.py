"""reports - what a bounce message or a complaint says: about whom, why, and whether it is about a message of ours."""
