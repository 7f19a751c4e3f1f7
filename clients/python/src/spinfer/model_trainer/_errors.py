"""Errors of an export."""


class ExportError(Exception):
    """An estimator or its data cannot be exported; the message has the reason."""


class DisagreementWarning(UserWarning):
    """The graph and the estimator differ for some rows, within ``max_disagreement``."""
