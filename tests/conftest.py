"""The modules under test are files that roles copy to servers: no test may leave compiled ones beside them."""

import os
import sys

sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
