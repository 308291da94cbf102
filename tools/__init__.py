"""Development tools: benchmark, crash rig, inspectors. Nothing here is imported by the product."""
