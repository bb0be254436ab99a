"""Numbers of bytes in words."""

UNITS = ("B", "kB", "MB", "GB", "TB")


def in_words(count: float) -> str:
    """Return a number of bytes with its unit, in powers of 1,000: "812 B", "3.4 MB"."""
    amount, unit = float(count), 0
    while abs(round(amount, 1)) >= 1000 and unit + 1 < len(UNITS):
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.0f} B" if unit == 0 else f"{amount:.1f} {UNITS[unit]}"
