"""Every figure of a run, computed from what is on disk, each with the artifact that it comes from:
for programs and for people.
"""

import logging

# Its first use on a machine lists the fonts, and says so; that is nobody's concern here.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
