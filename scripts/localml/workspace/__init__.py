"""An Azure ML workspace on this machine: the part of the REST API that azure-ai-ml's own client calls."""
