"""Why a contender does not take part."""


class UnavailableError(Exception):
    """A contender that cannot take part here; its text says why."""
