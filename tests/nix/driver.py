# The names that NixOS's test driver gives to a test script, as its manual describes them, for mypy.
from contextlib import AbstractContextManager


class Machine:
    def wait_for_unit(self, unit: str) -> None: ...
    def succeed(self, *commands: str) -> str:
        raise NotImplementedError


def subtest(name: str) -> AbstractContextManager[None]:
    raise NotImplementedError


dom0 = Machine()
