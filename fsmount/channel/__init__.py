"""The kernel channel: the only place that knows pyfuse3. Everything beyond it sees plain integers and bytes."""
