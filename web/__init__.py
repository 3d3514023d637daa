"""The demo as a page in the browser, on this machine alone: Python's own server, and one page without any download.

No framework, because none is needed for one form, and the usual one (Gradio) wants an older Pillow than we are tested
with, thirty further packages, and fonts from the network.
"""

from web.server import serve

__all__ = ["serve"]
