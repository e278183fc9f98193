"""How a new bag is stored: options of the commands that write one."""

from __future__ import annotations

from sam2s_model.commands.options import Options

# As in sam2s_ros.bags.writer, which is too slow to import for --help.
STORAGES = ("sqlite3", "mcap")
COMPRESSIONS = ("none", "file", "message", "chunk")


def add_bag_options(group: Options) -> None:
    """Declare the form of a new bag."""
    group.add_argument("--storage", choices=STORAGES, default="sqlite3", help="of the new bag")
    group.add_argument(
        "--compression",
        choices=COMPRESSIONS,
        default="message",
        help="of the new bag, with zstd: of the file, of every message, or (mcap) of chunks",
    )
