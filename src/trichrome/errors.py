"""The one error that a user can mend; the command line prints it as one line and exits with 1."""


class TrichromeError(ValueError):
    """Something is wrong with the input, a file or a setting; the message says what, where, what to do."""


class ModelMismatch(TrichromeError):
    """A store was built with another model than the one that queries it."""


class RowGone(TrichromeError):
    """A document was removed or replaced after its row was looked up; look it up again."""


class StoreLocked(TrichromeError):
    """Another process holds the store open."""
