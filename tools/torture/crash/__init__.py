"""Crashes: of the system call, of the disk beneath, of the whole kernel."""
