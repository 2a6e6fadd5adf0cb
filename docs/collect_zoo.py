"""Put finished runs into the model zoo: python docs/collect_zoo.py RUN_DIR [RUN_DIR ...].

All seeds of a data set together. Which seed's policy is taken is decided without the simulator; what goes into
damorl/zoo, and why, says damorl/experiment/zoo_entry.py. Writes selection.json into the run directories.
"""

from __future__ import annotations

import sys
from pathlib import Path

from damorl.api import keep_compiled_programs
from damorl.experiment.zoo import FOLDER, entry_paths, read_card
from damorl.experiment.zoo_entry import collect

if __name__ == "__main__":
    keep_compiled_programs()
    for name in collect([Path(word) for word in sys.argv[1:]]):
        card = read_card(name)
        print(f"{entry_paths(name, FOLDER)[0]}: seed {card['seed']}, {card['file_bytes'] / 1e3:.0f} kB")
