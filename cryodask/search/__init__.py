"""The engine: plan, aggregates, task, lazy layer, driver and checkpointed store."""
