"""Managed online endpoints on this machine: traffic, deployments of real server processes, autoscale."""
