"""What the components that train a model share: loading, adapters, checkpoints, distribution, metrics."""
