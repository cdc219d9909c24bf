"""`lic`."""


def main() -> None: ...
