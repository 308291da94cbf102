"""Space: what is deleted is freed, what is needed is not, and nothing grows for ever."""
