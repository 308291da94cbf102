"""``Service``: the ``Backend`` of this process. Each of its parts is a module; this names the whole."""

from __future__ import annotations

from daemon.service.whole import Whole


class Service(Whole):
    """A store, asked in this process. Synchronous, thread-safe; raises the errors of the engine's table.

    Beside what ``Backend`` says: ``recover``, ``stale``, ``expire``, ``prune``, ``note_history``, ``give_back`` and
    ``show_hidden`` are for whoever runs the daemon; ``served`` is to be called when a worker has begun to serve;
    ``job_started``, ``job_progress``, ``job_again`` and ``job_ended`` by what runs jobs.
    """
