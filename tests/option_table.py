"""The options in README.rst, from the one table: ``python -m tests.option_table`` writes them anew."""

from pathlib import Path

from beaker_bridge.options.table import SESSION_TABLE

README = Path(__file__).parent.parent / "README.rst"
BEGIN, END = ".. options\n", ".. end of options\n"


def rendered():
    """Return the table of options as reStructuredText."""
    lines = [BEGIN, ".. list-table::", "   :header-rows: 1", "   :widths: 20 15 20 45", ""]
    for cells in [("Option", "Default", "For type", "Meaning"), *map(_cells, SESSION_TABLE.values())]:
        lines.extend(f"   {'*' if number == 0 else ' '} - {cell}".rstrip() for number, cell in enumerate(cells))
    return "\n".join([*lines, "", END])


def _cells(row):
    default = default_text(row)
    types = SESSION_TABLE.use(row.name).removeprefix("for ")
    return f"``{row.name}``", f"``{default}``" if default else "", types, row.help


def default_text(row):
    """Return an option's default as an ``.ini`` has it; an empty text where it is not set."""
    if row.default is None or row.default == ():
        return ""
    if isinstance(row.default, bool):
        return str(row.default).lower()
    return f"{row.default:g}" if isinstance(row.default, float) else str(row.default)


def main():
    """Write the table into README.rst."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    README.write_text(before + rendered() + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
