"""Autoscale of a deployment on Azure: a Monitor autoscale setting on the deployment's resource."""

import contextlib
from typing import Any


def put(monitor: Any, resource_group: str, endpoint: Any, deployment_name: str, rules: dict[str, Any]) -> None:
    """Make or replace the setting from the rules of autoscale.yml, whose words are Azure's own."""
    from azure.mgmt.monitor import models

    deployment_id = f"{endpoint.id}/deployments/{deployment_name}"
    profiles = [
        models.AutoscaleProfile(
            name=profile["name"],
            capacity=models.ScaleCapacity(**{key: str(value) for key, value in profile["capacity"].items()}),
            rules=[
                models.ScaleRule(
                    metric_trigger=models.MetricTrigger(metric_resource_uri=deployment_id, **rule["metric_trigger"]),
                    scale_action=models.ScaleAction(
                        **{**rule["scale_action"], "value": str(rule["scale_action"]["value"])}
                    ),
                )
                for rule in profile["rules"]
            ],
        )
        for profile in rules["profiles"]
    ]
    name = setting_name(endpoint.name, deployment_name)
    monitor.autoscale_settings.create_or_update(
        resource_group,
        name,
        models.AutoscaleSettingResource(
            location=endpoint.location,
            profiles=profiles,
            enabled=True,
            name_properties_name=name,
            target_resource_uri=deployment_id,
        ),
    )


def delete(monitor: Any, resource_group: str, endpoint_name: str, deployment_name: str) -> None:
    from azure.core.exceptions import ResourceNotFoundError

    with contextlib.suppress(ResourceNotFoundError):
        monitor.autoscale_settings.delete(resource_group, setting_name(endpoint_name, deployment_name))


def setting_name(endpoint_name: str, deployment_name: str) -> str:
    return f"autoscale-{endpoint_name}-{deployment_name}"
