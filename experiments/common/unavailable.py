"""What an experiment says when it cannot begin."""


class UnavailableError(Exception):
    """What an experiment needs is not here; the text is one sentence and says what to do."""
