"""Whether a chat endpoint does what its clients rely on: the rollout and check_endpoint share it."""
