"""Print the lowest version of everything that setup.cfg asks for, as constraints of pip: ``flask==3.1.3``."""

import configparser
import re
from pathlib import Path

config = configparser.ConfigParser()
config.read(Path(__file__).parent.parent / "setup.cfg", encoding="utf-8")
asked = [config["options"]["install_requires"], *config["options.extras_require"].values()]
named = {line for lines in asked for line in lines.split("\n")}
for line in sorted(line for line in named if line and not line.startswith("labeler-rag[")):
    found = re.fullmatch(r"([a-z0-9-]+)>=([0-9.]+)(;.*)?", line)
    if found is None:
        raise SystemExit(f"setup.cfg asks for {line!r}; write name>=version, the oldest that was tried and no more")
    print(f"{found[1]}=={found[2]}{found[3] or ''}")
