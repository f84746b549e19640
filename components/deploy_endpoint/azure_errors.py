"""What Azure's errors mean for the person who deploys: one line with the service's code and what to do."""

import contextlib
import re
from collections.abc import Iterator

from rollout_target import RefusedError

from model_registry.azure_service import one_line

# In the order in which they are looked for; the first that is found says what to do.
WHAT_TO_DO = (
    (r"quota", "ask for quota (portal: Quotas, Machine Learning), or take a smaller instance_type or instance_count"),
    (
        r"sku|vm ?size|instance type|OutOfCapacity|capacity",
        "choose an instance_type that the region offers, in specs/*/deployment.yml",
    ),
    (r"NameUnavailable|NameNotAvailable|already (exists?|in use|taken)", "choose another endpoint_name"),
    (r"Conflict|another operation", "wait until the other change of the endpoint is over, and start again"),
    (
        r"AuthorizationFailed|Forbidden|does not have authorization|Unauthorized|LinkedAuthorizationFailed",
        "give the identity of the job the role AzureML Data Scientist on the workspace (and Monitoring Contributor for "
        "autoscale)",
    ),
    (r"environment|image", "register the environment of the deployment, and see its build log"),
)
# The container did not come up: the deployment's fault, not a refusal.
UNHEALTHY = re.compile(r"ResourceNotReady|user container|container (has )?(crashed|terminated)|probe|score\.py", re.I)


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Azure's errors as one line; a missing resource, which is an answer, goes through as it is."""
    from azure.ai.ml.exceptions import MlException
    from azure.core.exceptions import AzureError, ResourceNotFoundError

    try:
        yield
    except ResourceNotFoundError:
        raise
    except (AzureError, MlException) as error:
        raise RefusedError(explained(error)) from None


def explained(error: Exception) -> str:
    code, message = innermost(error)
    said = f"{code} {message}"
    advice = next((advice for pattern, advice in WHAT_TO_DO if re.search(pattern, said, re.IGNORECASE)), None)
    return f"{code}: {message}" + (f"; {advice}" if advice else "")


def is_unhealthy(error: Exception) -> bool:
    """Whether the service did what was asked, and the server in the container is what failed."""
    return bool(UNHEALTHY.search(" ".join(innermost(error))))


def innermost(error: Exception) -> tuple[str, str]:
    """Code and message of the most telling level: Azure wraps "quota" into "The request is invalid"."""
    found = getattr(error, "error", None)
    while details := [one for one in getattr(found, "details", None) or [] if getattr(one, "message", None)]:
        found = details[0]
    code = getattr(found, "code", None) or getattr(error, "status_code", None) or type(error).__name__
    message = getattr(found, "message", None) or getattr(error, "message", None) or str(error)
    return str(code), one_line(message)
