"""A facility to try EMhub with: made-up people, finished sessions, and a microscope that never stops."""

# What an audit entry says in a database that the demo filled, and by which the demo knows its own.
DEMO_LOADED = "demo loaded"
