"""The rules of POSIX (and of Linux where POSIX leaves it open) as a table, and what carries it out.

rule     one call by one user in a prepared directory, what it must answer and what must hold afterwards (``rules``)
call     ``(name, argument…)``, carried out by ``calls``; a rule's calls run in a process of that user (``users``)
table    all rules: ``access`` (who may do what), ``paths`` (how names resolve), ``names`` (making, linking, renaming),
         ``times``, ``files`` (descriptors, sizes, attributes)
"""
