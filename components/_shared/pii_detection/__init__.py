"""Detection and redaction of personal data and secrets, for every component that sees raw text."""

from pii_detection.detector import Detector
from pii_detection.findings import ENTITY_TYPES, Finding, merge
from pii_detection.redactor import ACTIONS, LeftOverError, Redactor

__all__ = ["ACTIONS", "ENTITY_TYPES", "Detector", "Finding", "LeftOverError", "Redactor", "merge"]
