"""The Azure ML inference server as it is, but for this machine alone: ``python -m localml.inference_server --help``."""

from azureml_inference_server_http import amlserver

if __name__ == "__main__":
    amlserver.DEFAULT_HOST = "127.0.0.1"  # it has no option for that, and would listen to the whole network
    amlserver.run()
