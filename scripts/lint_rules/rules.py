"""All rules; a rule is a function from a document to places and what is wrong there."""

from lint_rules import (
    capacity,
    deployments,
    endpoints,
    literal_secrets,
    monitors,
    paths,
    pinning,
    provisioning,
    schedules,
)
from lint_rules.rule import Rule

MODULES = (capacity, deployments, endpoints, literal_secrets, monitors, paths, pinning, provisioning, schedules)
RULES = [value for module in MODULES for value in vars(module).values() if isinstance(value, Rule)]
