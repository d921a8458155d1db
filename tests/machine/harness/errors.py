"""What can go wrong with a machine, as exceptions."""


class MachineError(Exception):
    """A machine did not build, boot, or answer."""


class MachineUnavailableError(MachineError):
    """This host cannot build or boot machines; the message says why, in one line."""


class CommandFailedError(MachineError):
    """A command in the machine ended with a status other than 0."""


class CommandTimeoutError(MachineError):
    """A command in the machine was killed because its time was over."""
