"""Errors a user can mend. Each message says what is wrong, where, and what was expected.

The command line turns each into one line on standard error and the exit status of its class.
"""


class CryodaskError(Exception):
    """Base of every error that cryodask raises on purpose."""

    exit_status = 1


class InputError(CryodaskError, ValueError):
    """A wrong value, file or combination of options."""

    exit_status = 2


class ResourceError(CryodaskError, MemoryError):
    """The work cannot fit the memory or the disk it was given."""

    exit_status = 3


class ClusterError(CryodaskError, RuntimeError):
    """No cluster or no GPU where one was asked for."""

    exit_status = 4


class IncompleteError(CryodaskError, RuntimeError):
    """Some tiles failed; the run can be resumed."""

    exit_status = 1
