"""Registration of environments, components and pipeline components in a workspace or a registry of Azure ML."""
