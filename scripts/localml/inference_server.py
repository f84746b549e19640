"""The Azure ML inference server as it is, but for this machine alone: ``python -m localml.inference_server --help``."""

import logging

from azureml_inference_server_http import amlserver

if __name__ == "__main__":
    amlserver.DEFAULT_HOST = "127.0.0.1"  # it has no option for that, and would listen to the whole network
    # Application Insights: off here, but it logs a traceback for a model that does not lie where Azure ML mounts it.
    logging.getLogger("azmlinfsrv.trace").addFilter(lambda record: False)
    amlserver.run()
