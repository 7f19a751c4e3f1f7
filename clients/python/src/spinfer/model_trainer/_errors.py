"""What can go wrong with an export."""


class ExportError(Exception):
    """An estimator or its data cannot become a model version; the message says why."""


class DisagreementWarning(UserWarning):
    """The graph gives something else than the estimator for some rows, but for few."""
