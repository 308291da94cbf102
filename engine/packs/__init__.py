"""Pack files: records, segments being appended to, sealed packs."""
