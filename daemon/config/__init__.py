"""The configuration: one TOML file, read whole or refused with every error in it."""

from daemon.config.changes import reloadable
from daemon.config.models import (
    Api,
    Config,
    Export,
    Hook,
    Keep,
    Log,
    Maintenance,
    Mount,
    Nfs,
    Phoenix,
    Sessions,
)
from daemon.config.reading import InvalidConfig, Problem, example, load, read
from daemon.config.schedule import NEVER, Schedule
from daemon.config.values import Bind, bind

__all__ = [
    "NEVER", "Api", "Bind", "Config", "Export", "Hook", "InvalidConfig", "Keep", "Log",
    "Maintenance", "Mount", "Nfs", "Phoenix", "Problem", "Schedule", "Sessions", "bind", "example",
    "load", "read", "reloadable",
]  # fmt: skip
