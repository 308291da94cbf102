"""The daemon as a whole, on trio: workers, jobs in processes of their own, schedules, start and stop in order."""
