"""The one part that is root: it opens /dev/fuse, mounts, and hands the connection over. Its client is ``client``.

What runs as root (``server``, ``places``, ``kernel``, ``wire``) uses the standard library and the kernel, nothing else.
"""
