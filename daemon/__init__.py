"""What people and scripts talk to: the command line, and later the service around it."""
