"""Azure ML on this machine: runs the pipeline job files of `az ml job create` without a workspace."""
