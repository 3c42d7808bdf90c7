"""What is raised where a request cannot be met."""


class Refused(ValueError):
    """A request that cannot be met as it stands; the text says why and what to do instead.

    The command line turns it into one line, and a job that meets one while it fits a matrix leaves that matrix dense
    and says so. Any other exception is a fault of eckart and shows where it happened.

    >>> import eckart
    >>> eckart.compress(None, "lora")
    Traceback (most recent call last):
    eckart.errors.Refused: 'lora' is no compressor but an adapter: eckart.adapt, or eckart adapt --method lora
    """
