"""Recovery points: making them, listing them, reading them, comparing them, deleting them."""
