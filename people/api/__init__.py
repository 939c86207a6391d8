"""What the API of every app shares."""
