"""What Holdfast is measured against, each behind the same small interface (base.Peer)."""
