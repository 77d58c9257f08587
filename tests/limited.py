"""A tool that meets a usage limit of everybody's: ``limited.py PLACE new|resume CONVERSATION``, for tests and benchmarks.

The limit begins with the start whose number PLACE/at says and lasts as long as PLACE/lasts; where PLACE/tells is, it is
told when it ends. PLACE/starts gets a line for each start: time, item, new or resume, conversation. PLACE/until: its end.
"""

import fcntl
import json
import os
import sys
import time
import uuid
from pathlib import Path

place, how, session = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
home, name = Path(os.environ["HOME"]), os.environ["HARNESS_ITEM"]
until = place / "until"
with (place / "starts").open("a") as starts:
    fcntl.flock(starts, fcntl.LOCK_EX)
    print(time.time(), name, how, session, file=starts, flush=True)
    if len((place / "starts").read_text().splitlines()) == int((place / "at").read_text()):
        draft = place / "until.new"
        draft.write_text(str(time.time() + float((place / "lasts").read_text())))
        draft.rename(until)
if how == "new":
    session = str(uuid.uuid4())
    (home / session).write_text(name)
elif not (home / session).exists():
    sys.exit("no such conversation")
print(json.dumps({"session": session}), flush=True)
part = Path(f"{name}.part")
if how == "new":
    part.write_text("half of it")
elif part.exists():
    print(json.dumps({"found": part.read_text()}), flush=True)
left = float(until.read_text()) - time.time() if until.exists() else 0.0
if left > 0:
    told = f" resets in {left:.3f}" if (place / "tells").exists() else ""
    print(f"usage limit reached{told}", file=sys.stderr)
    sys.exit(1)
Path(name).write_text(name)
part.unlink(missing_ok=True)
print(json.dumps({"text": "done", "usd": 0.25}))
