"""What is told of the service's work: to auditors, to the journal, to Prometheus, to systemd."""

from daemon.observe.audit import Audit, Verified
from daemon.observe.notify import notify, status, watchdog_interval

__all__ = ["Audit", "Verified", "notify", "status", "watchdog_interval"]
